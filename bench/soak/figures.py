"""What a soak came to, held against bounds that follow from what was played. Pure.

**Resident memory.** A name that went may leave nothing. The least that could be kept of one is its string (49 bytes of
object, and its characters) and its place in a dictionary (a hash, two references and an index: 25 to 50 bytes, as full
as dictionaries are): some 100 bytes. So memory is flat where the upper end of its slope's interval is below 100 bytes a
name. A slope is that of least squares through the medians of half minutes, over the last two thirds; its 90 % interval
counts neighbouring medians that go together as fewer. What one event leaves would show a hundred times as much.

**Objects** are counted by Python's allocator, without the noise of pages: less than half a block a name.

**Redis** holds of each living agent with a due a hash and a place in a sorted set; of each agent whose stream was
closed the same for a day; of each stream a clock; and a stream of decisions with a cap. Valkey 9.1's `used_memory`
grows by 300 bytes for such an agent and by 270 for a decision; the costs below allow for tables that have just been
doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import sqrt
from operator import attrgetter
from statistics import median

import msgspec
import numpy as np
from scipy import stats

from bench.soak.samples import Sample
from bench.soak.speak import Said

MIB = 1 << 20
HOUR = 3600.0
GROUP_SECONDS = 30.0
FEWEST_GROUPS = 12
"""Of fewer medians no slope is judged: that is a run of less than nine minutes."""

BYTES_PER_NAME = 100.0
BLOCKS_PER_NAME = 0.5

REDIS_AGENT = 400
REDIS_STREAM = 600
REDIS_DECISION = 350
REDIS_DECISIONS = 10_000 * 1.02
REDIS_CLIENTS = 2 * MIB
KEYS_PER_STREAM = 3
KEYS_BESIDE = 10
LATE = 1.02
"""For agents that have gone and whose keys are about to."""

RATE_SHARE = 0.98
LAG_SECONDS = 0.1
CYCLE_SECONDS = 1.0
PUBLISH_SECONDS = 0.25
FILES, TASKS = 5, 5


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth per hour, and the ends of its 90 % interval."""

    per_hour: float
    low: float
    high: float


class Figures(msgspec.Struct, frozen=True):
    """The last line, in this order."""

    minutes: float
    events_per_second: float
    rss_slope_mib_per_hour: float
    redis_bytes_bound_share: float
    fds_growth: int
    tasks_growth: int
    divergences: int
    lost_events: int


def slope(samples: Sequence[Sample], of: Callable[[Sample], float]) -> Slope | None:
    """Return the growth over the last two thirds; None where there are too few medians to tell."""
    points = list(_medians(settled(samples), of))
    if len(points) < FEWEST_GROUPS:
        return None
    times, values = np.array(points).T
    if np.ptp(values) == 0:
        return Slope(0.0, 0.0, 0.0)
    line = stats.linregress(times, values)
    together = _correlation(values - (line.intercept + line.slope * times))
    count = max(3.0, len(points) * (1 - together) / (1 + together))
    error = float(line.stderr) * sqrt((len(points) - 2) / (count - 2)) * float(stats.t.ppf(0.95, count - 2))
    growth = float(line.slope)
    return Slope(growth * HOUR, (growth - error) * HOUR, (growth + error) * HOUR)


def _correlation(residuals: np.ndarray) -> float:
    """Return how much neighbours go together, 0 where they don't: as many of them are independent as of an AR(1)
    process with this correlation."""
    both = float(residuals[:-1] @ residuals[1:]) / max(float(residuals @ residuals), 1e-9)
    return min(max(0.0, both), 0.99)


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """Return those of the last two thirds of the time."""
    return [sample for sample in samples if sample.seconds >= samples[-1].seconds / 3]


def course(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Return the medians of each half minute, by their names."""
    names = [name for name in Sample.__struct_fields__ if name != "seconds"]
    medians = [list(_medians(samples, attrgetter(name))) for name in names]
    rows = zip(*medians, strict=True)
    return [
        {"minutes": round(row[0][0] / 60, 2)}
        | {name: round(value, 3) for name, (_, value) in zip(names, row, strict=True)}
        for row in rows
    ]


def growth(samples: Sequence[Sample], of: Callable[[Sample], int]) -> int:
    """Return by how much the last quarter of the settled time is above the first, by their medians."""
    values = [of(sample) for sample in settled(samples)]
    quarter = max(1, len(values) // 4)
    return round(median(values[-quarter:]) - median(values[:quarter]))


def per_hour(samples: Sequence[Sample], of: Callable[[Sample], int]) -> float:
    """Return how fast a count grew over the settled time."""
    first, last = settled(samples)[0], samples[-1]
    return (of(last) - of(first)) / (last.seconds - first.seconds) * HOUR


def redis_bounds(samples: Sequence[Sample], empty: int) -> Iterator[tuple[int, int]]:
    """Yield the most bytes and keys that Redis may have at each look, where it had `empty` bytes before all."""
    for at, sample in enumerate(samples):
        # The speaker's counts are up to a second old, and streams may have been closed meanwhile.
        after = samples[min(at + 1, len(samples) - 1)]
        agents = max(sample.agents, sample.alive, after.agents) + after.left
        keys = round(LATE * agents) + KEYS_PER_STREAM * after.streams + KEYS_BESIDE
        size = empty + REDIS_AGENT * agents + REDIS_STREAM * after.streams
        yield round(size + REDIS_DECISION * REDIS_DECISIONS + REDIS_CLIENTS), keys


def figures(samples: Sequence[Sample], said: Said, empty: int, drift: Sequence[str], heard: int) -> Figures:
    """Return the figures; `heard` is how many events the daemon took in when all was over."""
    rss = slope(samples, lambda sample: sample.rss)
    grown = per_hour(samples, lambda sample: sample.rss) if rss is None else rss.per_hour
    return Figures(
        minutes=round(said.seconds / 60, 2),
        events_per_second=round(said.sent / said.seconds, 1),
        rss_slope_mib_per_hour=round(grown / MIB, 2),
        redis_bytes_bound_share=round(
            max(
                one.redis_bytes / size
                for one, (size, _) in zip(samples, redis_bounds(samples, empty), strict=True)
            ),
            3,
        ),
        fds_growth=growth(samples, lambda sample: sample.files),
        tasks_growth=growth(samples, lambda sample: sample.tasks),
        divergences=len(drift),
        lost_events=abs(said.sent - heard),
    )


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: what was measured, and what it may be, in words. `held` is None where the run was too
    short to say."""

    name: str
    measured: str
    bound: str
    held: bool | None


def checks(
    samples: Sequence[Sample], said: Said, found: Figures, empty: int, rate: float, compared: int
) -> Iterator[Check]:
    """Yield all that must hold."""
    names = per_hour(samples, lambda sample: sample.gone + sample.left)
    rss, blocks = slope(samples, lambda sample: sample.rss), slope(samples, lambda sample: sample.blocks)
    last = samples[-1]
    yield _at_least("events per second", found.events_per_second, RATE_SHARE * rate)
    yield _flat("resident memory, MiB per hour", rss, BYTES_PER_NAME * names, MIB)
    yield _flat("Python's objects, thousand blocks per hour", blocks, BLOCKS_PER_NAME * names, 1e3)
    yield _at_most("Redis, share of its bound in bytes", found.redis_bytes_bound_share, 1.0)
    bounds = redis_bounds(samples, empty)
    keys = max(one.redis_keys / most for one, (_, most) in zip(samples, bounds, strict=True))
    yield _at_most("Redis, share of its bound in keys", round(keys, 3), 1.0)
    yield _at_most("files, more than at first", found.fds_growth, FILES)
    yield _at_most("tasks, more than at first", found.tasks_growth, TASKS)
    yield _at_most(f"divergences in {compared} comparisons", found.divergences, 0)
    yield _at_least("comparisons with the engines", compared, 1)
    yield _at_most("events sent and not heard", found.lost_events, 0)
    yield _at_most("events refused, gaps, repetitions", last.not_taken, 0)
    yield _at_most("events that publishers dropped", said.dropped, 0)
    yield _at_most("messages that a socket didn't take at once", said.waited, 0)
    yield _at_most("longest publish, ms", round(1e3 * said.longest_publish, 1), 1e3 * PUBLISH_SECONDS)
    lags = sorted(one.mirror_lag for one in settled(samples))
    yield _at_most("lag of the mirror, p99, ms: median", round(1e3 * median(lags), 1), 1e3 * LAG_SECONDS)
    longest = max(one.longest_cycle for one in samples)
    yield _at_most("longest cycle, ms", round(1e3 * longest, 1), 1e3 * CYCLE_SECONDS)
    yield _at_most("failed requests", said.failed, 0)
    yield _at_least("prefetches", last.prefetches, 1)
    yield _at_least("evicted blocks", last.evictions, 1)


def _at_most(name: str, value: float, bound: float) -> Check:
    return Check(name, f"{value:,g}", f"<= {bound:,g}", value <= bound)


def _at_least(name: str, value: float, bound: float) -> Check:
    return Check(name, f"{value:,g}", f">= {bound:,g}", value >= bound)


def _flat(name: str, found: Slope | None, bound: float, unit: float) -> Check:
    if found is None:
        return Check(name, "", f"<= {bound / unit:,.1f}", None)
    measured = f"{found.per_hour / unit:,.1f} ({found.low / unit:,.1f} to {found.high / unit:,.1f})"
    return Check(name, measured, f"<= {bound / unit:,.1f}", found.high <= bound)


def _medians(samples: Sequence[Sample], of: Callable[[Sample], float]) -> Iterator[tuple[float, float]]:
    for _, group in groupby(samples, lambda sample: sample.seconds // GROUP_SECONDS):
        some = list(group)
        yield median(one.seconds for one in some), median(map(of, some))
