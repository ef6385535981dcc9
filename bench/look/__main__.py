"""`python -m bench.look`: what it costs a daemon to tell a live stream what changes, to list what there is, and to read
the largest messages that are made to cost as much as they can.

Every agent has a due, and a prefix of 16 blocks on the device of the one engine. A look is made after nothing has
changed, after all dues have, and for a client that hears everything. The loop is `held` for as long as a turn of it
takes: that is what events, engines and the gateway wait for. Times are milliseconds of CPU time, the medians of several
looks.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from array import array
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from rich.console import Console
from rich.table import Table

from scalesim_adapters.base import Capability, Cleared, EngineInfo, MemoryKind, Stored, Tier
from scalesim_adapters.vllm.adapter import VllmAdapter
from scalesim_daemon.admin.stream import Client, Hub
from scalesim_daemon.api_queries import AgentOrder, AgentsQuery, ItemsQuery
from scalesim_daemon.door import MalformedMessage, events_in
from scalesim_daemon.driver import Driver
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.population import Memory
from scalesim_daemon.report_agents import agents_page
from scalesim_daemon.report_items import items_page
from scalesim_daemon.settings import LoraSettings, RunMode, Settings
from scalesim_daemon.view import EngineView

BLOCK, BLOCKS = 16, 16
MESSAGE = 500
LOOKS = 5


def main() -> None:
    """Measure with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.look", description=__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    given = parser.parse_args()
    table = Table("agents", "what", "ms", "held, ms", "KiB told")
    for agents in given.agents:
        with tempfile.TemporaryDirectory(prefix="look-") as folder:
            sidecar = _busy(agents, Path(folder))
            for what, seconds, held, told in asyncio.run(_rows(sidecar, agents)):
                table.add_row(
                    f"{agents:,}",
                    what,
                    f"{seconds * 1000:.1f}",
                    f"{held * 1000:.1f}",
                    f"{told / 1024:,.0f}" if told else "",
                )
            sidecar.library.close()
    for what, seconds in _largest_messages():
        table.add_row("", what, f"{seconds * 1000:.1f}", f"{seconds * 1000:.1f}", "")
    Console().print(table)


async def _rows(sidecar: Sidecar, agents: int) -> list[tuple[str, float, float, int]]:
    return [*await _looks(sidecar, agents), *await _pages(sidecar)]


async def _looks(sidecar: Sidecar, agents: int) -> list[tuple[str, float, float, int]]:
    hub = Hub(sidecar)
    kinds: dict[str, Callable[[Client, int], None]] = {
        "look: all for one who has just come": lambda client, _: setattr(client, "behind", True),
        "look: nothing has changed": lambda *_: None,
        "look: all dues have changed": lambda _, number: _say_dues(sidecar, agents, float(number)),
    }
    rows = []
    with hub.joined() as client:
        told: list[int] = []
        reading = asyncio.create_task(_read(client, told))
        for what, prepare in kinds.items():
            told.clear()
            times = []
            for number in range(LOOKS):
                prepare(client, 100 + number)
                times.append(await _timed(hub.look()))
                await asyncio.sleep(0)
            rows.append(
                (
                    what,
                    median(seconds for seconds, _ in times),
                    median(held for _, held in times),
                    sum(told) // LOOKS,
                )
            )
        client.end()
        await reading
    return rows


async def _read(client: Client, told: list[int]) -> None:
    async for message in client.lines():
        told.append(len(message))


async def _timed(work: Coroutine[Any, Any, None]) -> tuple[float, float]:
    """Return how long work takes, and the longest turn of the event loop meanwhile."""
    began = last = process_time()
    task, held = asyncio.create_task(work), 0.0
    while not task.done():
        await asyncio.sleep(0)
        now = process_time()
        held, last = max(held, now - last), now
    await task
    return last - began, held


async def _pages(sidecar: Sidecar) -> list[tuple[str, float, float, int]]:
    """Time what the API lists."""
    last = max(sidecar.population.agents)
    pages: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "/v1/agents, the nearest 100": lambda: agents_page(sidecar, AgentsQuery()),
        "/v1/agents, the last 100": lambda: agents_page(
            sidecar, AgentsQuery(offset=len(sidecar.population.agents) - 100)
        ),
        "/v1/agents, by key, after one": lambda: agents_page(
            sidecar, AgentsQuery(sort=AgentOrder.KEY, after=last[:-1])
        ),
        "/v1/items, the nearest 100": lambda: items_page(sidecar, ItemsQuery()),
    }
    rows = []
    for what, page in pages.items():
        times = [await _timed(page()) for _ in range(LOOKS)]
        rows.append((what, median(seconds for seconds, _ in times), median(held for _, held in times), 0))
    return rows


def _largest_messages() -> Iterator[tuple[str, float]]:
    """Time how long about 4 MiB are decoded, or looked at and refused."""
    head, end = b'[0,[{"type":"x","x":[', b"]}]]"
    nested = b"\x92\x00\x91\x82\xa4type\xa1x\xa1x\xdd" + (520_000).to_bytes(4, "big")
    bodies = {
        "JSON, arrays": head + b",".join(240_000 * [b"[[[[[[[[]]]]]]]]"]) + end,
        "JSON, numbers": head + b",".join(690_000 * [b"1e300"]) + end,
        "JSON, keys": head + b"{" + b",".join(b'"%07x":0' % key for key in range(340_000)) + b"}" + end,
        "msgpack, arrays": nested + 520_000 * (7 * b"\x91" + b"\x90"),
    }
    for what, body in bodies.items():
        times = []
        for _ in range(LOOKS):
            began = process_time()
            with suppress(MalformedMessage):
                events_in(body)
            times.append(process_time() - began)
        yield f"4 MiB: {what}", median(times)


def _busy(agents: int, folder: Path) -> Sidecar:
    """Return a sidecar that knows of so many agents, each with a due and a prefix on the device."""
    loras = LoraSettings(links_dir=folder / "links", staging_dir=folder / "staging")
    sidecar = Sidecar(Settings(loras=loras), LoraLibrary.open(loras), None, RunMode.OBSERVE)
    view = EngineView("one", quiet_share=0.02)
    adapter = VllmAdapter("http://127.0.0.1:9")
    driver = Driver(adapter, view, sidecar.population, sidecar.library, sidecar.wake, sidecar.record)
    sidecar.drivers["one"] = driver
    view.probed(
        EngineInfo(
            engine="vllm",
            version="0",
            incarnation="1",
            base_models=("base",),
            capabilities=dict.fromkeys(MemoryKind, Capability.NONE),
            max_model_len=1 << 20,
            block_size=BLOCK,
            device_blocks=agents * BLOCKS,
        )
    )
    view.happened(Cleared())
    opened = {
        "type": "stream.opened",
        "simulation": "sim",
        "source": "sim",
        "incarnation": 1,
        "clock": "step",
    }
    sidecar.admit("sim", None, [opened])
    _say_dues(sidecar, agents, 0.0)
    for number in range(agents):
        tokens, first = _prefix(number), number * BLOCKS
        hashes = tuple(range(first, first + BLOCKS))
        view.happened(Stored(hashes, None, tokens, BLOCK, Tier.DEVICE, f"sim/a{number}"))
        view.bound(f"sim/a{number}", Memory(token_ids=array("I", tokens)))
    return sidecar


def _prefix(number: int) -> tuple[int, ...]:
    return (number, *range(BLOCK * BLOCKS - 1))


def _say_dues(sidecar: Sidecar, agents: int, later: float) -> None:
    for start in range(0, agents, MESSAGE):
        numbers: Sequence[int] = range(start, min(start + MESSAGE, agents))
        until = ({"agent": f"a{number}", "until": 1.0 + later + number} for number in numbers)
        sidecar.admit("sim", None, [{"type": "agent.activity_started", **one} for one in until])


if __name__ == "__main__":
    main()
