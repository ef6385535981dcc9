"""All variants on one engine: by recency first, while nobody speaks, then the daemon speaks, then the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Literal

from bench.next_use.engine import Share, engine
from bench.next_use.recording import Recording
from bench.next_use.voices import Voice, broadcasting, declared, estimated, recorded, silent
from bench.rig.daemon import DaemonProcess
from bench.workloads.classes import Loners, Relay, Walkers
from bench.workloads.village import Village
from scalesim_adapters.emulator import EmulatorServer

AGENTS: Final = 12

Class = Literal["activity", "interaction", "path", "village"]
Variant = Literal["recency", "estimated", "declared", "recorded"]
CLASSES: Final[tuple[Class, ...]] = ("activity", "interaction", "path", "village")
VARIANTS: Final[tuple[Variant, ...]] = ("recency", "estimated", "declared", "recorded")

Shares = dict[tuple[Class, Variant], Share]


def record(name: Class, seed: int, steps: int) -> Recording:
    """Record the workload of a class, of 12 agents; the village needs all estimators at once."""
    match name:
        case "activity":
            return Recording.of(Loners(seed, steps, AGENTS))
        case "interaction":
            return Recording.of(Walkers(seed, steps, AGENTS))
        case "path":
            return Recording.of(Relay(seed, steps, AGENTS))
        case "village":
            return Recording.of(Village(seed, steps, AGENTS))


def measure(
    folder: Path,
    pool: int,
    recordings: Mapping[Class, Recording],
    done: Callable[[Class, Variant, Share], object],
) -> Shares:
    """Play the recordings in every variant on one engine with a pool for `pool` of the agents; `done` is told of each.

    The daemon moves nothing: its own engine is an emulated one, and ours only hears what it broadcasts.
    """
    dues = f"ipc://{folder}/dues"
    shares: Shares = {}

    def play(variant: Variant, voice: Callable[[Recording], AbstractContextManager[Voice]]) -> None:
        for name, recording in recordings.items():
            with voice(recording) as speaking:
                shares[name, variant] = ours.play(recording, speaking)
            done(name, variant, shares[name, variant])

    with ExitStack() as stack:
        ours = stack.enter_context(engine(folder, pool, dues))
        play("recency", silent)
        with EmulatorServer() as other, DaemonProcess(folder, other.url) as daemon:
            ours.await_daemon()
            play("estimated", partial(estimated, daemon.feed, dues))
            play("declared", partial(declared, daemon.feed, dues))
        with broadcasting(dues) as socket:
            play("recorded", partial(recorded, socket, dues))
    return shares
