"""Where we are worse: found by rule, so that nothing is left out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.engine.variants import ALONE, BOTH, HOST_LRU, SHUFFLED
from bench.policy.variants import BOTH_NO_TIER
from bench.results.files import Classes, Files, Row
from bench.results.paper import PER_CLASS
from bench.results.targets import (
    ADVERSARIAL,
    CLOSE,
    TARGETS,
    Variants,
    counted,
    pairs,
    saving_share,
    value,
)

# A gain of less is small, and two shares of savings this close are the same.
SMALL = 1.1
SAME_SHARE = 0.02


def worse_anywhere(files: Files) -> Iterator[str]:
    """Yield a line for everything that is worse by one of the rules below."""
    for source, classes in files.sources.items():
        yield from worse(source, classes)
    for what, target, verdict in counted(files):
        if verdict.met is False:
            yield f"{what}: {verdict.shown}; the target is {target}."
    for pair in pairs(files):
        if not pair.close:
            yield (
                f"simulator, {pair.name}, {pair.variant}: foretells {pair.foretold:.2f} where {pair.measured:.2f} was "
                f"measured ({pair.off:+.0%}, more than {CLOSE:.0%} off)."
            )
    if files.policy is not None:
        yield from _swept(files.policy["sweeps"])
        yield from _mixed(files.policy["mixed"])
    if files.scale is not None:
        yield from _swept(files.scale)


def worse(source: str, classes: Classes) -> Iterator[str]:
    """Yield a line for each missed target of one source of figures, for each variant that is worse than the engine
    alone, and for each class in which `both` or `history` doesn't gain what it should."""
    for target in TARGETS:
        verdict = target.read(classes)
        if verdict.met is False:
            yield f"{source}: {target.what} is {verdict.shown}; the target is {target.target}."
    for name, variants in classes.items():
        for variant, row in variants.items():
            if variant != ALONE:
                yield from (f"{source}, {name}, {variant}: {what}." for what in _harms(row))
        yield from (f"{source}, {name}: {what}." for what in _lacks(name, variants))


def _harms(row: Row) -> Iterator[str]:
    """Slower beyond the interval, later to the first token, more computed again, or failed."""
    high, tokens, failed = (
        row.get(key) for key in ("makespan_ratio_high", "recomputed_tokens_ratio", "failed_requests")
    )
    if high is not None and high < 1:
        yield f"slower than the engine alone ({row['makespan_ratio']:.2f}, interval wholly below 1.0)"
    for key, what in (("ttft_mean_ratio", "mean"), ("ttft_p95_ratio", "95th percentile of")):
        if row.get(key) is not None and row[key] < 1:
            yield f"the {what} TTFT is above the engine alone's (ratio {row[key]:.2f})"
    if tokens is not None and tokens > 1:
        yield f"more is computed again ({tokens:.3f} of the engine alone's)"
    if failed:
        yield f"{failed} requests failed"


def _lacks(name: str, variants: Variants) -> Iterator[str]:
    """What `both` and `history` don't gain over what they should be better than."""
    both = value(variants, BOTH, "makespan_ratio")
    evicting = value(variants, "evict_only", "makespan_ratio")
    bare = value(variants, BOTH_NO_TIER, "makespan_ratio")
    if both is not None and both < PER_CLASS.get(name, 0.0):
        yield f"both's {both:.2f} is below the {PER_CLASS[name]:.2f} that the paper reported of its class"
    if both is not None and evicting is not None and both <= evicting:
        yield f"both's {both:.2f} is not above evict_only's {evicting:.2f}: without pause, prefetching adds nothing"
    if bare is not None and bare < SMALL:
        yield f"without a host tier both gains little ({bare:.2f})"
    for key, what in (("ttft_mean_ratio", "mean"), ("ttft_p95_ratio", "95th percentile of")):
        ours, tier = value(variants, BOTH, key), value(variants, HOST_LRU, key)
        if ours is not None and tier is not None and ours < tier:
            yield f"the {what} TTFT of both is above host_lru's (ratios {ours:.2f} and {tier:.2f})"
    history, unled = saving_share(variants, "history"), saving_share(variants, ADVERSARIAL)
    if history is not None and unled is not None and history <= unled + SAME_SHARE:
        yield f"history saves no more than adversarial ({history:.3f} and {unled:.3f} of what clairvoyant does)"


def _swept(sweeps: Mapping[str, Any]) -> Iterator[str]:
    for rows in sweeps.values():
        for row in rows:
            place = f"simulated h100, {row['agents']:,} agents, {row['active']:.0%} active"
            for variant, found in row["variants"].items():
                yield from (f"{place}, {variant}: {what}." for what in _harms(found))
            both, shuffled = (value(row["variants"], name, "makespan_ratio") for name in (BOTH, SHUFFLED))
            if both is not None and shuffled is not None and both <= shuffled:
                yield f"{place}: both's {both:.2f} is not above shuffled's {shuffled:.2f}."


def _mixed(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["over_gdsf"] > 0:
            yield (
                f"counted, {row['items']}, {row['trace']}, {row['held']:.1f} items held: eviction by rent loses "
                f"{row['over_gdsf']:+.1%} of the better GDSF's seconds, though it knows the next use."
            )
