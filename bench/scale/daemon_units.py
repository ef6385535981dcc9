"""What a daemon itself takes: for an event, for a cycle, for an agent that it knows, for an engine that it watches.

The first three are measured as `make bench-daemon` does (`bench/daemon/ingest.py`, `choose.py`, `idle.py`), but in one
process and in turn. A watched engine is the emulated one, which does nothing: what is timed is the daemon's own thread,
which asks it how busy it is, hears its events, and probes it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from time import thread_time

from bench.daemon.choose import choose
from bench.daemon.idle import idle
from bench.daemon.ingest import ingest
from bench.daemon.rig import daemon
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_daemon.watch import PROBE_SECONDS

WATCHED = 8
WATCH_SECONDS = 2 * PROBE_SECONDS


def daemon_units(rounds: int, seed: int) -> Iterator[Mapping[str, float]]:
    """Yield of each round what the daemon takes."""
    parts = ingest(rounds, seed), choose(rounds, seed), idle(rounds, seed)
    for events, chosen, idling in zip(*parts, strict=True):
        yield {
            "daemon.event_us": events["daemon, us per event, 100 a message"],
            "daemon.lone_event_us": events["daemon, us per event, 1 a message"],
            "daemon.cycle_ms": chosen["cycle, ms"],
            "daemon.bytes_per_agent": idling["bytes_per_idle_agent"],
            "daemon.watch_ms": 1e3 * (_watch(WATCHED) - _watch(1)) / (WATCHED - 1),
        }


def _watch(engines: int) -> float:
    """Return the CPU seconds that a daemon's thread takes in a second beside so many idle engines."""
    with tempfile.TemporaryDirectory(prefix="watch-") as name, ExitStack() as stack:
        folder = Path(name)
        listed = [
            {"name": f"engine-{one}", "kind": "vllm", "url": stack.enter_context(_engine(folder, one)).url}
            for one in range(engines)
        ]
        return asyncio.run(_time(folder, listed))


def _engine(folder: Path, number: int) -> EmulatorServer:
    feeds = {"endpoint": f"ipc://{folder}/kv{number}", "replay_endpoint": f"ipc://{folder}/kvr{number}"}
    return EmulatorServer(EmulatorConfig(**feeds))


async def _time(folder: Path, engines: list[dict[str, str]]) -> float:
    async with daemon(folder, engines=engines, redis={"enabled": False}) as sidecar:
        while not all(driver.view.known for driver in sidecar.drivers.values()):  # noqa: ASYNC110  # a view tells nobody
            await asyncio.sleep(0.05)
        began = thread_time()
        await asyncio.sleep(WATCH_SECONDS)
        return (thread_time() - began) / WATCH_SECONDS
