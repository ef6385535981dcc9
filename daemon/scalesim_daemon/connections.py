"""How much of an HTTP server one client may hold: connections, time to say what it asks, and the loop by asking oddly.

uvicorn itself waits for ever for a request that never becomes whole, takes connections until no file can be opened any
more, and reads on what follows an answer. This host is trusted with connections and time, as it is with all else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon.setting_values import is_loopback

MOST_OF_A_HOST = 256
MOST_OF_ALL_HOSTS = 1024
REQUEST_SECONDS = 30.0
# A body in pieces of a byte each would cost the parser, and so the loop, several times more than its sender.
FREE_PIECES = 1000
LEAST_PIECE_BYTES = 64
# Who is still sending when it is refused may never read why.
MOST_DISCARDED_BYTES = MAX_MESSAGE_BYTES
MOST_HEADER_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Places:
    """How many connections each other host has. Pure."""

    def __init__(self, of_a_host: int = MOST_OF_A_HOST, of_all: int = MOST_OF_ALL_HOSTS) -> None:
        self._of_a_host = of_a_host
        self._of_all = of_all
        self._taken: Counter[str] = Counter()

    def take(self, host: str) -> bool:
        """Count one more connection of a host; return whether it may stay."""
        if self._taken[host] >= self._of_a_host or self._taken.total() >= self._of_all:
            self._taken += Counter()
            return False
        self._taken[host] += 1
        return True

    def leave(self, host: str) -> None:
        """Count one less."""
        self._taken -= Counter([host])


def bounded(places: Places) -> type[H11Protocol]:
    """Return uvicorn's protocol with an end to all of that, for the connections of one server."""

    class Bounded(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.conn = _Connection()
            self._host = ""
            self._late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
            super().connection_made(transport)
            host = self.client[0] if self.client else ""
            if not host or is_loopback(host):
                return
            if not places.take(host):
                log.warning("connections refused: %s, or all hosts together, have as many as may be", host)
                transport.abort()
                return
            self._host = host
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._host:
                places.leave(self._host)
                self._host = ""
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                # It has its answer, or a part of it.
                self.transport.abort()
                return
            super().send_400_response(msg)
            if self.cycle is not None:
                # That was the answer: whatever is at work on another one has nobody to tell.
                self.cycle.disconnected = True
                self.cycle.message_event.set()

        def _watch(self) -> None:
            """Let the time run while a request is coming in, from its first byte or the connection's beginning."""
            coming = bool(self._host) and self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
            if self._late is None and coming:
                self._late = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)
            elif self._late is not None and not coming:
                self._late.cancel()
                self._late = None

    return Bounded


class _Connection(h11.Connection):
    """Takes no body in tiny pieces, and no more than so much of one that has been answered."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MOST_HEADER_BYTES)
        self._pieces = 0
        self._bytes = 0
        self._discarded = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = self._discarded = 0
            # What comes in one piece is whole before h11 looks at its length.
            if sum(len(name) + len(value) for name, value in event.headers) > MOST_HEADER_BYTES:
                raise h11.RemoteProtocolError("the headers are too long")
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self.our_state not in (h11.IDLE, h11.SEND_RESPONSE, h11.SEND_BODY):
                self._discarded += len(event.data)
            if self._discarded > MOST_DISCARDED_BYTES:
                raise h11.RemoteProtocolError("the rest of an answered request is too long")
            if self._pieces > FREE_PIECES and self._bytes < self._pieces * LEAST_PIECE_BYTES:
                raise h11.RemoteProtocolError("the body comes in pieces that are too small")
        return event
