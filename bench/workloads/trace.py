"""The workload `trace`: the busiest part of a recorded day of generative agents, on a clock of steps.

An agent calls when its activity changes and when it takes part in a conversation. The report tells both to
ten minutes; within them the calls get an order of their own, drawn once, and at most a fifth of the agents
call in a step. When an activity starts its end is known, as the planner of such agents fixes it; a
conversation that interrupts it is not: that can only be foreseen from who comes to whose place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from bench.workloads.base import Call, Step, active_limit
from bench.workloads.places import Point
from bench.workloads.trace_file import Day, Doing, Slot, read_day
from scalesim_client.events import ActivityStarted, AgentMoved, Event

DEFAULT_STEPS: Final = 24
MAP: Final = (140.0, 100.0)
SPEED: Final = 40.0  # tiles per step
VISION: Final = 0.5  # tiles: the same part of the same place
ROOM: Final = 6.0  # tiles between the parts of one place, at most


class Trace:
    """The `count` steps of the day (default: 24) with most talk in them. Raises what `read_day` raises."""

    simulation = "generative-agents"

    def __init__(self, path: Path, count: int | None = None) -> None:
        day = read_day(path)
        limit = active_limit(len(day.personas))
        count = count or DEFAULT_STEPS
        batches = [
            _batches(before, slot, limit) for before, slot in zip(day.slots, day.slots[1:], strict=False)
        ]
        first = _busiest(day, batches, count)
        self.personas = {name: _persona(day, name) for name in day.personas}
        self._before = day.slots[first]
        timed = [(slot, batch) for slot, some in zip(day.slots[1:], batches, strict=True) for batch in some]
        skipped = sum(len(some) for some in batches[:first])
        self._steps = timed[skipped : skipped + count]
        self._later = timed[skipped + count :]
        self.opening = tuple(
            event
            for name in self.personas
            for event in (self._acts(name, 0), _stands(name, self._before.doing[name]))
        )

    def steps(self) -> Iterator[Step]:
        """Replay the part of the day."""
        doing = dict(self._before.doing)
        for now, (slot, batch) in enumerate(self._steps, start=1):
            before: list[Event] = []
            after: list[Event] = []
            for name in batch:
                walk = _walks(name, doing[name], slot.doing[name])
                (before if _talks(slot, name) else after).append(walk)
                doing[name] = slot.doing[name]
                after.append(self._acts(name, now))
            yield Step(now, tuple(before), tuple(_call(name, now, slot) for name in batch), tuple(after))

    def _acts(self, name: str, now: int) -> ActivityStarted:
        """Say until when the agent's activity was planned: until it next begins another of its own."""
        coming = self._steps[now:] + self._later
        ends = (
            now + ahead
            for ahead, (slot, batch) in enumerate(coming, start=1)
            if name in batch and not _talks(slot, name)
        )
        return ActivityStarted(agent=name, until=float(next(ends, now + len(coming) + 1)))


def _batches(before: Slot, slot: Slot, limit: int) -> list[list[str]]:
    """Return who calls in each step of a slot: those with a new activity first, then those who talk."""
    fresh = {name for name, doing in slot.doing.items() if doing.activity != before.doing[name].activity}
    talkers = list(dict.fromkeys(name for talk in slot.talks for name in talk))
    alone = sorted(fresh.difference(talkers), key=lambda name: _drawn(slot.time, name))
    callers = alone + talkers
    count = math.ceil(len(callers) / limit)
    return [callers[i * len(callers) // count : (i + 1) * len(callers) // count] for i in range(count)]


def _busiest(day: Day, batches: list[list[list[str]]], count: int) -> int:
    """Return the slot after which, within `count` steps, most agents talk; the earliest of equals."""

    def talking(first: int) -> int:
        coming = [
            sum(_talks(slot, name) for name in batch)
            for slot, some in zip(day.slots[first + 1 :], batches[first:], strict=True)
            for batch in some
        ]
        return sum(coming[:count]) if len(coming) >= count else -1

    return max(range(len(batches)), key=lambda first: (talking(first), -first))


def _persona(day: Day, name: str) -> str:
    """Return the persona and, as the memory of a day like this one, what the agent does from slot to slot."""
    lines = [f"## {name}", day.personas[name], "", "日程："]
    last: Doing | None = None
    for slot in day.slots:
        doing = slot.doing[name]
        if doing != last:
            lines.append(f"{slot.time} {'，'.join(doing.place[1:])}：{doing.activity}")
        last = doing
    return "\n".join(lines)


def _call(name: str, now: int, slot: Slot) -> Call:
    here = slot.doing[name]
    around = [
        f"{other}：{doing.activity}"
        for other, doing in slot.doing.items()
        if other != name and doing.place[:3] == here.place[:3]
    ]
    memory = (
        f"{now}. {slot.time}，{name}在{'，'.join(here.place[1:])}，{here.activity}。"
        f"周围：{'；'.join(around[:4]) or '没有别人'}。{name}接下来说什么、做什么，做多久？"
    )
    return Call(name, "interaction" if _talks(slot, name) else "activity", memory)


def _talks(slot: Slot, name: str) -> bool:
    return any(name in talk for talk in slot.talks)


def _walks(name: str, before: Doing, then: Doing) -> AgentMoved:
    start, end = _spot(before.place), _spot(then.place)
    if start == end:
        return _stands(name, then)
    return AgentMoved(agent=name, xy=start, destination=end, speed=SPEED, vision=VISION)


def _stands(name: str, doing: Doing) -> AgentMoved:
    return AgentMoved(
        agent=name, xy=_spot(doing.place), place=" ".join(doing.place), speed=0.0, vision=VISION
    )


def _spot(place: tuple[str, ...]) -> Point:
    """Lay a place out on the map: the same words give the same spot, parts of a place lie near each other."""
    house, part = "，".join(place[:2]), "，".join(place)
    return (
        MAP[0] * _drawn("x", house) + ROOM * _drawn("x", part),
        MAP[1] * _drawn("y", house) + ROOM * _drawn("y", part),
    )


def _drawn(*words: str) -> float:
    """Return a number in 0..1 that depends on the words alone."""
    return int.from_bytes(sha256("\0".join(words).encode()).digest()[:6], "big") / 2**48
