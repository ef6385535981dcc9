"""A broadcast of dues for tests: its messages as bytes, and a publisher over real ZeroMQ."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import zmq

from scalesim_adapters.dues import TOPIC

WITHIN = 10.0

Dues = Mapping[str, tuple[str, float] | None]
Clocks = Mapping[str, tuple[float, float]]


def payload(kind: str, clocks: Clocks | None = None, dues: Dues | None = None) -> dict[str, Any]:
    """Return a message's map."""
    return {"type": kind, "clocks": dict(clocks or {}), "dues": dict(dues or {})}


def frames(seq: int, said: Any) -> list[bytes]:
    """Return a message as it is sent."""
    return [TOPIC, seq.to_bytes(8, "big"), msgspec.msgpack.encode(said)]


def until(holds: Callable[[], bool]) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + WITHIN
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        pause.wait(0.005)


class Broadcaster:
    """Binds an endpoint and says what a test wants; `hear` waits for a subscription."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.bind(endpoint)
        self.seq = 0

    def hear(self) -> bytes:
        """Return the next subscription or its end."""
        assert self._socket.poll(WITHIN * 1000), "nobody subscribed"
        return self._socket.recv()

    def say(self, said: Any) -> None:
        """Send a payload, numbered."""
        self.send(frames(self.seq, said))
        self.seq += 1

    def send(self, parts: list[bytes]) -> None:
        """Send frames as they are."""
        self._socket.send_multipart(parts)

    def close(self) -> None:
        """Unbind at once."""
        self._context.destroy(linger=0)
