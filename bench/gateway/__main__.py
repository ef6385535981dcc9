"""`python -m bench.gateway`: what the gateway adds to 200 streams of 10 chunks a second.

The streams go straight to a server and through `scalesimd serve --gateway` in turn, block by block. The server is a
small one in a process of its own that says when it sent each chunk; the daemon notes each stream as its agent's call.
Times are in milliseconds. What is added is the difference of the percentiles of both ways; each figure of the last line
is the larger of two, that for the first token and that for a chunk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.gateway.streams import Times, stream_all
from bench.rig.daemon import DaemonProcess
from bench.rig.process import free_port

STARTS_WITHIN = 20.0
WAYS = ("direct", "gateway")


def main() -> None:
    """Measure with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--streams", type=int, default=200, help="how many at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a stream")
    parser.add_argument("--pairs", type=int, default=4, help="how often both ways are gone")
    parser.add_argument(
        "--agents", type=int, default=0, help="agents of a simulation that keeps the daemon busy"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-") as name, ExitStack() as stack:
        engine = stack.enter_context(_paced())
        gateway = free_port()
        daemon = DaemonProcess(Path(name), f"http://127.0.0.1:{engine}", gateway_port=gateway)
        stack.enter_context(daemon)
        if given.agents:
            stack.enter_context(_busy(daemon.feed, given.agents))
        ports = dict(zip(WAYS, (engine, gateway), strict=True))
        before = daemon.cpu_seconds()
        times = _measure(ports, given.streams, given.seconds, given.pairs)
        _print(times, daemon.cpu_seconds() - before, given.streams)


def _measure(ports: dict[str, int], streams: int, seconds: float, pairs: int) -> dict[str, Times]:
    for port in ports.values():
        asyncio.run(stream_all(port, streams, 1.0, seed=0))
    times = {way: Times() for way in ports}
    for pair in range(pairs):
        for way in WAYS if pair % 2 else reversed(WAYS):
            times[way].add(asyncio.run(stream_all(ports[way], streams, seconds, seed=pair)))
    return times


@contextmanager
def _paced() -> Iterator[int]:
    """Run the small server; yields its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.gateway.paced", str(port)])
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the small server did not start")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _busy(feed: str, agents: int) -> Iterator[None]:
    """Have a simulation tell ten times a second what a tenth of its agents do."""
    code = (
        "import sys, time\n"
        "from scalesim_client import Publisher\n"
        "agents = int(sys.argv[2])\n"
        "with Publisher('busy', address=sys.argv[1]) as sidecar:\n"
        "    for step in range(10**9):\n"
        "        sidecar.step(step)\n"
        "        for agent in range(step % 10, agents, 10):\n"
        "            sidecar.activity(f'a{agent}', for_=10)\n"
        "        time.sleep(0.1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, feed, str(agents)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which so large a share of them lies, the nearest one above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _print(times: dict[str, Times], cpu: float, streams: int) -> None:
    table = Table(title=f"{streams} streams, ms")
    for column in ("", *WAYS, "added"):
        table.add_column(column, justify="right" if column else "left")
    added: dict[str, list[float]] = {"p50": [], "p99": []}
    for what, pick in (("first token", "first"), ("chunk", "chunks")):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            direct, gateway = (percentile(getattr(times[way], pick), share) for way in WAYS)
            added[name].append(gateway - direct)
            table.add_row(f"{what}, {name}", f"{direct:.2f}", f"{gateway:.2f}", f"{gateway - direct:.2f}")
    Console(file=sys.stdout).print(table)
    chunks = len(times["gateway"].chunks)
    print(f"{chunks} chunks each way; the daemon took {1e6 * cpu / chunks:.0f} us of CPU time per chunk")
    print(
        json.dumps(
            {
                "added_p50_ms": round(max(added["p50"]), 2),
                "added_p99_ms": round(max(added["p99"]), 2),
                "streams": streams,
                "added_first_token_ms": [round(added[name][0], 2) for name in added],
                "added_chunk_ms": [round(added[name][1], 2) for name in added],
            }
        )
    )


if __name__ == "__main__":
    main()
