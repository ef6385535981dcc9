"""What the figures must show, derived from them: each with its target, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.results.paper import BAR

Row = Mapping[str, Any]
Classes = Mapping[str, Mapping[str, Row]]

VILLAGE = "interaction"
# Times of two runs of the same differ by about so much.
NOISE = 1.05
CLOSE = 0.15
ENOUGH_PAIRS = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """A derived figure of one source of figures: None where what it is derived from wasn't run."""

    shown: str | None = None
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Something that must be shown, and how it is read off the classes of one engine."""

    what: str
    target: str
    read: Callable[[Classes], Verdict]


def _per_class(classes: Classes, figure: Callable[[Mapping[str, Row]], float | None]) -> dict[str, float]:
    found = {name: figure(variants) for name, variants in classes.items()}
    return {name: value for name, value in found.items() if value is not None}


def value(variants: Mapping[str, Row], variant: str, key: str) -> float | None:
    """Return one number of a variant; None where it wasn't run or measured."""
    number = variants.get(variant, {}).get(key)
    return None if number is None else float(number)


def quotient(above: float | None, below: float | None) -> float | None:
    """Return a ratio; None where a part is missing or nothing stands below."""
    return None if above is None or not below else above / below


def over_shuffled(variants: Mapping[str, Row]) -> float | None:
    """Return prediction's own share: how many times as fast right dues are as shuffled ones."""
    return quotient(value(variants, "both", "makespan_ratio"), value(variants, "shuffled", "makespan_ratio"))


def ttft_against_tier(variants: Mapping[str, Row]) -> float | None:
    """Return the mean TTFT over that of the LRU host tier of the same size."""
    return quotient(
        value(variants, "host_lru", "ttft_mean_ratio"), value(variants, "both", "ttft_mean_ratio")
    )


def saving_share(variant: str) -> Callable[[Mapping[str, Row]], float | None]:
    """Return a function for the variant's saving in recomputed tokens, as a share of the clairvoyant one's."""

    def share(variants: Mapping[str, Row]) -> float | None:
        ours = value(variants, variant, "recomputed_tokens_ratio")
        best = value(variants, "clairvoyant", "recomputed_tokens_ratio")
        return None if ours is None or best is None else quotient(1 - ours, 1 - best)

    return share


def _best(
    figure: Callable[[Mapping[str, Row]], float | None],
    least: float,
    only: str | None = None,
    form: str = ".2f",
) -> Callable[[Classes], Verdict]:
    """Judge the best class, or one class `only`."""

    def read(classes: Classes) -> Verdict:
        found = _per_class(classes, figure)
        if only is not None:
            found = {name: number for name, number in found.items() if name == only}
        if not found:
            return Verdict()
        name = max(found, key=found.__getitem__)
        return Verdict(format(found[name], form) + ("" if only else f" ({name})"), found[name] >= least)

    return read


def _worst(
    figure: Callable[[Mapping[str, Row]], float | None], good: Callable[[float], bool], highest: bool
) -> Callable[[Classes], Verdict]:
    """Judge the class with the highest or lowest figure."""

    def read(classes: Classes) -> Verdict:
        found = _per_class(classes, figure)
        if not found:
            return Verdict()
        name = (max if highest else min)(found, key=found.__getitem__)
        return Verdict(f"{found[name]:.2f} ({name})", good(found[name]))

    return read


def _lower(classes: Classes) -> Verdict:
    found = _per_class(classes, ttft_against_tier)
    if not found:
        return Verdict()
    name = min(found, key=found.__getitem__)
    return Verdict(f"{1 - found[name]:.0%} ({name})", found[name] <= 0.52)


def _of(variant: str, key: str) -> Callable[[Mapping[str, Row]], float | None]:
    return lambda variants: value(variants, variant, key)


def _adversarial(key: str) -> Callable[[Mapping[str, Row]], float | None]:
    """Where it was run without a host tier that is what counts: more memory would hide the harm."""
    return lambda variants: value(
        variants, "adversarial_no_host" if "adversarial_no_host" in variants else "adversarial", key
    )


TARGETS = (
    Target(
        "makespan of both over alone, best class", "at least 2.0", _best(_of("both", "makespan_ratio"), 2.0)
    ),
    Target(
        "makespan of both over alone, interaction",
        f"at least {BAR}",
        _best(_of("both", "makespan_ratio"), BAR, VILLAGE),
    ),
    Target(
        "upper end of both's interval, worst class",
        "at least 1.0",
        _worst(_of("both", "makespan_ratio_high"), lambda ratio: ratio >= 1, highest=False),
    ),
    Target("mean TTFT of both below host_lru's, best class", "at least 48 %", _lower),
    Target(
        "mean TTFT of both over host_lru's, worst class",
        f"at most {NOISE}, which is noise",
        _worst(ttft_against_tier, lambda ratio: ratio <= NOISE, highest=True),
    ),
    Target("both over shuffled in makespan, interaction", "at least 1.5", _best(over_shuffled, 1.5, VILLAGE)),
    Target(
        "dues off by half: makespan over alone, interaction",
        "at least 1.5",
        _best(_of("noise_50", "makespan_ratio"), 1.5, VILLAGE),
    ),
    Target(
        "both's saving in recomputed tokens over clairvoyant's, interaction",
        "at least 0.95",
        _best(saving_share("both"), 0.95, VILLAGE, ".3f"),
    ),
    Target(
        "history's saving in recomputed tokens over clairvoyant's, interaction",
        "at least 0.60",
        _best(saving_share("history"), 0.6, VILLAGE, ".3f"),
    ),
    Target(
        "adversarial: recomputed tokens over alone's, worst class",
        "at most 1.03",
        _worst(_adversarial("recomputed_tokens_ratio"), lambda ratio: ratio <= 1.03, highest=True),
    ),
    Target(
        "adversarial: upper end of the makespan's interval, worst class",
        "at least 0.97",
        _worst(_adversarial("makespan_ratio_high"), lambda ratio: ratio >= 0.97, highest=False),
    ),
)


def misses(policy: Mapping[str, Any]) -> Iterator[tuple[str, str, Verdict]]:
    """Yield what is judged of the policies of eviction alone: what, target, verdict."""
    equal = [row["over_belady"] for row in policy["equal"]]
    yield (
        "eviction by due: misses over Belady's, equal sizes, worst trace",
        "at most +2 %",
        Verdict(f"{max(equal):+.2%}", max(equal) <= 0.02),
    )
    mixed = [row["over_gdsf"] for row in policy["mixed"]]
    yield (
        "eviction by rent: seconds lost over the better GDSF's, mixed sizes, worst trace",
        "at most +0 %",
        Verdict(f"{max(mixed):+.1%}", max(mixed) <= 0),
    )


def pairs(measured: Classes, simulated: Classes) -> list[tuple[str, str, float, float]]:
    """Return what both played: class, variant, and the makespan ratio measured and simulated."""
    return [
        (name, variant, float(row["makespan_ratio"]), float(simulated[name][variant]["makespan_ratio"]))
        for name, variants in measured.items()
        for variant, row in variants.items()
        if variant not in ("alone", "ceiling")
        and row.get("makespan_ratio") is not None
        and variant in simulated.get(name, {})
    ]
