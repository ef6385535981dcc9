"""A soak in one picture: what the daemon and its Redis took, and how many agents there were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from bench.soak.figures import MIB, redis_bounds
from bench.soak.samples import Sample

# Equal figures give equal files, whose words can be read.
matplotlib.rcParams |= {"svg.hashsalt": "soak", "svg.fonttype": "none"}


def draw(samples: Sequence[Sample], empty: int, path: Path) -> None:
    """Write the picture as SVG. Raises `OSError`."""
    minutes = [one.seconds / 60 for one in samples]
    figure = Figure(figsize=(9, 7), layout="constrained")
    memory, redis, counts = figure.subplots(3, 1, sharex=True)
    memory.plot(minutes, [one.rss / MIB for one in samples], label="resident memory, MiB")
    memory.plot(minutes, [one.blocks / 1e4 for one in samples], label="Python's objects, 10,000 blocks")
    redis.plot(minutes, [one.redis_bytes / MIB for one in samples], label="used_memory, MiB")
    redis.plot(minutes, [size / MIB for size, _ in redis_bounds(samples, empty)], "--", label="its bound")
    counts.plot(minutes, [one.agents for one in samples], label="agents that the daemon knows")
    counts.plot(minutes, [one.alive for one in samples], "--", label="agents that live")
    for axes, title in ((memory, "daemon"), (redis, "Redis"), (counts, "agents")):
        axes.set_title(title, loc="left")
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right")
    counts.set_xlabel("minutes")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
