"""The figures, what each is to be, and what gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.daemon.choose import choose
from bench.daemon.growth import growth
from bench.daemon.idle import idle
from bench.daemon.ingest import ingest
from bench.daemon.start import start
from bench.daemon.urgent import urgent

Round = Mapping[str, float]
Part = Callable[[int, int], Iterator[Round]]
"""Given how many rounds and a seed, yields what each round gave: figures by their keys, and others beside them."""

PARTS: Mapping[str, Part] = {
    "ingest": ingest,
    "choose": choose,
    "growth": growth,
    "idle": idle,
    "urgent": urgent,
    "start": start,
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to be: at least or at most `bound`."""

    bound: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether a value is as it is to be."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


TARGETS: Mapping[str, Target] = {
    "ingest_1_fraction": Target(0.5, at_least=True),
    "ingest_100_fraction": Target(0.15, at_least=True),
    "select_over_argpartition": Target(5),
    "cycle_over_argpartition": Target(25),
    "event_cost_growth_1k_to_1m": Target(2),
    "bytes_per_idle_agent": Target(1024),
    "urgent_p99_over_bare_ms": Target(5),
    "start_over_bare": Target(3),
}


@dataclass(frozen=True, slots=True)
class Summary:
    """The median of a figure's rounds, and the least and the greatest of them."""

    median: float
    least: float
    greatest: float


def summed_up(rounds: Sequence[Round]) -> dict[str, Summary]:
    """Return the summary of everything that the rounds gave."""
    values = {key: [one[key] for one in rounds] for key in rounds[0]}
    return {key: Summary(median(some), min(some), max(some)) for key, some in values.items()}
