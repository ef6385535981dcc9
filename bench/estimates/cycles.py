"""A population that says nothing but its calls: steady periods, cycles of several gaps, leaders and followers."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from bench.workloads.base import Call, Step
from scalesim_client.events import Event

GAPS: Final = ((3,), (5,), (7,), (11,), (2, 9), (1, 1, 8), (4, 13), (1, 6, 2))
LAG: Final = 2  # steps
LEAST: Final = 4  # steps between the calls of one leader
MOST: Final = 16


class Cycles:
    """The workload `cycles`: `agents` of them, a third of which lead, a third follow two steps later, and a third call
    in cycles, of which each call comes a step late with probability `jitter`."""

    simulation = "cycles"

    def __init__(self, seed: int, count: int, agents: int = 24, jitter: float = 0.0) -> None:
        self.personas = {f"agent-{number}": "" for number in range(agents)}
        self.opening: tuple[Event, ...] = ()
        self._seed, self._count, self._jitter = seed, count, jitter

    def steps(self) -> Iterator[Step]:
        """Run from the first step."""
        rng = Random(self._seed)
        due: dict[int, list[str]] = {}
        for number, name in enumerate(self.personas):
            if number % 3 != 1:
                due.setdefault(rng.randint(1, 8), []).append(name)
        made = dict.fromkeys(self.personas, 0)
        names = list(self.personas)
        for now in range(1, self._count + 1):
            callers = due.pop(now, [])
            for name in callers:
                number = names.index(name)
                if number % 3 == 0:
                    due.setdefault(now + LAG, []).append(names[number + 1])
                    due.setdefault(now + rng.randint(LEAST, MOST), []).append(name)
                elif number % 3 == 2:
                    gaps = GAPS[number // 3 % len(GAPS)]
                    late = rng.random() < self._jitter
                    due.setdefault(now + gaps[made[name] % len(gaps)] + late, []).append(name)
                made[name] += 1
            yield Step(now, (), tuple(Call(name, "activity", "") for name in callers), ())
