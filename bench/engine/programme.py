"""All runs of the bench in order: the repetitions one after the other, in each every class and variant by turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.demo.prompts import draw_prompts
from bench.engine.classes import MIXED, draw
from bench.engine.kind import EngineKind
from bench.engine.places import Performance, Stage, stage
from bench.engine.speech import LATEST, own, record
from bench.engine.variants import Variant
from bench.workloads.mooncake import Arrival

BEYOND: Final = LATEST // 2  # steps that are known and not played, so that gaps reach past the end


@dataclass(frozen=True, slots=True)
class Options:
    """How much is played: `steps` in each run, of which the first `warmup` don't count; after the first repetition as
    many others, up to `repetitions` in all, as are likely to end within so many `minutes` of the start. `traffic` is
    what nobody announced, beside the class mixed."""

    steps: int
    warmup: int
    repetitions: int
    seed: int
    minutes: float
    traffic: tuple[Arrival, ...] = ()


Played = dict[str, dict[str, list[Performance]]]
"""By class and variant, one of each repetition."""


async def run_all(
    kind: EngineKind,
    folder: Path,
    names: Sequence[str],
    variants: Mapping[str, Variant],
    options: Options,
) -> Played:
    """Play the classes of these names in all variants on this engine; its logs lie in `folder`."""
    played: Played = {name: {variant: [] for variant in variants} for name in names}
    deadline = monotonic() + 60 * options.minutes
    runs = len(names) * len(variants)
    with _progress() as progress:
        task = progress.add_task("starting the engines", total=options.repetitions * runs)
        with stage(kind, folder, {variant.place for variant in variants.values()}) as engines:
            for repetition in range(options.repetitions):
                begun = monotonic()
                for name, variant in turns(list(names), list(variants), options.seed + repetition):
                    title = f"{name}, {variant}, repetition {repetition + 1}"
                    progress.update(task, description=title)
                    one = await _perform(engines, name, variants[variant], options, repetition)
                    played[name][variant].append(one)
                    progress.advance(task)
                    progress.console.print(f"{title}: {one.run.makespan:.1f} s", highlight=False)
                now = monotonic()
                if now + (now - begun) > deadline:
                    break
    return played


async def _perform(
    engines: Stage, name: str, variant: Variant, options: Options, repetition: int
) -> Performance:
    seed = options.seed + repetition
    workload = record(draw(name, seed, options.steps + BEYOND))
    told = (variant.speech or own)(workload, Random(seed))
    traffic = options.traffic if name == MIXED else ()
    return await engines.perform(
        variant, told, draw_prompts(workload), options.steps, options.warmup, traffic
    )


def turns(names: list[str], variants: list[str], seed: int) -> list[tuple[str, str]]:
    """Return every class with every variant, in an order of this seed: nobody always comes after the same other."""
    pairs = [(name, variant) for name in names for variant in variants]
    Random(seed).shuffle(pairs)
    return pairs


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
