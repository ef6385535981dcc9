"""From an urgent event to the first call of the engine, against a bare loop under the same 10,000 events a second.

A simulation wakes one agent after the other whose prefix the engine doesn't have, and says 10,000 other events a
second, one a message, each of which gives one of 1,000 agents another due. `scalesimd serve` runs as a process of its
own with all that it has by default: Valkey, broadcast, API, and an emulated engine beside it. Between the two events
of a pair lie gate, estimators, cycle, snapshot, plan, quiet rule, driver and adapter. What is timed ends when the
request's bytes are at the engine's port.

The bare loop, a process too, receives and decodes the same bytes, all that have come at a time, and, where an agent is
woken, sends one request for it by the daemon's HTTP client, as a task. It knows nothing of anything, and asks nobody.
Both share this machine's cores with the sender, the relay that notes times, and the engine; where these don't suffice
for 10,000 events a second, what is late piles up in either.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import zmq
import zmq.asyncio

from bench.daemon.relay import Relay
from bench.daemon.said import URGENT_PREFIX_TOKENS, key_of, speaking
from bench.gateway.__main__ import percentile
from bench.rig.daemon import DaemonProcess
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_client.events import AgentWoken

AGENTS = 1_000
PER_SECOND = 10_000
URGENT = 150
EVERY_MS = 100
BLOCKS = 4_096
BLOCK_TOKENS = 32
WITHIN = 60.0
POLL = 0.05


def urgent(rounds: int, seed: int) -> Iterator[Mapping[str, float]]:
    """Yield of each round by how many milliseconds the daemon's 99th percentile is over the bare loop's."""
    for number in range(rounds):
        bare = asyncio.run(_measure("bare", seed + number))
        ours = asyncio.run(_measure("daemon", seed + number))
        yield {
            "urgent_p99_over_bare_ms": percentile(ours, 0.99) - percentile(bare, 0.99),
            **{f"bare loop, p{share:.0%}, ms": percentile(bare, share) for share in (0.5, 0.99)},
            **{f"daemon, p{share:.0%}, ms": percentile(ours, share) for share in (0.5, 0.99)},
        }


async def _measure(who: str, seed: int) -> list[float]:
    """Return the milliseconds that each urgent event took."""
    with tempfile.TemporaryDirectory(prefix="urgent-") as name:
        folder = Path(name)
        config = EmulatorConfig(
            blocks=BLOCKS,
            block_size=BLOCK_TOKENS,
            endpoint=f"ipc://{folder}/kv",
            replay_endpoint=f"ipc://{folder}/kvr",
        )
        with EmulatorServer(config) as engine:
            relay = Relay(engine.port)
            async with relay.serving(), _reader(who, folder, f"http://127.0.0.1:{relay.port}"):
                sent_at = await asyncio.to_thread(_speak, f"ipc://{folder}/feed", seed)
                async with asyncio.timeout(WITHIN):
                    # The relay tells nobody: an event for each call would be part of what is timed.
                    while sent_at.keys() - relay.first_at.keys():  # noqa: ASYNC110  # a relay tells nobody
                        await asyncio.sleep(POLL)
    return [(relay.first_at[agent] - at) / 1e6 for agent, at in sent_at.items()]


def _speak(endpoint: str, seed: int) -> dict[str, int]:
    with speaking("paced", endpoint, AGENTS, PER_SECOND, URGENT, EVERY_MS, seed) as speaker:
        assert speaker.stdin is not None and speaker.stdout is not None
        speaker.stdin.write("go\n")
        speaker.stdin.flush()
        sent_at: dict[str, int] = json.loads(speaker.stdout.readline())
        return sent_at


@asynccontextmanager
async def _reader(who: str, folder: Path, engine: str) -> AsyncIterator[None]:
    """Run who hears the events and calls the engine, as a process."""
    if who == "daemon":
        daemon = DaemonProcess(folder, engine)
        await asyncio.to_thread(daemon.start)
        try:
            await _knows_the_engine(daemon)
            yield
        finally:
            await asyncio.to_thread(daemon.stop)
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.daemon.urgent", f"ipc://{folder}/feed", engine),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield
    finally:
        process.terminate()
        await process.wait()


async def _knows_the_engine(daemon: DaemonProcess) -> None:
    async with asyncio.timeout(WITHIN), httpx.AsyncClient(base_url=daemon.api) as api:
        # Another process can only be asked.
        while not all(one["known"] for one in (await api.get("/v1/engines")).json()["engines"]):  # noqa: ASYNC110  # it can only be asked
            await asyncio.sleep(POLL)


async def serve_bare(endpoint: str, engine: str) -> None:
    """Be the bare loop, until killed."""
    socket = zmq.asyncio.Context().socket(zmq.ROUTER)
    socket.bind(endpoint)
    waiting = zmq.Socket.shadow(socket)
    tasks: set[asyncio.Task[None]] = set()
    async with httpx.AsyncClient(base_url=engine) as client:
        await client.get("/health")
        print("ready", flush=True)
        while True:
            await socket.poll()
            with suppress(zmq.Again):
                while True:
                    for event in msgspec.msgpack.decode(waiting.recv_multipart(zmq.NOBLOCK)[-1])[1]:
                        if event["type"] == AgentWoken.type:
                            task = asyncio.create_task(_call(client, int(event["agent"][-7:])))
                            tasks.add(task)
                            task.add_done_callback(tasks.discard)


async def _call(client: httpx.AsyncClient, agent: int) -> None:
    body = {
        "model": "base",
        "prompt": [agent] * URGENT_PREFIX_TOKENS,
        "max_tokens": 1,
        "session_id": key_of(agent),
    }
    (await client.post("/v1/completions", json=body)).raise_for_status()


if __name__ == "__main__":
    asyncio.run(serve_bare(*sys.argv[1:]))
