"""The demo's third arm: an engine with our plug-in, which evicts by due and keeps in host memory what the device
doesn't hold. Beside it, without pause, vLLM's own LRU tier of equal bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from rich.progress import Progress

from bench.demo.experiment import Experiment, Options, Place
from bench.demo.measure import InsideResult
from bench.demo.prompts import FRESH_TOKENS, PREFIX_TOKENS
from bench.demo.runner import Run
from bench.host_tier.engines import BLOCK_TOKENS, TITLES, Kind, engine

TIER_SHARE: Final = 0.5  # of the population
WARM_UP_STEPS: Final = 8  # in which most agents call for the first time, which nothing can spare the engine


async def run_inside(
    experiment: Experiment, options: Options, alone: Run, pace: float, progress: Progress
) -> InsideResult:
    """Play with the tiers; `alone` is the engine alone without pause."""
    agents = len(options.workload.personas)
    blocks = int(TIER_SHARE * agents * ((PREFIX_TOKENS + FRESH_TOKENS) // BLOCK_TOKENS))
    with _place("lru", options, blocks, progress) as place:
        lru_tier = await experiment.alone("vLLM's LRU tier, pace 0", place, 0.0)
    with _place("due", options, blocks, progress) as place:
        ours, _ = await experiment.beside("with plug-in, pace 0", place, 0.0)
    # What a tier holds outlives any prompts that come after it: each run has an engine of its own.
    with _place("due", options, blocks, progress) as place:
        paced, report = await experiment.beside("with plug-in", place, pace)
    return InsideResult(paced, report, alone, lru_tier, ours, min(WARM_UP_STEPS, len(alone.ends) // 2))


@contextmanager
def _place(kind: Kind, options: Options, blocks: int, progress: Progress) -> Iterator[Place]:
    folder = Path(mkdtemp(prefix=f"{kind}-", dir=options.folder))
    dues = f"ipc://{folder}/dues"
    task = progress.add_task(f"starting the {TITLES[kind]}", total=None)
    with engine(kind, folder, blocks, dues) as server:
        progress.remove_task(task)
        yield Place(server.url, dues)
