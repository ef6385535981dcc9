"""`python -m bench.scale`: what a fleet asks of Redis, of its network and of its daemons, and what is too small first.

Calculated from the unit costs that `make bench-scale` has measured, for a fleet of one's own numbers. What is assumed
stands in `bench/scale/model.py` and in docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.scale.costs import FILE, Costs, costs_of, medians, read
from bench.scale.model import (
    Fleet,
    Limits,
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

MEANINGS: Mapping[str, str] = {
    "engines": "engines in all",
    "agents": "agents in all",
    "simulations": "simulations in all, each with as many agents; one in several cells counts once in each",
    "cells": "groups of engines whose daemons share a Redis, and know nothing of other groups",
    "active": "share of the agents of which anything is said within a second",
    "events": "events a second of each of these, each of which changes a due",
    "ticks": "ticks a second of each simulation's clock",
    "decisions": "decisions a second on each engine",
    "moves": "agents a second that come to an engine from elsewhere, with their prefix",
    "renewals": "how often a second each lease is renewed",
    "prefix_bytes": "bytes of an agent's prefix",
    "driven": "engines that one daemon drives",
    "watched": "engines that one daemon lists: those it drives, and those it may take over",
    "doors": "daemons of a cell that hear the events of one simulation",
    "buckets": "slots that one simulation's keys lie in; more than 1 is not built",
    "shards": "shards of each cell's Redis",
    "pause": "seconds between two reads of what others tell, at least",
    "core": "how many times as fast as the measured one a core is",
    "shard_gib": "memory of a shard, GiB",
    "daemon_gib": "memory for a daemon, GiB",
    "gbit": "network of a shard's and of a daemon's host, Gbit/s each way",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Calculate with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    for kind in (Fleet, Limits):
        for one in fields(kind):
            flag = f"--{one.name.replace('_', '-')}"
            parser.add_argument(
                flag,
                type=type(one.default),
                default=one.default,
                help=f"{MEANINGS[one.name]} ({one.default})",
            )
    parser.add_argument("--costs", type=Path, default=FILE, help="the measured unit costs")
    given = vars(parser.parse_args(arguments))
    fleet = Fleet(**{one.name: given[one.name] for one in fields(Fleet)})
    limits = Limits(**{one.name: given[one.name] for one in fields(Limits)})
    costs = costs_of(medians(read(given["costs"])))
    found = uses(fleet, costs, limits)
    console = Console(stderr=True)
    console.print(_uses(found))
    console.print(_parts(fleet, costs))
    console.print(_sums(fleet, costs))
    first = first_limit(found)
    most = largest(fleet, costs, limits)
    console.print(f"The first limit is {first.name}, at {most:,} agents where all else stays as it is.")
    print(
        json.dumps(
            {
                "fleet": asdict(fleet),
                "first_limit": first.name,
                "agents_at_the_limit": most,
                "used": {one.name: round(one.share, 4) for one in found},
            }
        )
    )


def _uses(found: Sequence[Use]) -> Table:
    table = Table(title="the busiest shard and the busiest daemon", title_justify="left")
    for column in ("", "used", "of", "", "share"):
        table.add_column(column, justify="right" if column else "left")
    for one in found:
        style = "bold red" if one.share > 1 else "bold" if one is first_limit(tuple(found)) else ""
        table.add_row(
            one.name, f"{one.used:,.3f}", f"{one.limit:g}", one.unit, f"{one.share:.1%}", style=style
        )
    return table


def _parts(fleet: Fleet, costs: Costs) -> Table:
    table = Table(title="CPU seconds a second, by what for", title_justify="left")
    for column in ("", "shard", "daemon"):
        table.add_column(column, justify="right" if column else "left")
    shard, daemon = shard_work(fleet, costs), daemon_cpu(fleet, costs)
    for name in dict.fromkeys((*shard, *daemon)):
        table.add_row(
            name,
            f"{shard[name].cpu:.3f}" if name in shard else "",
            f"{daemon[name]:.3f}" if name in daemon else "",
        )
    return table


def _sums(fleet: Fleet, costs: Costs) -> str:
    shard, asked = total(shard_work(fleet, costs)), total(daemon_work(fleet, costs))
    return (
        f"{fleet.changes * fleet.cells:,.0f} dues a second change in all. The busiest shard executes "
        f"{shard.operations:,.0f} commands a second, receives {shard.received / 1e6:,.2f} MB/s and sends "
        f"{shard.sent / 1e6:,.2f}. The busiest of {fleet.daemons:,} daemons of a cell hears "
        f"{heard_changes(fleet):,.0f} changes a second and reads {read_changes(fleet):,.0f}; it knows "
        f"{known_agents(fleet):,.0f} agents, sends {asked.received / 1e6:,.2f} MB/s and receives "
        f"{asked.sent / 1e6:,.2f}."
    )


if __name__ == "__main__":
    main()
