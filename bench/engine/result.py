"""The result, as it is written to a file and, shortened, to the last line of output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

LINE: Final = (
    "makespan_ratio",
    "makespan_ratio_low",
    "makespan_ratio_high",
    "ttft_mean_ratio",
    "cached_share",
    "recomputed_tokens_ratio",
    "failed_requests",
)


class Conditions(msgspec.Struct, frozen=True):
    """Under what the figures were measured. The pool and the tier are shares of what all agents' prompts take; of
    `steps` the first `warmup` don't count. Repetition n plays the workloads of seed `seed` + n, from 0. `active` is the
    share of the agents that calls in a counted step, of each class, and `flags` says whose flags the engines have.
    `played` is when each class was, and by which commit's code. `traffic` is the file of the requests that nobody
    announced: its name, sha256, and source."""

    engine: str
    model: str
    agents: int
    prompt_tokens: int
    output_tokens: int
    pool_share: float
    pool_tokens: int
    tier_share: float
    steps: int
    warmup: int
    repetitions: int
    seed: int
    cores: int
    played: dict[str, str]
    active: dict[str, float]
    flags: str
    traffic: dict[str, str | None] | None = None


class Numbers(msgspec.Struct, frozen=True):
    """One variant of one class, medians over the repetitions: seconds, tokens, and shares in 0..1.

    `_ratio`s are the engine alone divided by the variant, so that larger is better, but for `recomputed_tokens_ratio`,
    which is the variant over alone. `low` and `high` bound the 90 % interval (`bench.engine.measure`).
    `recomputed_tokens` are what the engine computed of prompts for the counted calls, and meanwhile for prefetches,
    which are `prefetched_tokens`. What else comes from the daemon covers its whole run, the first steps included, and
    is None where there is none, or nothing to go by: `prefetch_precision` is the share of all prefetches that their
    call found resident, `prefetch_waste` that of the prefetched tokens which no call used, `daemon_cpu_seconds` has the
    daemon's start in it. `failed_requests` counts those of all repetitions.

    `unannounced` requests are those beside the class mixed, answered in a whole run; theirs are the other figures of
    that name. Of `both` alone: `over_shuffled` is the makespan with shuffled dues over its own, with its interval, and
    `ttft_over_host_lru` the mean TTFT with the engine's LRU tier over its own.
    """

    calls: int
    makespan: float
    makespan_ratio: float
    makespan_ratio_low: float
    makespan_ratio_high: float
    ttft_mean: float
    ttft_mean_ratio: float
    ttft_p95: float
    ttft_p95_ratio: float
    cached_share: float
    recomputed_tokens: int
    recomputed_tokens_ratio: float
    prefetched_tokens: int
    failed_requests: int
    prefetch_precision: float | None = None
    prefetch_waste: float | None = None
    order_accuracy: float | None = None
    recency_accuracy: float | None = None
    daemon_cpu_seconds: float | None = None
    over_shuffled: float | None = None
    over_shuffled_low: float | None = None
    over_shuffled_high: float | None = None
    ttft_over_host_lru: float | None = None
    unannounced: int | None = None
    unannounced_ttft_mean: float | None = None
    unannounced_ttft_mean_ratio: float | None = None
    unannounced_failed: int | None = None


class Result(msgspec.Struct, frozen=True):
    """Everything: by class and variant."""

    conditions: Conditions
    classes: dict[str, dict[str, Numbers]]


def line(result: Result) -> str:
    """Return the result's one line of JSON."""
    classes = {
        name: {variant: {key: getattr(numbers, key) for key in LINE} for variant, numbers in variants.items()}
        for name, variants in result.classes.items()
    }
    return json.dumps({"engine": result.conditions.engine, "classes": classes})


def write(result: Result, path: Path) -> None:
    """Write the result to a file, whose folder is made where it isn't there. Classes that were played before under the
    same conditions, and not now, stay in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        result = beside(result, read(path))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def beside(result: Result, before: Result) -> Result:
    """Return the result with the classes that it lacks from one before, where the conditions of both are the same."""
    new, old = result.conditions, before.conditions
    both = msgspec.structs.replace(
        new,
        active=old.active | new.active,
        played=old.played | new.played,
        traffic=new.traffic or old.traffic,
    )
    own = {"active": old.active, "played": old.played, "traffic": old.traffic}
    if msgspec.structs.replace(both, **own) != old:
        return result
    return Result(both, before.classes | result.classes)


def read(path: Path) -> Result:
    """Read such a file. Raises `OSError`, and `msgspec.ValidationError` where it is none."""
    return msgspec.json.decode(path.read_bytes(), type=Result)
