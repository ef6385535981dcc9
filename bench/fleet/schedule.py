"""What happens to which daemon and when, drawn from a seed. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from random import Random

DAEMONS = ("a", "b", "c")
ENGINES = ("one", "two")
LEASE_SECONDS = 3.0
WINDOW_SECONDS = 8.0
FAULTS = (2, 4)
# In lease times: shorter than what is noticed, and longer than a takeover.
LENGTHS = (0.2, 2.5)


class Layout(StrEnum):
    """`EQUALS` list the same engines; of `HOSTS` the first two have an engine each, and are another's standby, as the
    third is for both."""

    EQUALS = "equals"
    HOSTS = "hosts"


class Kind(StrEnum):
    """One sort of fault; the word before the hyphen says what of a daemon it befalls, `redis` all of them. `LOST`: both
    ways; `MUTE`: what the daemon sends; `DEAF`: what it is sent."""

    DAEMON_KILLED = "daemon-killed"
    DAEMON_FROZEN = "daemon-frozen"
    STORE_LOST = "store-lost"
    STORE_MUTE = "store-mute"
    STORE_DEAF = "store-deaf"
    ENGINE_LOST = "engine-lost"
    ENGINE_MUTE = "engine-mute"
    ENGINE_DEAF = "engine-deaf"
    HOST_UNPLUGGED = "host-unplugged"
    HOST_SLOW = "host-slow"
    HOST_LATE = "host-late"
    REDIS_KILLED = "redis-killed"
    REDIS_FROZEN = "redis-frozen"

    @property
    def target(self) -> str:
        """What it befalls: two faults of one target and daemon never overlap."""
        return self.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `at` seconds after the first could happen, for `seconds`. `daemon` is empty where it befalls all,
    `engine` where it befalls no way to one."""

    kind: Kind
    daemon: str
    engine: str
    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run."""

    seed: int
    layout: Layout
    faults: tuple[Fault, ...]

    def engines(self, daemon: str) -> dict[str, bool]:
        """Return the engines of a daemon, and whether it is there as standby."""
        own = dict(zip(DAEMONS, ENGINES, strict=False))
        return {name: self.layout is Layout.HOSTS and own.get(daemon) != name for name in ENGINES}


def draw(seed: int, kinds: Collection[Kind]) -> Schedule:
    """Return the schedule of a seed, of these kinds of faults."""
    random = Random(f"fleet {seed}")
    layout = random.choice(list(Layout))
    faults: list[Fault] = []
    for _ in range(random.randint(*FAULTS)):
        kind, at = random.choice(sorted(kinds)), random.uniform(0.0, WINDOW_SECONDS)
        seconds = LEASE_SECONDS * random.uniform(*LENGTHS)
        # Who comes first is likelier to hold something.
        daemon = random.choices(DAEMONS, (3, 2, 1))[0] if kind.target != "redis" else ""
        engine = random.choice(ENGINES) if kind.target == "engine" else ""
        fault = Fault(kind, daemon, engine, at, seconds)
        if not any(_meet(fault, other) for other in faults):
            faults.append(fault)
    return Schedule(seed, layout, tuple(sorted(faults, key=lambda fault: fault.at)))


def _meet(one: Fault, other: Fault) -> bool:
    """Whether both befall the same at one time, or within a second."""
    near = one.at < other.at + other.seconds + 1.0 and other.at < one.at + one.seconds + 1.0
    return (one.kind.target, one.daemon) == (other.kind.target, other.daemon) and near
