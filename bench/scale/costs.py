"""The file of figures: medians of the rounds with their spread, and the conditions; and unit costs as read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.daemon.figures import Summary

FILE = Path("docs/results/scale.json")


class Conditions(msgspec.Struct, frozen=True):
    """Under what the figures were measured: `rounds` by part. `load` is how many processes ran or waited to, on average
    of the last quarter of an hour."""

    rounds: dict[str, int]
    seed: int
    cores: int
    python: str
    valkey: str
    load: float
    played: str


class Figures(msgspec.Struct, frozen=True):
    """All figures, by names such as `due.server_us`: what of which unit, and in which measure."""

    conditions: Conditions
    figures: dict[str, Summary]


@dataclass(frozen=True, slots=True)
class Unit:
    """What one of something costs: commands of the server, those of scripts included; its CPU seconds; bytes that it
    receives and sends; and CPU seconds of who is `asking`."""

    operations: float
    cpu: float
    received: float
    sent: float
    asking: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Unit costs, by the names in `bench.scale.store_units`; bytes that records take of a server's memory; and the
    daemon's own: CPU seconds of an event, of a cycle after 1,000 changes, and in a second of an engine that is watched;
    and bytes per agent."""

    units: Mapping[str, Unit]
    memory: Mapping[str, float]
    event: float
    cycle: float
    watch: float
    agent_bytes: float


def read(path: Path) -> Figures:
    """Read such a file. Raises `OSError`, and `msgspec.ValidationError` where it is none."""
    return msgspec.json.decode(path.read_bytes(), type=Figures)


def write(figures: Figures, path: Path) -> None:
    """Write the figures to a file, whose folder is made where it isn't there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")


def medians(figures: Figures) -> dict[str, float]:
    """Return each figure's median."""
    return {name: summary.median for name, summary in figures.figures.items()}


def costs_of(figures: Mapping[str, float]) -> Costs:
    """Return the unit costs that figures tell. Raises `KeyError` where one is missing."""
    names = [name.removesuffix(".operations") for name in figures if name.endswith(".operations")]
    prefix = "memory."
    return Costs(
        units={
            name: Unit(
                operations=figures[f"{name}.operations"],
                cpu=figures[f"{name}.server_us"] / 1e6,
                received=figures[f"{name}.received"],
                sent=figures[f"{name}.sent"],
                asking=figures[f"{name}.client_us"] / 1e6,
            )
            for name in names
        },
        memory={
            name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)
        },
        event=figures["daemon.event_us"] / 1e6,
        cycle=figures["daemon.cycle_ms"] / 1e3,
        watch=figures["daemon.watch_ms"] / 1e3,
        agent_bytes=figures["daemon.bytes_per_agent"],
    )


def short(number: float) -> str:
    """Return a number with three digits that count, and no exponent where it is large."""
    return f"{number:.3g}" if abs(number) < 1000 else f"{float(f'{number:.3g}'):,.0f}"
