"""What a simulation holds: says events to the daemon, and never waits for it, nor fails because of it."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from threading import TIMEOUT_MAX
from types import TracebackType
from typing import Any, Self

from scalesim_client.codec import check_packed, pack_event
from scalesim_client.curve import Curve
from scalesim_client.events import (
    MAX_MESSAGE_BYTES,
    ActivityStarted,
    AgentMoved,
    ClockKind,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    StateSnapshot,
    StepAdvanced,
    StreamClosed,
    StreamOpened,
)
from scalesim_client.link import Link, logger
from scalesim_client.outbound import Outbound

MAX_EVENT_BYTES = MAX_MESSAGE_BYTES - 4096
CLOSE_TIMEOUT = 2.0
_OWN_EVENTS = (StreamOpened, StreamClosed, StateSnapshot)


class Publisher:
    """One source of events of one simulation, for synchronous and asyncio code alike; any thread may use it.

    A background thread sends. While no daemon listens, the newest state is kept in memory, and said when one
    does. An event that is not valid is ignored, logged once per type, and counted in `invalid`.

    `clock` says what the times count; `address` is the daemon's ZeroMQ door. `source` names this process
    among those of the simulation (default: the simulation's name); a restarted source needs a greater
    `incarnation` (default: the wall time in milliseconds). Every `snapshot_every` seconds the whole state is
    said again. `curve` has the keys for a daemon that asks for some. Raises `ValueError` for a name, clock or address
    that can't be.
    """

    def __init__(
        self,
        simulation: str,
        clock: ClockKind = "step",
        *,
        address: str = "tcp://127.0.0.1:5600",
        source: str | None = None,
        incarnation: int | None = None,
        snapshot_every: float = 30.0,
        curve: Curve | None = None,
    ) -> None:
        opened = StreamOpened(
            simulation=simulation,
            source=simulation if source is None else source,
            incarnation=time.time_ns() // 1_000_000 if incarnation is None else incarnation,
            clock=clock,
        )
        self.simulation = simulation
        self.invalid = 0
        self._refused: set[str] = set()
        self._requests = count(1)
        self._outbound = Outbound()
        self._link = Link(address, opened, self._outbound, snapshot_every, curve)
        self._pid = os.getpid()
        self._link.start()
        atexit.register(self.close)

    @property
    def sent(self) -> int:
        """How many events were handed to ZeroMQ, those of snapshots not counted."""
        return self._outbound.sent

    @property
    def dropped(self) -> int:
        """How many events were not sent, as no daemon listened or too much waited; snapshots say what they
        changed."""
        return self._outbound.dropped

    def send(self, *events: Event) -> None:
        """Hand events over in this order; returns at once and never raises."""
        if os.getpid() != self._pid:
            # A forked child has no thread to send, and may have inherited a held lock.
            return
        for event in events:
            try:
                self._outbound.put(event, _pack(event))
            except (ValueError, TypeError, AttributeError) as error:
                self._refuse(getattr(event, "type", type(event).__name__), error)
        self._link.wake()

    def step(self, now: float) -> None:
        """Say that the simulation's clock now shows `now`."""
        self._say(StepAdvanced, now=now)

    def activity(self, agent: str, *, for_: float | None = None, until: float | None = None) -> None:
        """Say that the agent acts without the LLM `for_` clock units from now, or `until` a clock value."""
        self._say(ActivityStarted, agent=agent, for_=for_, until=until)

    def moved(
        self,
        agent: str,
        *,
        xy: tuple[float, float] | None = None,
        place: str | None = None,
        destination: tuple[float, float] | None = None,
        speed: float | None = None,
        vision: float | None = None,
    ) -> None:
        """Say where the agent is and where it goes, in space units and, for `speed`, space units per clock
        unit."""
        self._say(
            AgentMoved, agent=agent, xy=xy, place=place, destination=destination, speed=speed, vision=vision
        )

    def bind(
        self,
        agent: str,
        *,
        lora: str | None = None,
        lora_name: str | None = None,
        token_ids: Sequence[int] | None = None,
        text: str | None = None,
        messages: Sequence[dict[str, Any]] | None = None,
        cache_salt: str | None = None,
        model: str | None = None,
    ) -> None:
        """Say what memory the agent's requests use: a LoRA, and a prompt prefix in at most one of its three
        forms."""
        self._say(
            MemoryBound,
            agent=agent,
            lora=lora,
            lora_name=lora_name,
            token_ids=token_ids,
            text=text,
            messages=messages,
            cache_salt=cache_salt,
            model=model,
        )

    @contextmanager
    def invocation(self, agent: str, request: str | None = None) -> Iterator[str]:
        """Say that an LLM request of the agent runs while the block does; yields the request's id.

        A plain `with`, also around `await`. Without `request`, an id unique within this publisher is made up.
        """
        name = str(next(self._requests)) if request is None else request
        self._say(InvocationStarted, agent=agent, request=name)
        try:
            yield name
        finally:
            self._say(InvocationFinished, agent=agent, request=name)

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all that was handed over has been sent; return whether it
        has."""
        return self._outbound.wait_settled(min(timeout, TIMEOUT_MAX))

    def close(self) -> None:
        """Send what waits and `stream.closed`, within about two seconds; later events are dropped."""
        if os.getpid() != self._pid:
            return
        atexit.unregister(self.close)
        self._link.stop(CLOSE_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self, kind: type[Event], **fields: Any) -> None:
        try:
            event = kind(**fields)
        except (ValueError, TypeError, AttributeError) as error:
            self._refuse(kind.type, error)
            return
        self.send(event)

    def _refuse(self, kind: str, error: Exception) -> None:
        self.invalid += 1
        if kind not in self._refused:
            self._refused.add(kind)
            logger.warning("%s ignored, and further ones like it without a word: %s", kind, error)


def _pack(event: Event) -> bytes:
    if not isinstance(event, Event):
        raise TypeError("not an event")
    if isinstance(event, _OWN_EVENTS):
        raise ValueError(f"{event.type} is the publisher's own to say")
    packed = pack_event(event)
    if len(packed) > MAX_EVENT_BYTES:
        raise ValueError(f"an event holds at most {MAX_EVENT_BYTES} bytes, got {len(packed)}")
    check_packed(packed)
    return packed
