"""`python -m bench.scale.page`: writes the figures of docs/scale.md, and its plot, from docs/results/scale.json.

What people have written around them stays: figures stand between a mark that names them and one that ends them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.daemon.figures import Summary
from bench.results.tables import commands, table
from bench.scale.costs import FILE, Costs, Figures, costs_of, medians, read, short
from bench.scale.model import (
    Fleet,
    Use,
    daemon_cpu,
    daemon_work,
    first_limit,
    heard_changes,
    known_agents,
    largest,
    read_changes,
    shard_work,
    total,
    uses,
)
from bench.scale.plot import draw
from bench.scale.said import BARE_BYTES
from bench.scale.steps import PER_ENGINE, STEPS, largest_fleet

PAGE = Path("docs/scale.md")
PLOT = Path("docs/results/scale.svg")
COMMAND = "make bench-scale"
MARKED = re.compile(r"<!-- figures: (\w+) -->\n.*?<!-- end of figures -->", re.DOTALL)

UNITS = {
    "bare": f"a bare `SET` of {BARE_BYTES} bytes, of 500 in a pipeline",
    "due": "a due, of 500 in a message",
    "due_alone": "a due in a message of its own",
    "told": "a change that is told, of 200 in a word",
    "told_alone": "a word of one change",
    "ring": "a word's ring of the bell, heard by one daemon",
    "read": "a change read and taken in by one daemon, of 200 in a word",
    "read_alone": "a word of one change, read by one daemon",
    "placed": "an agent's home, of 200 in a message",
    "content": "a prefix, brought and fetched",
    "tick": "a tick of a clock",
    "decision": "a decision, of up to 500 in a pipeline",
    "beat": "a daemon's sign of life, and a look at its fleet",
    "beat_other": "and for each daemon of the fleet",
    "lease": "a renewal of a lease",
}
MEMORY = {
    "agent": "an agent: its due, and its record",
    "told": "what is told of it to other daemons",
    "placed": "its home",
    "word": "a change in a word that is kept",
    "simulation": "a simulation with one agent, and its clock",
    "lease": "a lease, with its token",
}
DAEMON = {
    "daemon.event_us": ("an event, of 100 in a message", "µs"),
    "daemon.lone_event_us": ("an event in a message of its own", "µs"),
    "daemon.cycle_ms": ("a cycle after 1,000 changes among 100,000 agents", "ms"),
    "daemon.watch_ms": ("an idle engine that is watched, in a second", "ms"),
    "daemon.bytes_per_agent": ("memory of an agent that it knows", "bytes"),
}


def main() -> None:
    """Render and write."""
    argparse.ArgumentParser(prog="python -m bench.scale.page", description=__doc__).parse_args()
    figures = read(FILE)
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")
    draw(costs_of(medians(figures)), PLOT)
    print(f"{PAGE}, {PLOT}")


def renewed(page: str, figures: Figures) -> str:
    """Return the page with the figures that its marks name. Raises `KeyError` where a mark names none."""
    costs = costs_of(medians(figures))
    sections: Mapping[str, Callable[[], str]] = {
        "conditions": lambda: _conditions(figures),
        "units": lambda: _units(figures.figures),
        "memory": lambda: _memory(figures.figures),
        "daemon": lambda: _daemon(figures.figures),
        "steps": lambda: _steps(costs),
        "fleets": lambda: _fleets(costs),
        "loads": lambda: _loads(costs),
        "daemons": lambda: _daemons(costs),
        "reasons": lambda: _reasons(costs),
    }

    def section(mark: re.Match[str]) -> str:
        name = mark[1]
        return f"<!-- figures: {name} -->\n\n{sections[name]()}\n\n<!-- end of figures -->"

    return MARKED.sub(section, page)


def _conditions(figures: Figures) -> str:
    held = figures.conditions
    rounds = ", ".join(f"{count} of the {part}'s part" for part, count in held.rounds.items())
    return (
        f"Measured on {held.played} by `{COMMAND}`: rounds: {rounds}; seed {held.seed}, {held.cores} cores with a "
        f"load of {held.load:g}, Python {held.python}, Valkey {held.valkey}. Medians, in brackets the least and the "
        "greatest."
    )


def _units(found: Mapping[str, Summary]) -> str:
    head = ("what", "commands", "server, µs", "of a bare `SET`", "bytes in", "bytes out", "client, µs")
    rows = [
        (
            said,
            short(found[f"{name}.operations"].median),
            _spread(found[f"{name}.server_us"]),
            f"{found[f'{name}.over_bare'].median:.1f}",
            short(found[f"{name}.received"].median),
            short(found[f"{name}.sent"].median),
            _spread(found[f"{name}.client_us"]),
        )
        for name, said in UNITS.items()
    ]
    return f"{table(head, rows)}\n\n{commands([COMMAND])}"


def _memory(found: Mapping[str, Summary]) -> str:
    rows = [(said, _spread(found[f"memory.{name}"])) for name, said in MEMORY.items()]
    return f"{table(('what', 'bytes'), rows)}\n\n{commands([COMMAND])}"


def _daemon(found: Mapping[str, Summary]) -> str:
    rows = [(said, f"{_spread(found[name])} {unit}") for name, (said, unit) in DAEMON.items()]
    return f"{table(('what', 'takes'), rows)}\n\n{commands([COMMAND])}"


def _spread(one: Summary) -> str:
    return f"{short(one.median)} ({short(one.least)} to {short(one.greatest)})"


def _share(use: Use) -> str:
    shown = f"{use.share:.1%}" if use.share < 2 else f"{short(use.share)} times"
    return shown if use.share <= 1 else f"**{shown}**"


def _steps(costs: Costs) -> str:
    head = ("step", "what is new", "built", "engines", "agents", "first limit", "full at, agents")
    rows = []
    for step in STEPS:
        first = first_limit(uses(step.fleet, costs))
        most = largest(step.fleet, costs)
        rows.append(
            (
                step.name,
                step.new,
                "yes" if step.built else "no",
                f"{step.fleet.engines:,}",
                f"{step.fleet.agents:,}",
                f"{first.name}: {_share(first)}",
                short(most),
            )
        )
    return f"{table(head, rows)}\n\n{commands([COMMAND])}"


def _fleets(costs: Costs) -> str:
    return (
        f"With {PER_ENGINE:,} agents on each engine, of which {Fleet().active:.0%} say something within a second, "
        f"a fleet with one Redis is full at {largest_fleet(costs):,} engines."
    )


def _loads(costs: Costs) -> str:
    found = [uses(step.fleet, costs) for step in STEPS]
    head = ("step", *(use.name for use in found[0]), "commands/s", "in, MB/s", "out, MB/s")
    rows = []
    for step, one in zip(STEPS, found, strict=True):
        shard = total(shard_work(step.fleet, costs))
        rows.append(
            (
                step.name,
                *map(_share, one),
                f"{shard.operations:,.0f}",
                short(shard.received / 1e6),
                short(shard.sent / 1e6),
            )
        )
    return f"{table(head, rows)}\n\n{commands([COMMAND])}"


def _daemons(costs: Costs) -> str:
    head = ("step", "daemons of a cell", "heard/s", "read/s", "agents known", "sent, MB/s", "received, MB/s")
    rows = []
    for step in STEPS:
        fleet, asked = step.fleet, total(daemon_work(step.fleet, costs))
        rows.append(
            (
                step.name,
                f"{fleet.daemons:,}",
                short(heard_changes(fleet)),
                short(read_changes(fleet)),
                short(known_agents(fleet)),
                short(asked.received / 1e6),
                short(asked.sent / 1e6),
            )
        )
    return f"{table(head, rows)}\n\n{commands([COMMAND])}"


def _reasons(costs: Costs) -> str:
    shards = [{what: one.cpu for what, one in shard_work(step.fleet, costs).items()} for step in STEPS]
    daemons = [daemon_cpu(step.fleet, costs) for step in STEPS]
    return "\n\n".join((_parts("shard", shards), _parts("daemon", daemons), commands([COMMAND])))


def _parts(who: str, found: list[dict[str, float]]) -> str:
    names = dict.fromkeys(name for one in found for name in one)
    rows = [
        (step.name, *(f"{one[name]:.3f}" if name in one else "" for name in names))
        for step, one in zip(STEPS, found, strict=True)
    ]
    return table((f"cores of a {who}", *names), rows)


if __name__ == "__main__":
    main()
