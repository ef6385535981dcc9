"""The classes of workloads, each on as many agents as the village has people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bench.workloads.base import MAX_ACTIVE_SHARE, Workload
from bench.workloads.classes import Loners
from bench.workloads.diffusion import Diffusion, small_world
from bench.workloads.personas import VILLAGERS
from bench.workloads.village import Village

AGENTS: Final = len(VILLAGERS)

Draw = Callable[[int, int], Workload]
"""Makes a workload from a seed and a number of steps."""

MIXED: Final = "mixed"
"""The village beside recorded requests that no simulation announced."""
RATE: Final = 0.5  # requests in a second

CLASSES: Final[dict[str, Draw]] = {
    "independent": lambda seed, steps: Loners(seed, steps, AGENTS, MAX_ACTIVE_SHARE),
    "interaction": Village,
    "path": lambda seed, steps: Diffusion(small_world(AGENTS, seed), seed, steps),
}


def draw(name: str, seed: int, steps: int) -> Workload:
    """Return the workload of a class."""
    return CLASSES["interaction" if name == MIXED else name](seed, steps)
