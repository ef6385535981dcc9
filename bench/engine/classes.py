"""The classes of workloads, each on as many agents as the village has people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.demo.prompts import FRESH_TOKENS, OUTPUT_TOKENS, PREFIX_TOKENS
from bench.workloads.base import MAX_ACTIVE_SHARE, Workload
from bench.workloads.classes import Loners
from bench.workloads.diffusion import Diffusion, small_world
from bench.workloads.mooncake import Arrival, read_arrivals
from bench.workloads.personas import VILLAGERS
from bench.workloads.village import Village

AGENTS: Final = len(VILLAGERS)

Draw = Callable[[int, int], Workload]
"""Makes a workload from a seed and a number of steps."""

VILLAGE: Final = "interaction"
MIXED: Final = "mixed"
"""The village beside recorded requests that no simulation announced."""
RATE: Final = 0.5  # requests in a second
LONGEST: Final = PREFIX_TOKENS + FRESH_TOKENS + OUTPUT_TOKENS  # tokens of a request's prompt and answer

CLASSES: Final[dict[str, Draw]] = {
    "independent": lambda seed, steps: Loners(seed, steps, AGENTS, MAX_ACTIVE_SHARE),
    VILLAGE: Village,
    "path": lambda seed, steps: Diffusion(small_world(AGENTS, seed), seed, steps),
}


def unannounced(path: Path) -> list[Arrival]:
    """Read the recorded requests of the class mixed. Raises `OSError` and `ValueError`."""
    return read_arrivals(path, rate=RATE, longest=LONGEST)


def draw(name: str, seed: int, steps: int) -> Workload:
    """Return the workload of a class."""
    return CLASSES[VILLAGE if name == MIXED else name](seed, steps)
