"""What many engines ask of Redis, of the network and of their daemons, by unit costs. Pure.

What is assumed: load is even over agents, simulations, daemons, cells and shards, but for what can't be divided: a slot
lies on one shard, and what all daemons tell of themselves is in one. Each event of an agent changes its due, and each
such change is written and told. A daemon reads twice in a round trip of a millisecond at most. A CPU is busy when its
one thread is. Replicas, failovers, whole reads after an outage, KV events of engines and what people ask come on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from bench.scale.costs import Costs, Unit
from scalesim_daemon.fleet.hearing import READ_SECONDS
from scalesim_daemon.fleet.shelf import CONTENT_SECONDS, KEPT_CHANGES
from scalesim_daemon.fleet.telling import GATHER_SECONDS, WORD_AGENTS
from scalesim_daemon.loop import TICK_SECONDS
from scalesim_daemon.store import CHUNK, FLUSH_SECONDS

# Five signs of life, as in scalesim_daemon/fleet/shared.py.
LOOK_SECONDS = 5.0

CYCLE_CHANGES = 1_000
GIB, GBIT = 2.0**30, 1e9 / 8


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs, and how much is said of it.

    Engines are in `cells`: the daemons of one share a Redis of `shards`, and know nothing of other cells. A simulation
    in several cells counts once in each. `active` is the share of all agents of which anything is said within a second,
    and `events` how much of each of those. `ticks` of each simulation's clock, `decisions` on each engine, `moves` of
    agents with `prefix_bytes` to each engine, and `renewals` of each lease are per second. A daemon drives `driven`
    engines and watches `watched`, those among them: the others it may take over. `doors` of a simulation are the
    daemons that hear its events, and its keys lie in `buckets`, a slot each, of which a daemon reads those of its
    engines, at least `pause` seconds apart.
    """

    engines: int = 1
    agents: int = 10_000
    simulations: int = 1
    cells: int = 1
    active: float = 0.02
    events: float = 1.0
    ticks: float = 1.0
    decisions: float = 5.0
    moves: float = 0.1
    renewals: float = 1.0
    prefix_bytes: float = 2_400.0
    driven: int = 1
    watched: int = 1
    doors: int = 1
    buckets: int = 1
    shards: int = 1
    pause: float = READ_SECONDS

    # One cell

    @property
    def near(self) -> int:
        """How many engines are in a cell."""
        return math.ceil(self.engines / self.cells)

    @property
    def daemons(self) -> int:
        """How many daemons a cell has."""
        return math.ceil(self.near / self.driven)

    @property
    def shared(self) -> bool:
        """Whether there is anybody to share with."""
        return self.daemons > 1

    @property
    def parts(self) -> float:
        """How many simulations a cell has, or parts of one."""
        return max(1.0, self.simulations / self.cells)

    @property
    def changes(self) -> float:
        """Dues that change in a cell, per second."""
        return self.agents / self.cells * self.active * self.events

    @property
    def open_doors(self) -> int:
        """How many daemons of a cell hear a simulation."""
        return min(self.doors, self.daemons)

    @property
    def slot_doors(self) -> float:
        """How many daemons tell of one slot."""
        return max(1.0, self.open_doors / self.buckets)

    @property
    def divided(self) -> float:
        """Into how many buckets readers divide a simulation."""
        return min(self.buckets, self.daemons)

    @property
    def slots(self) -> float:
        """How many slots the simulations of a cell lie in."""
        return self.parts * self.buckets

    @property
    def seen(self) -> int:
        """How many engines one daemon has to do with."""
        return min(self.near, max(self.driven, self.watched))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one shard and one daemon have: each a core, and GiB of memory and Gbit/s each way. `core` tells how many
    times as fast as the measured one a core is."""

    core: float = 1.0
    shard_gib: float = 32.0
    daemon_gib: float = 16.0
    gbit: float = 10.0


@dataclass(frozen=True, slots=True)
class Use:
    """How much of one resource is used, and how much there is, in its unit."""

    name: str
    used: float
    limit: float
    unit: str

    @property
    def share(self) -> float:
        """The utilisation; above 1 it can't be."""
        return self.used / self.limit


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of a server in a second; `asking` is the CPU time of who asks."""

    operations: float = 0.0
    cpu: float = 0.0
    received: float = 0.0
    sent: float = 0.0
    asking: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Work)))


def uses(fleet: Fleet, costs: Costs, limits: Limits = Limits()) -> tuple[Use, ...]:
    """Return how the busiest shard and the busiest daemon are used."""
    shard, asked = total(shard_work(fleet, costs)), total(daemon_work(fleet, costs))
    cpu = sum(daemon_cpu(fleet, costs).values())
    return (
        Use("Redis, CPU", shard.cpu / limits.core, 1.0, "cores"),
        Use("Redis, memory", sum(shard_bytes(fleet, costs).values()) / GIB, limits.shard_gib, "GiB"),
        Use("Redis, network", max(shard.received, shard.sent) / GBIT, limits.gbit, "Gbit/s"),
        Use("daemon, CPU", cpu / limits.core, 1.0, "cores"),
        Use("daemon, memory", known_agents(fleet) * costs.agent_bytes / GIB, limits.daemon_gib, "GiB"),
        Use("daemon, network", max(asked.received, asked.sent) / GBIT, limits.gbit, "Gbit/s"),
    )


def first_limit(found: tuple[Use, ...]) -> Use:
    """Return what is used most."""
    return max(found, key=lambda use: use.share)


def largest(fleet: Fleet, costs: Costs, limits: Limits = Limits()) -> int:
    """Return the greatest number of agents that nothing is too small for, all else being as it is; 0 where that is
    none."""
    return last(
        lambda agents: first_limit(uses(replace(fleet, agents=agents), costs, limits)).share <= 1, 10**12
    )


def last(fits: Callable[[int], bool], end: int) -> int:
    """Return the last number up to `end` that fits, 0 where none does; those before it fit, those behind don't."""
    least, most = 0, end
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def total(works: dict[str, Work]) -> Work:
    """Return all of it together."""
    return sum(works.values(), Work())


# Redis


def shard_work(fleet: Fleet, costs: Costs) -> dict[str, Work]:
    """Return what is asked of the busiest shard, by what for: the slots that it can't have fewer of, and its part of
    what is asked for engines and of daemons."""
    slots, units = math.ceil(fleet.slots / fleet.shards), costs.units
    changes = fleet.changes / fleet.slots
    engines = fleet.near / fleet.shards
    messages = fleet.slot_doors * batches(changes / fleet.slot_doors, CHUNK, FLUSH_SECONDS)
    found = {
        "dues written": _work(units["due"], slots * changes) + _own(costs, "due", slots * messages),
        "clocks": _work(units["tick"], slots * fleet.ticks),
        "decisions": _work(units["decision"], engines * fleet.decisions),
    }
    if not fleet.shared:
        return found
    words = words_of_a_slot(fleet)
    readers = max(1.0, fleet.daemons / fleet.buckets)
    # Each daemon listens at one shard, and a shard passes on what it is told to all the others.
    rings = fleet.slots * words * (readers / fleet.shards + (fleet.shards > 1))
    looks = slots * readers / LOOK_SECONDS
    return found | {
        "changes told": _work(units["told"], slots * changes) + _own(costs, "told", slots * words),
        "the bell": _work(units["ring"], rings),
        "changes read": _work(units["read"], slots * readers * changes)
        + _own(costs, "read", slots * readers * min(words, 1 / fleet.pause)),
        "signs of life": _work(units["beat"], fleet.daemons)
        + _work(units["beat_other"], fleet.daemons**2)
        + _work(units["read_alone"], looks),
        "homes": _work(units["placed"], engines * fleet.moves)
        + _work(units["content"], engines * fleet.moves),
        "leases": _work(units["lease"], fleet.daemons * fleet.seen * fleet.renewals / fleet.shards),
    }


def batches(changes: float, most: int, seconds: float) -> float:
    """Return in how many messages so many changes a second are written, `most` in one, and one in `seconds` at most as
    long as they fit."""
    return max(changes / most, min(changes, 1 / seconds))


def words_of_a_slot(fleet: Fleet) -> float:
    """Return how many words a second daemons tell in one slot; each tick of the clock is one, too."""
    said = fleet.changes / fleet.slots / fleet.slot_doors + fleet.ticks
    return fleet.slot_doors * batches(said, WORD_AGENTS, GATHER_SECONDS)


def shard_bytes(fleet: Fleet, costs: Costs) -> dict[str, float]:
    """Return the memory that the busiest shard needs, by what for."""
    slots, held = math.ceil(fleet.slots / fleet.shards), costs.memory
    agents = slots * fleet.agents / fleet.cells / fleet.slots
    found = {"simulations": slots * held["simulation"], "agents": agents * held["agent"]}
    if not fleet.shared:
        return found
    filled = (
        min(WORD_AGENTS, max(1.0, fleet.changes / fleet.slots / words_of_a_slot(fleet)))
        if fleet.ticks
        else 1.0
    )
    moving = fleet.near * fleet.moves * CONTENT_SECONDS / fleet.shards
    return found | {
        "what is told of them": agents * held["told"],
        "their homes": agents * held["placed"],
        "words": slots * KEPT_CHANGES * filled * held["word"],
        "content": moving * fleet.prefix_bytes,
        "leases": fleet.near * held["lease"] / fleet.shards,
    }


# A daemon


def heard_changes(fleet: Fleet) -> float:
    """Return the changes per second that the busiest daemon hears of from simulations."""
    return max(fleet.changes / fleet.daemons, fleet.changes / fleet.parts / fleet.open_doors)


def read_changes(fleet: Fleet) -> float:
    """Return the changes per second that a daemon reads of Redis, those that it wrote itself among them."""
    return fleet.changes / fleet.divided if fleet.shared else 0.0


def daemon_work(fleet: Fleet, costs: Costs) -> dict[str, Work]:
    """Return what the busiest daemon asks of Redis, by what for."""
    heard, units = heard_changes(fleet), costs.units
    doors = max(1.0, fleet.parts * fleet.open_doors / fleet.daemons) * max(
        1.0, fleet.buckets / fleet.open_doors
    )
    messages = doors * batches(heard / doors, CHUNK, FLUSH_SECONDS)
    found = {
        "dues written": _work(units["due"], heard) + _own(costs, "due", messages),
        "clocks": _work(units["tick"], doors * fleet.ticks),
        "decisions": _work(units["decision"], fleet.driven * fleet.decisions),
    }
    if not fleet.shared:
        return found
    words = doors * batches(heard / doors + fleet.ticks, WORD_AGENTS, GATHER_SECONDS)
    rung = fleet.slots * words_of_a_slot(fleet) / fleet.divided
    reads = fleet.slots / fleet.divided * min(words_of_a_slot(fleet), 1 / fleet.pause)
    return found | {
        "changes told": _work(units["told"], heard) + _own(costs, "told", words),
        "the bell": _work(units["ring"], rung),
        "changes read": _work(units["read"], read_changes(fleet)) + _own(costs, "read", reads),
        "signs of life": _work(units["beat"], 1)
        + _work(units["beat_other"], fleet.daemons)
        + _work(units["read_alone"], fleet.slots / fleet.divided / LOOK_SECONDS),
        "homes": _work(units["placed"], fleet.driven * fleet.moves)
        + _work(units["content"], fleet.driven * fleet.moves),
        "leases": _work(units["lease"], fleet.seen * fleet.renewals),
    }


def daemon_cpu(fleet: Fleet, costs: Costs) -> dict[str, float]:
    """Return the cores that the busiest daemon's loop needs on the measured machine, by what for."""
    home = fleet.changes / fleet.daemons
    return {
        "events": costs.event * heard_changes(fleet),
        "cycles": max(1 / TICK_SECONDS, home / CYCLE_CHANGES) * costs.cycle * fleet.driven,
        "engines watched": costs.watch * fleet.seen,
        **{what: one.asking for what, one in daemon_work(fleet, costs).items()},
    }


def known_agents(fleet: Fleet) -> float:
    """Return how many agents a daemon knows: those that it hears of, and those that it reads of."""
    unheard = 1 - heard_changes(fleet) / fleet.changes if fleet.changes else 1 - 1 / fleet.open_doors
    unread = 1 - 1 / fleet.divided if fleet.shared else 1.0
    return fleet.agents / fleet.cells * (1 - max(0.0, unheard) * unread)


def _work(unit: Unit, times: float) -> Work:
    return Work(*(times * getattr(unit, part.name) for part in fields(Unit)))


def _own(costs: Costs, name: str, messages: float) -> Work:
    """Return what so many messages cost beside what is in them: one that has one thing in it, less that."""
    alone, one = costs.units[f"{name}_alone"], costs.units[name]
    return Work(
        *(messages * max(0.0, getattr(alone, part.name) - getattr(one, part.name)) for part in fields(Unit))
    )
