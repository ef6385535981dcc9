"""What happens to whom and when, drawn from a seed. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from random import Random

EXTERNAL, EMBEDDED = "external", "embedded"
DIRECT, GATEWAY = "engine", "gateway"
GATEWAY_SHARE = 0.25
WINDOW_SECONDS = 7.0
FAULTS = (2, 4)
# Of a real engine's schedules each has fewer: its start takes half a minute.
REAL_FAULTS = (2, 3)


class Kind(StrEnum):
    """One sort of fault. The word before the hyphen says whom it befalls."""

    DAEMON_KILLED = "daemon-killed"
    DAEMON_FROZEN = "daemon-frozen"
    REDIS_KILLED = "redis-killed"
    REDIS_FROZEN = "redis-frozen"
    REDIS_FLUSHED = "redis-flushed"
    REDIS_FULL = "redis-full"
    REDIS_FAILED_OVER = "redis-failed-over"
    REDIS_DEMOTED = "redis-demoted"
    REDIS_SET_BACK = "redis-set-back"
    REDIS_SILENT = "redis-silent"
    ENGINE_KILLED = "engine-killed"
    ENGINE_RESTARTED = "engine-restarted"
    ENGINE_FROZEN = "engine-frozen"
    ENGINE_HUNG = "engine-hung"
    ANSWERS_SILENT = "answers-silent"
    ANSWERS_RESET = "answers-reset"
    ANSWERS_FAILING = "answers-failing"
    ANSWERS_GARBAGE = "answers-garbage"
    ANSWERS_CUT = "answers-cut"
    ANSWERS_LYING = "answers-lying"
    KV_SILENT = "kv-silent"
    KV_CUT = "kv-cut"
    KV_LOST = "kv-lost"
    FEED_SILENT = "feed-silent"
    FEED_CUT = "feed-cut"
    FEED_LOST = "feed-lost"
    FEED_DOUBLED = "feed-doubled"
    FEED_FLOODED = "feed-flooded"
    DISK_SLOW = "disk-slow"
    DISK_FULL = "disk-full"
    SHM_FULL = "shm-full"
    CLOCK_FORWARD = "clock-forward"
    CLOCK_BACK = "clock-back"

    @property
    def target(self) -> str:
        """Whom it befalls: two faults of one target never overlap."""
        return self.partition("-")[0]


# The embedded Valkey has no replica, and nothing lies between it and the daemon.
NEEDS_EXTERNAL = frozenset(
    {Kind.REDIS_FAILED_OVER, Kind.REDIS_DEMOTED, Kind.REDIS_SET_BACK, Kind.REDIS_SILENT}
)
NEEDS_MOUNT = frozenset({Kind.DISK_FULL, Kind.SHM_FULL})
# A disk may be full without it, but nobody could tell whether the daemon met that.
NEEDS_SHIM = NEEDS_MOUNT | {Kind.DISK_SLOW, Kind.CLOCK_FORWARD, Kind.CLOCK_BACK}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `at` seconds after the first could happen, for `seconds`. `seed` is for what it draws itself."""

    kind: Kind
    at: float
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run. Calls go `through` the engine itself or the gateway; `store` says whose Valkey it is."""

    seed: int
    engine: str
    store: str
    through: str
    faults: tuple[Fault, ...]


def draw(seed: int, engine: str, kinds: Collection[Kind]) -> Schedule:
    """Return the schedule of a seed, of these kinds of faults."""
    random = Random(f"{engine} {seed}")
    real = engine != "emulator"
    store = random.choice((EXTERNAL, EXTERNAL, EMBEDDED))
    through = GATEWAY if random.random() < GATEWAY_SHARE else DIRECT
    able = sorted(kind for kind in kinds if store == EXTERNAL or kind not in NEEDS_EXTERNAL)
    faults: list[Fault] = []
    for _ in range(random.randint(*(REAL_FAULTS if real else FAULTS))):
        at, seconds = random.uniform(0.0, WINDOW_SECONDS), random.uniform(0.3, 4.0)
        fault = Fault(random.choice(able), at, seconds, random.getrandbits(32))
        if not any(_meet(fault, other) for other in faults):
            faults.append(fault)
    return Schedule(seed, engine, store, through, tuple(sorted(faults, key=lambda fault: fault.at)))


def _meet(one: Fault, other: Fault) -> bool:
    """Whether both befall the same target at one time, or within a second."""
    near = one.at < other.at + other.seconds + 1.0 and other.at < one.at + one.seconds + 1.0
    return one.kind.target == other.kind.target and near
