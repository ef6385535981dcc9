"""The demo's runs, in order: choose the flags of the engine alone, then play the pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import mkdtemp
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

from bench.demo import lab
from bench.demo.measure import Result
from bench.demo.prompts import PromptBook, write_prompts
from bench.demo.runner import Run, Speaker, empty_cache, play, time_prefill
from bench.rig.daemon import DaemonProcess
from bench.workloads.base import Workload
from scalesim_client.publisher import Publisher

RUSHED_STEPS: Final = 4
NAMES: Final = {"vllm": "vLLM 0.32.0 (CPU)", "emulator": "emulator (an emulated engine, no real one)"}


@dataclass(frozen=True, slots=True)
class Options:
    """What is played where. `pace` None is measured."""

    workload: Workload
    title: str
    engine: lab.EngineKind
    pace: float | None
    folder: Path


class Experiment:
    """All runs of one demo. Every run finds the KV pool without anything of the agents' in it."""

    def __init__(self, options: Options, prompts: PromptBook, progress: Progress) -> None:
        self._options = options
        self._prompts = prompts
        self._progress = progress
        self._steps = [len(step.calls) for step in options.workload.steps()]
        self._used: set[str] = set()

    @property
    def calls_per_step(self) -> float:
        """Mean calls of a step."""
        return fmean(self._steps)

    async def alone(self, title: str, url: str, pace: float, steps: int | None = None) -> Run:
        """Play the first `steps` steps (default: all) on the engine at `url`, alone."""
        await self._empty(url)
        return await self._play(title, url, pace, steps, None)

    async def beside(
        self, title: str, url: str, pace: float, steps: int | None = None
    ) -> tuple[Run, dict[str, Any]]:
        """Play the same with a fresh daemon beside the engine; return the daemon's report, too."""
        # The daemon starts after this traffic, which it would take for somebody else's and make room for.
        await self._empty(url)
        with (
            DaemonProcess(Path(mkdtemp(prefix="daemon-", dir=self._options.folder)), url) as sidecar,
            Publisher(self._options.workload.simulation, "step", address=sidecar.feed) as publisher,
        ):
            run = await self._play(title, url, pace, steps, publisher)
            return run, sidecar.report()

    async def _empty(self, url: str) -> None:
        if url in self._used:
            await empty_cache(url, lab.POOL_TOKENS)
        self._used.add(url)

    async def _play(
        self, title: str, url: str, pace: float, steps: int | None, speaker: Speaker | None
    ) -> Run:
        total = min(steps or len(self._steps), len(self._steps))
        task = self._progress.add_task(title, total=total)
        return await play(
            url,
            self._options.workload,
            self._prompts,
            pace=pace,
            steps=total,
            speaker=speaker,
            on_step=lambda: self._progress.advance(task),
        )


async def run_demo(options: Options) -> Result:
    """Play everything and return the result. Raises what the lab raises where something does not start."""
    console = Console(stderr=True)
    with Progress(console=console) as progress, ExitStack() as engines:
        ours = engines.enter_context(_engine(options, "ours", progress))
        prompts = await write_prompts(ours, options.workload)
        cold = await time_prefill(ours, prompts)
        experiment = Experiment(options, prompts, progress)
        pace = cold * experiment.calls_per_step if options.pace is None else options.pace
        console.print(f"a cold prefill takes {cold:.2f} s; pace: {pace:.2f} s a step")

        flags_rushed = await experiment.alone("alone with our flags, pace 0", ours, 0.0, RUSHED_STEPS)
        with _engine(options, "default", progress) as stock:
            stock_rushed = await experiment.alone(
                "alone with default flags, pace 0", stock, 0.0, RUSHED_STEPS
            )
            stock_is_better = stock_rushed.makespan < flags_rushed.makespan
            alone = await experiment.alone("alone", stock if stock_is_better else ours, pace)
        beside, report = await experiment.beside("with sidecar", ours, pace)
        beside_rushed, _ = await experiment.beside("with sidecar, pace 0", ours, 0.0, RUSHED_STEPS)
    return Result(
        engine=NAMES[options.engine],
        workload=options.title,
        stock_is_better=stock_is_better,
        cold_prefill=cold,
        alone=alone,
        ours=beside,
        stock_rushed=stock_rushed,
        flags_rushed=flags_rushed,
        ours_rushed=beside_rushed,
        report=report,
    )


@contextmanager
def _engine(options: Options, flags: lab.Flags, progress: Progress) -> Iterator[str]:
    task = progress.add_task(f"starting the engine, {flags} flags", total=None)
    with lab.engine(options.engine, flags, options.folder / flags) as url:
        progress.remove_task(task)
        yield url
