"""Sends what was recorded once more, at the pace at which it came or another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

from scalesim_client.events import SCHEMA_VERSION, StreamOpened
from scalesim_daemon.recording.content import restore
from scalesim_daemon.recording.format import BadRecording, End, Message, Record, Request
from scalesim_daemon.recording.targets import EngineTarget, Target


@dataclass(slots=True)
class Tally:
    """What was sent again. `end` says how the recording ended, None where it just stops."""

    messages: int = 0
    events: int = 0
    requests: int = 0
    sources: set[str] = field(default_factory=set)
    seconds: float = 0.0
    end: str | None = None


class Renewal:
    """Makes recorded messages sayable again to a daemon that may have heard them before: each source is a newer
    incarnation of itself, at the same distances between its incarnations, and one that never opened a stream does so,
    as the gate does for it."""

    def __init__(self, incarnation: int) -> None:
        self._incarnation = incarnation
        self._shifts: dict[str, int] = {}

    def renew(self, message: Message) -> Iterator[Message]:
        """Yield what to send for a message."""
        source = message.source
        opens = any(_incarnation_of(event) is not None for event in message.events)
        if message.seq is None and source not in self._shifts and not opens:
            # By the gate it is incarnation 0 of itself.
            self._shifts[source] = self._incarnation
            yield Message(message.after, source, None, [_opened(source, self._incarnation)])
        yield Message(
            message.after, source, message.seq, [self._newer(source, event) for event in message.events]
        )

    def _newer(self, source: str, event: Any) -> Any:
        incarnation = _incarnation_of(event)
        if incarnation is None:
            return event
        shift = self._shifts.setdefault(source, self._incarnation - incarnation)
        return {**event, "incarnation": incarnation + shift}


async def replay(
    records: Iterable[tuple[int, Record]],
    *,
    offset: int,
    content: bool,
    speed: float,
    target: Target,
    engine: EngineTarget | None,
    tally: Tally,
    read: Callable[[int], None] = lambda _: None,
) -> None:
    """Send the records, counting in `tally`; they start at `offset` in the file, and `read` is told the one reached.

    `speed` divides the recorded times; 0 waits for nothing. `content` says whether prompts are in the recording.
    Raises `BadRecording` where the file is damaged, after what came before it was taken, and `Unreachable`.
    """
    began = monotonic()
    renewal = Renewal(int(time() * 1000))
    start = offset
    async with target:
        try:
            for stop, record in records:
                if speed:
                    await asyncio.sleep(max(0.0, began + record.after / speed - monotonic()))
                await _send(record, renewal, content, target, engine, tally)
                read(start := stop)
        except ValueError as error:
            await _finish(target, engine)
            if isinstance(error, BadRecording):
                raise
            raise BadRecording(start, f"the line is damaged: {error}") from None
        finally:
            tally.seconds = monotonic() - began
        await _finish(target, engine)
        tally.seconds = monotonic() - began


async def _finish(target: Target, engine: EngineTarget | None) -> None:
    await target.finish()
    if engine is not None:
        await engine.finish()


async def _send(
    record: Record,
    renewal: Renewal,
    content: bool,
    target: Target,
    engine: EngineTarget | None,
    tally: Tally,
) -> None:
    match record:
        case Message(source=source):
            for message in renewal.renew(record):
                whole = [event if content else restore(event, source) for event in message.events]
                await target.send(source, message.seq, whole)
            tally.messages += 1
            tally.events += len(record.events)
            tally.sources.add(source)
        case Request(agent=agent, path=path, body=body):
            tally.requests += 1
            if engine is not None:
                engine.send(agent, path, body if content else restore(body, agent or ""))
        case End(end=end):
            tally.end = end


def _incarnation_of(event: Any) -> int | None:
    if not isinstance(event, dict) or event.get("type") != StreamOpened.type:
        return None
    incarnation = event.get("incarnation")
    return incarnation if isinstance(incarnation, int) and not isinstance(incarnation, bool) else None


def _opened(source: str, incarnation: int) -> dict[str, Any]:
    return StreamOpened(
        simulation=source.replace("/", "-"),
        source=source,
        incarnation=incarnation,
        clock="wall_seconds",
        schema_version=SCHEMA_VERSION,
    ).to_wire()
