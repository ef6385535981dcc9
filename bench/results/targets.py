"""What the figures must show, derived from them: each with its target, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bench.engine.classes import VILLAGE
from bench.engine.variants import BOTH, SHUFFLED
from bench.policy.fitted import ENDS
from bench.results.files import Classes, Files, Row, measured_rows
from bench.results.paper import BAR

Variants = Mapping[str, Row]
Figure = Callable[[Variants], float | None]

ADVERSARIAL, NO_TIER = "adversarial", "adversarial_no_tier"
# Times of two runs of the same differ by about so much.
NOISE = 1.05
CLOSE = 0.15
OWN_SHARE = 1.5
ENOUGH_PAIRS = 6
ENOUGH_ITEMS = 10


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


def value(variants: Variants, variant: str, key: str) -> float | None:
    """Return one number of a variant; None where it wasn't run or measured."""
    number = variants.get(variant, {}).get(key)
    return None if number is None else float(number)


def saving_share(variants: Variants, variant: str) -> float | None:
    """Return what the variant saves of recomputed tokens, as a share of what the clairvoyant one does; None where that
    saves nothing. Who computes more than the engine alone has a share below 0."""
    ours = value(variants, variant, "recomputed_tokens_ratio")
    best = value(variants, "clairvoyant", "recomputed_tokens_ratio")
    return None if ours is None or best is None or best >= 1 else (1 - ours) / (1 - best)


def _of(variant: str, key: str) -> Figure:
    return lambda variants: value(variants, variant, key)


def _ttft_against_tier(variants: Variants) -> float | None:
    ratio = value(variants, BOTH, "ttft_over_host_lru")
    return 1 / ratio if ratio else None


def _adversarial(key: str) -> Figure:
    """Where it was run without a host tier that is what counts: more memory would hide the harm."""
    return lambda variants: value(variants, NO_TIER if NO_TIER in variants else ADVERSARIAL, key)


def _without_tier(variants: Variants) -> str:
    return "no host tier" if NO_TIER in variants else "with our tier"


def _per_class(classes: Classes, figure: Figure) -> dict[str, float]:
    found = {name: figure(variants) for name, variants in classes.items()}
    return {name: number for name, number in found.items() if number is not None}


def _one(
    figure: Figure,
    good: Callable[[float], bool],
    choose: Callable[..., str],
    form: str = ".2f",
    how: Callable[[Variants], str] | None = None,
) -> Callable[[Classes], Verdict]:
    """Judge the class that is chosen by its figure, `max` or `min`; `how` tells more of it."""

    def read(classes: Classes) -> Verdict:
        found = _per_class(classes, figure)
        if not found:
            return Verdict()
        name = choose(found, key=found.__getitem__)
        more = "" if how is None else f", {how(classes[name])}"
        return Verdict(f"{found[name]:{form}} ({name}{more})", good(found[name]))

    return read


def _village(figure: Figure, least: float) -> Callable[[Classes], Verdict]:
    def read(classes: Classes) -> Verdict:
        number = figure(classes.get(VILLAGE, {}))
        return Verdict() if number is None else Verdict(f"{number:.2f}", number >= least)

    return read


def _own_share(classes: Classes) -> Verdict:
    """Judge what the village gains over shuffled dues; beside it what true ones would, which no estimate exceeds."""
    variants = classes.get(VILLAGE, {})
    ratio = value(variants, BOTH, "over_shuffled")
    if ratio is None:
        return Verdict()
    best, shuffled = (value(variants, name, "makespan_ratio") for name in ("clairvoyant", SHUFFLED))
    beside = f" (clairvoyant {best / shuffled:.2f})" if best is not None and shuffled else ""
    return Verdict(f"{ratio:.2f}{beside}", ratio >= OWN_SHARE)


def _share(variant: str, least: float) -> Callable[[Classes], Verdict]:
    """Judge the village's saving; beside it what is saved where nothing right is said."""

    def read(classes: Classes) -> Verdict:
        variants = classes.get(VILLAGE, {})
        share = saving_share(variants, variant)
        if share is None:
            return Verdict()
        unled, order = saving_share(variants, ADVERSARIAL), value(variants, variant, "order_accuracy")
        beside = [f"adversarial {unled:.3f}"] if unled is not None else []
        beside += [f"order accuracy {order:.2f}"] if order is not None else []
        return Verdict(f"{share:.3f}" + (f" ({', '.join(beside)})" if beside else ""), share >= least)

    return read


def _lower(classes: Classes) -> Verdict:
    found = _per_class(classes, _ttft_against_tier)
    if not found:
        return Verdict()
    name = min(found, key=found.__getitem__)
    return Verdict(f"{1 - found[name]:.0%} ({name})", found[name] <= 0.52)


TARGETS = (
    Target(
        "makespan of both over alone, best class",
        "at least 2.0",
        _one(_of(BOTH, "makespan_ratio"), lambda ratio: ratio >= 2, max),
    ),
    Target(
        "makespan of both over alone, interaction",
        f"at least {BAR}",
        _village(_of(BOTH, "makespan_ratio"), BAR),
    ),
    Target(
        "upper end of both's interval, worst class",
        "at least 1.0",
        _one(_of(BOTH, "makespan_ratio_high"), lambda ratio: ratio >= 1, min),
    ),
    Target("mean TTFT of both below host_lru's, best class", "at least 48 %", _lower),
    Target(
        "mean TTFT of both over host_lru's, worst class",
        f"at most {NOISE}, which is noise",
        _one(_ttft_against_tier, lambda ratio: ratio <= NOISE, max),
    ),
    Target(
        "both over shuffled in makespan, interaction",
        f"at least {OWN_SHARE}",
        _own_share,
    ),
    Target(
        "dues off by up to half: makespan over alone, interaction",
        "at least 1.5",
        _village(_of("noise_50", "makespan_ratio"), 1.5),
    ),
    Target(
        "both's saving in recomputed tokens over clairvoyant's, interaction",
        "at least 0.95",
        _share(BOTH, 0.95),
    ),
    Target(
        "history's saving in recomputed tokens over clairvoyant's, interaction",
        "at least 0.60",
        _share("history", 0.6),
    ),
    Target(
        "adversarial: recomputed tokens over alone's, worst class",
        "at most 1.03",
        _one(_adversarial("recomputed_tokens_ratio"), lambda ratio: ratio <= 1.03, max, ".3f", _without_tier),
    ),
    Target(
        "adversarial: upper end of the makespan's interval, worst class",
        "at least 0.97",
        _one(_adversarial("makespan_ratio_high"), lambda ratio: ratio >= 0.97, min, ".2f", _without_tier),
    ),
)


def counted(files: Files) -> Iterator[tuple[str, str, Verdict]]:
    """Yield what is judged besides: the simulator, and the policies of eviction alone. What, target, verdict."""
    yield (
        f"makespan ratios foretold within {CLOSE:.0%} of the measured ones",
        f"at least {ENOUGH_PAIRS} pairs of class and variant",
        _foretold(files),
    )
    if files.policy is None:
        return
    equal = [row["over_belady"] for row in files.policy["equal"]]
    yield (
        "eviction by due: misses over Belady's, equal sizes, worst trace",
        "at most +2 %",
        Verdict(f"{max(equal):+.2%}", max(equal) <= 0.02),
    )
    mixed = [row["over_gdsf"] for row in files.policy["mixed"] if row["held"] >= ENOUGH_ITEMS]
    yield (
        f"eviction by rent: seconds lost over the better GDSF's, mixed sizes, {ENOUGH_ITEMS} items held, worst trace",
        "at most +0 %",
        Verdict(f"{max(mixed):+.1%}", max(mixed) <= 0),
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """A makespan ratio that was measured, and what the simulator foretells under the same conditions; of recomputed
    tokens too, measured and foretold."""

    name: str
    variant: str
    measured: float
    foretold: float
    tokens: tuple[float, float]

    @property
    def off(self) -> float:
        """How far it is foretold above the measured one, as a share of that."""
        return self.foretold / self.measured - 1

    @property
    def close(self) -> bool:
        """Whether it is close enough."""
        return abs(self.off) <= CLOSE


def pairs(files: Files) -> list[Pair]:
    """Return the ratios of all that both played, but for those that costs are fitted to; none where the simulated calls
    are not those that were measured."""
    if files.vllm is None or files.policy is None:
        return []
    said, engine = files.vllm.conditions, files.policy["twin"]
    seeds = list(range(said.seed, said.seed + said.repetitions))
    if (engine["steps"], engine["seeds"]) != (said.steps - said.warmup, seeds):
        return []
    simulated: Classes = engine["classes"]
    return [
        Pair(
            name,
            variant,
            row["makespan_ratio"],
            ours["makespan_ratio"],
            (row["recomputed_tokens_ratio"], ours["recomputed_tokens_ratio"]),
        )
        for name, variants in measured_rows(files.vllm).items()
        for variant, row in variants.items()
        if variant not in ENDS and (ours := simulated.get(name, {}).get(variant)) is not None
    ]


def _foretold(files: Files) -> Verdict:
    found = pairs(files)
    if not found:
        return Verdict()
    close = sum(pair.close for pair in found)
    return Verdict(f"{close} of {len(found)}", close >= ENOUGH_PAIRS)
