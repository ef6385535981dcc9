"""What all runs of one demo share: where they are played, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import mkdtemp
from typing import Any

from rich.progress import Progress

from bench.demo import lab
from bench.demo.prompts import PromptBook
from bench.demo.runner import Run, Speaker, empty_cache, play
from bench.rig.daemon import DaemonProcess
from bench.workloads.base import Workload
from scalesim_client.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Options:
    """What is played where. `pace` None is measured; `trace` is the file that the workload is from, if any."""

    workload: Workload
    title: str
    engine: lab.EngineKind
    pace: float | None
    folder: Path
    trace: Path | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """An engine to play on: its base URL, and where it listens for dues."""

    url: str
    dues: str | None = None


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

    async def alone(self, title: str, place: Place, pace: float, steps: int | None = None) -> Run:
        """Play the first `steps` steps (default: all) on the engine there, alone."""
        await self._empty(place)
        return await self._play(title, place.url, pace, steps, None)

    async def beside(
        self, title: str, place: Place, pace: float, steps: int | None = None
    ) -> tuple[Run, dict[str, Any]]:
        """Play the same with a fresh daemon beside the engine; return the daemon's report, too."""
        # The daemon starts after this traffic, which it would take for somebody else's and make room for.
        await self._empty(place)
        folder = Path(mkdtemp(prefix="daemon-", dir=self._options.folder))
        with (
            DaemonProcess(folder, place.url, dues=place.dues) as sidecar,
            Publisher(self._options.workload.simulation, "step", address=sidecar.feed) as publisher,
        ):
            self._progress.console.print(f"{title}: the dashboard is at {sidecar.api}/ meanwhile")
            run = await self._play(title, place.url, pace, steps, publisher)
            return run, sidecar.report()

    async def _empty(self, place: Place) -> None:
        if place.url in self._used:
            await empty_cache(place.url, lab.POOL_TOKENS)
        self._used.add(place.url)

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
