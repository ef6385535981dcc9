"""The demo's runs, in order: choose the flags of the engine alone, play the pairs, then the engine with our plug-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from rich.console import Console
from rich.progress import Progress

from bench.demo import lab
from bench.demo.experiment import Experiment, Options, Place
from bench.demo.inside import run_inside
from bench.demo.measure import Result
from bench.demo.prompts import write_prompts
from bench.demo.runner import time_prefill
from bench.workloads.provenance import provenance

RUSHED_STEPS: Final = 4
NAMES: Final = {"vllm": "vLLM 0.32.0 (CPU)", "emulator": "emulator (an emulated engine, no real one)"}


async def run_demo(options: Options) -> Result:
    """Play everything and return the result. Raises what the lab raises where something does not start."""
    console = Console(stderr=True)
    with Progress(console=console) as progress, ExitStack() as engines:
        ours = engines.enter_context(_engine(options, "ours", progress))
        prompts = await write_prompts(ours.url, options.workload)
        cold = await time_prefill(ours.url, prompts)
        experiment = Experiment(options, prompts, progress)
        pace = cold * experiment.calls_per_step if options.pace is None else options.pace
        console.print(f"a cold prefill takes {cold:.2f} s; pace: {pace:.2f} s a step")

        flags_rushed = await experiment.alone("alone with our flags, pace 0", ours, 0.0, RUSHED_STEPS)
        with _engine(options, "default", progress) as stock:
            stock_rushed = await experiment.alone(
                "alone with default flags, pace 0", stock, 0.0, RUSHED_STEPS
            )
            stock_is_better = stock_rushed.makespan < flags_rushed.makespan
            better = stock if stock_is_better else ours
            alone = await experiment.alone("alone", better, pace)
            alone_whole = (
                await experiment.alone("alone, pace 0, all steps", better, 0.0)
                if options.engine == "vllm"
                else None
            )
        beside, report = await experiment.beside("with sidecar", ours, pace)
        beside_rushed, _ = await experiment.beside("with sidecar, pace 0", ours, 0.0, RUSHED_STEPS)
        engines.close()
        inside = (
            await run_inside(experiment, options, alone_whole, pace, progress)
            if alone_whole is not None
            else None
        )
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
        inside=inside,
        trace=None if options.trace is None else provenance(options.trace),
    )


@contextmanager
def _engine(options: Options, flags: lab.Flags, progress: Progress) -> Iterator[Place]:
    task = progress.add_task(f"starting the engine, {flags} flags", total=None)
    with lab.engine(options.engine, flags, options.folder / flags) as url:
        progress.remove_task(task)
        yield Place(url)
