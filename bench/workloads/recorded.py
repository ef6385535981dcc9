"""Which workload a recorded file is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from bench.workloads.base import Workload
from bench.workloads.cascade import Cascade
from bench.workloads.trace import Trace

READERS: Mapping[str, Callable[..., Workload]] = MappingProxyType({".md": Trace, ".csv": Cascade})


def recorded(path: Path, steps: int | None) -> Workload:
    """Read `path`, of which `steps` are played (default: what suits the file), by its suffix: .md a day of generative
    agents, .csv a cascade. Raises `ValueError` for others, and for a file that isn't what its suffix says."""
    if path.suffix not in READERS:
        raise ValueError(f"{path}: what can be played ends in {' or '.join(READERS)}")
    return READERS[path.suffix](path) if steps is None else READERS[path.suffix](path, steps)
