"""What records of acts, leases and blows say: who acted beside whom, and how long it took until another did. Pure.

Times are monotonic seconds of one machine.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.fleet.tap import Act


class Held(NamedTuple):
    """A lease as the store had it: taken by a daemon at `since`."""

    token: int
    daemon: str
    since: float


class Blow(NamedTuple):
    """A daemon could not be expected to act: on one engine, or on all where `engine` is empty. `leaves`: it can't keep
    its leases either."""

    daemon: str
    engine: str
    begin: float
    end: float
    leaves: bool


def overlapping(acts: Sequence[Act], leases: Collection[Held], wait: float) -> list[Act]:
    """Return the acts on one engine by a daemon after another's lease began there: after that one's first act, or after
    it could act, `wait` seconds after it had taken the lease. An act under no token is one, too."""
    found: list[Act] = []
    newest = Act(-math.inf, "", -1)
    for act in sorted(acts):
        if act.token is None:
            found.append(act)
            continue
        later = (one for one in leases if one.token > act.token and one.daemon != act.daemon)
        assert newest.token is not None
        followed = newest.token > act.token and newest.daemon != act.daemon
        if followed or any(one.since + wait <= act.at for one in later):
            found.append(act)
        newest = max(newest, act, key=lambda one: one.token or 0)
    return found


class Takeover(NamedTuple):
    """Who acted again on an engine, and the seconds that took, from when its holder was struck, and somebody could."""

    daemon: str
    seconds: float


def takeovers(
    engine: str,
    acts: Sequence[Act],
    leases: Collection[Held],
    blows: Collection[Blow],
    daemons: Collection[str],
) -> Iterator[Takeover]:
    """Yield each change of the lease by which `acts` were done on the engine, where its holder had been struck."""
    for before, after in pairwise(sorted(acts)):
        if before.token == after.token:
            continue
        between = {
            one.daemon for one in leases if before.at <= one.since <= after.at and one.token != after.token
        }
        struck = [
            blow.begin
            for blow in blows
            if blow.leaves
            and blow.daemon in between | {before.daemon}
            and blow.begin < after.at
            and blow.end > before.at
        ]
        if struck:
            start = max(max(struck), able_since(engine, after.at, blows, daemons))
            yield Takeover(after.daemon, max(0.0, after.at - start))


def able_since(engine: str, at: float, blows: Collection[Blow], daemons: Collection[str]) -> float:
    """Return since when, without a break until `at`, one of the daemons could act on an engine; `at` where none can."""
    return min((_whole_since(daemon, engine, at, blows) for daemon in daemons), default=at)


def _whole_since(daemon: str, engine: str, at: float, blows: Collection[Blow]) -> float:
    mine = [b for b in blows if b.daemon == daemon and b.engine in ("", engine) and b.begin < at]
    return max((min(blow.end, at) for blow in mine), default=-math.inf)
