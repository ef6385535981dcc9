"""What must hold: at every look while faults happen, and once they are healed."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from time import monotonic
from typing import Any, NamedTuple

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.chaos.disks import files_below
from bench.chaos.engines import HOST_PLACES, SLOTS
from bench.chaos.play import Agent, Play
from bench.chaos.schedule import Kind
from bench.chaos.truth import NotTold, Truth
from bench.chaos.world import STAGING_BYTES, TIER_BYTES, World
from scalesim_daemon.intents import INTENT_KEY, PIN

LOOK_SECONDS = 0.15
ZMQ_THREAD = "ZMQbg"
DAEMON_ENDS = {Kind.DAEMON_KILLED}
REDIS_LOSES = {Kind.REDIS_KILLED, Kind.REDIS_FLUSHED, Kind.REDIS_FAILED_OVER}
BUDGET, DIVERGENCE, LEAK = "budget", "divergence", "leak"


class Problem(NamedTuple):
    """What doesn't hold."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Level:
    """What a daemon's process holds: descriptors by what they are, ZeroMQ's threads, and asyncio tasks."""

    held: Mapping[str, int]

    def most(self, other: Level) -> Level:
        """Return the greater of both, one by one."""
        return Level(
            {key: max(self.held.get(key, 0), other.held.get(key, 0)) for key in {*self.held, *other.held}}
        )

    def above(self, other: Level) -> Iterator[str]:
        """Yield what this one has more of."""
        for key, count in self.held.items():
            if count > other.held.get(key, 0):
                yield f"{count} {key}, {other.held.get(key, 0)} before"


async def level(world: World) -> Level:
    """Look at the daemon's process. Raises `OSError`, `httpx.HTTPError`, and `LookupError` where it says nothing."""
    proc = Path(f"/proc/{world.daemon.pids()[0]}")
    held: Counter[str] = Counter()
    for link in (proc / "fd").iterdir():
        try:
            held[_sort(str(link.readlink()))] += 1
        except FileNotFoundError:
            continue  # closed meanwhile
    threads = ((task / "comm").read_text() for task in (proc / "task").iterdir())
    held["ZeroMQ threads"] = sum(ZMQ_THREAD in name for name in threads)
    text = (await world.api.get(f"{world.daemon.api}/metrics")).raise_for_status().text
    tasks = [line for line in text.splitlines() if line.startswith("scalesim_tasks ")]
    held["asyncio tasks"] = int(float(tasks[0].split()[1]))
    return Level(held)


def _sort(target: str) -> str:
    for start in ("socket:", "pipe:", "anon_inode:"):
        if target.startswith(start):
            return {"socket:": "sockets", "pipe:": "pipes"}.get(start, target)
    return "files"


# While it happens


class Sampler:
    """Looks at budgets again and again. What a daemon held at rest, before the first fault, is kept as `before`."""

    def __init__(self, world: World) -> None:
        self.before = Level({})
        self.looks = 0
        self.found: dict[str, None] = {}
        self._world = world

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            for text in [text async for text in self._broken()]:
                self.found[text] = None
            await asyncio.sleep(LOOK_SECONDS)

    async def rest(self, seconds: float) -> None:
        """Learn for so long what the daemon holds while nothing is asked of it."""
        until = monotonic() + seconds
        while monotonic() < until:
            with suppress(OSError, httpx.HTTPError, LookupError):
                self.before = self.before.most(await level(self._world))
            await asyncio.sleep(LOOK_SECONDS)

    async def _broken(self) -> AsyncIterator[str]:
        staged = _size(self._world.shm / "staging")
        if staged > STAGING_BYTES:
            yield f"{staged} bytes staged of {STAGING_BYTES}"
        tier = _size(self._world.shm / "tier")
        if tier > TIER_BYTES:
            yield f"{tier} bytes of host tier of {TIER_BYTES}"
        try:
            engines, plan = (
                await self._world.get("/v1/engines"),
                await self._world.get("/v1/plan", limit=1000),
            )
        except (httpx.HTTPError, ValueError):
            return
        self.looks += 1
        for engine in engines["engines"]:
            for text in _over(engine):
                yield text
        for planned in plan["engines"]:
            for text in _planned_over(planned, engines["engines"][0]["blocks"]["capacity"]):
                yield text


def _over(engine: Mapping[str, Any]) -> Iterator[str]:
    loras, blocks = engine["loras"], engine["blocks"]
    for tier, places in (("device", SLOTS), ("host", HOST_PLACES)):
        if len(loras[tier]) > places:
            yield f"{len(loras[tier])} LoRAs in {places} {tier} places"
    if None not in (blocks["resident"], blocks["capacity"]) and blocks["resident"] > blocks["capacity"]:
        yield f"{blocks['resident']} blocks resident of {blocks['capacity']}"


def _planned_over(planned: Mapping[str, Any], capacity: int | None) -> Iterator[str]:
    loads = [step for step in planned["blocks"] if step["action"] == "load"]
    claimed = sum(step["stop"] - step["start"] for step in loads)
    if capacity is not None and claimed > capacity:
        yield f"a plan loads {claimed} blocks of {capacity}"


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; what goes meanwhile counts as gone."""
    below = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    total = 0
    for file in [path, *below]:
        with suppress(OSError):
            status = file.lstat()
            total += status.st_size if S_ISREG(status.st_mode) else 0
    return total


# When it is over


async def problems(world: World, play: Play, before: Level) -> list[Problem]:
    """Return what doesn't hold now that everything is healed; nothing where all is as it should be."""
    try:
        found = [problem async for problem in _unsettled(world, play)]
        if not found:
            found = [problem async for problem in _diverging(world, play)]
        if not found:
            found = [problem async for problem in _leaking(world, before)]
    except (httpx.HTTPError, ValueError, LookupError, OSError, NotTold, RedisError) as error:
        return [Problem(DIVERGENCE, f"not to be asked: {type(error).__name__}: {error}")]
    return found


async def _unsettled(world: World, play: Play) -> AsyncIterator[Problem]:
    ready = (await world.api.get(f"{world.daemon.api}/ready")).json()
    for reason in ready["reasons"]:
        yield Problem(DIVERGENCE, f"not ready: {reason}")
    sources = await world.get("/v1/sources")
    ours = [source for source in sources["sources"] if source["source"] == play.simulation]
    if not ours or ours[0]["stale"] or ours[0]["clock"] is None or ours[0]["clock"]["now"] != play.step:
        yield Problem(DIVERGENCE, f"the feed has not converged: step {play.step}, {ours}")


async def _diverging(world: World, play: Play) -> AsyncIterator[Problem]:
    """Hold the daemon's view against the truth, in a moment in which the truth stands still."""
    truth = await world.engine.truth(world.api)
    engine = (await world.get("/v1/engines"))["engines"][0]
    page = await world.get("/v1/agents", limit=1000, simulation=play.simulation)
    places = {item["item"]: item for item in (await world.get("/v1/items", limit=1000, kind="lora"))["items"]}
    dues, pins = await _mirrored(world, play)
    if await world.engine.truth(world.api) != truth:
        yield Problem(DIVERGENCE, "the engine's memory never stands still")
        return
    for text in (
        *_blocks_differ(engine, page["agents"], truth, play),
        *_loras_differ(engine, places, truth, play),
        *_agents_differ(page["agents"], play),
        *mirror_differs(page["agents"], dues, play.step),
        *_pins_differ((await world.get("/v1/pins"))["pins"], pins, world),
    ):
        yield Problem(DIVERGENCE, text)


def _blocks_differ(
    engine: Mapping[str, Any], shown: list[dict[str, Any]], truth: Truth, play: Play
) -> Iterator[str]:
    if not engine["known"]:
        return
    if engine["blocks"]["resident"] != truth.resident:
        yield f"{engine['blocks']['resident']} blocks resident in the view, {truth.resident} in the engine"
    agents = {f"{play.simulation}/{agent.name}": agent for agent in play.agents}
    for one in shown:
        for known in one["engines"].values():
            there = _leading(truth, agents[one["key"]], known["blocks"])
            if known["resident_blocks"] != there:
                yield f"{one['key']}: {known['resident_blocks']} blocks in the view, {there} in the engine"


def _leading(truth: Truth, agent: Agent, blocks: int) -> int:
    return truth.leading(agent.prefix[: blocks * truth.block_size], agent.lora)


def _loras_differ(
    engine: Mapping[str, Any], places: Mapping[str, Any], truth: Truth, play: Play
) -> Iterator[str]:
    seen = set(engine["loras"]["registered"])
    if seen != set(truth.registered):
        yield f"LoRAs {sorted(seen)} in the view, {sorted(truth.registered)} in the engine"
    if missing := play.loras - set(truth.registered):
        yield f"LoRAs {sorted(missing)} are bound, and the engine wasn't given them"
    if truth.device is None or truth.host is None:
        return
    for name, item in places.items():
        there = name in truth.registered and (name in truth.device or name in truth.host)
        if item["residency"] not in ("unknown", "loading") and (item["residency"] == "resident") != there:
            yield f"LoRA {name}: {item['residency']} in the view, {'there' if there else 'not there'} in the engine"


def _agents_differ(shown: list[dict[str, Any]], play: Play) -> Iterator[str]:
    names = {one["key"].partition("/")[2] for one in shown}
    if lacking := {agent.name for agent in play.agents} - names:
        yield f"agents {sorted(lacking)} are not known"
    if calling := sorted(one["key"] for one in shown if one["in_flight"]):
        yield f"{calling} call no more, and count as calling"
    bound = {agent.name: agent.lora for agent in play.agents if agent.lora is not None}
    for one in shown:
        lora = bound.get(one["key"].partition("/")[2])
        if lora is not None and f"lora:{lora}" not in one["items"]:
            yield f"{one['key']} has bound {lora}, which is not known"


async def _mirrored(world: World, play: Play) -> tuple[dict[str, float], set[str]]:
    """Return the dues and the pins that Redis has."""
    async with Redis.from_url(world.store_url, decode_responses=True, socket_timeout=5) as client:
        written: Any = await client.zrange(f"ss:{{{play.simulation}}}:due:step", 0, -1, withscores=True)
        fields: Any = await client.hkeys(INTENT_KEY)
    dues = {f"{play.simulation}/{agent}": due for agent, due in written}
    return dues, {field.removeprefix(PIN) for field in fields if field.startswith(PIN)}


def mirror_differs(shown: list[dict[str, Any]], dues: Mapping[str, float], step: int) -> Iterator[str]:
    """Yield where Redis has other agents than the daemon, or other dues; who is overdue is shown no distance. Pure."""
    foreseen = {one["key"] for one in shown if one["basis"] is not None}
    if foreseen != dues.keys():
        yield f"Redis has the dues of {sorted(dues)}, the daemon those of {sorted(foreseen)}"
    if any(not math.isfinite(due) for due in dues.values()):
        yield "Redis has a due that is no number"
    for one in shown:
        if one["distance"] and not math.isclose(step + one["distance"], dues.get(one["key"], math.nan)):
            yield f"{one['key']} is due at {step + one['distance']:g}, in Redis at {dues.get(one['key'])}"


def _pins_differ(held: list[dict[str, Any]], kept: set[str], world: World) -> Iterator[str]:
    """An operator's word holds, unless the daemon and all that Redis had went in one schedule."""
    if (names := {pin["key"] for pin in held}) != kept:
        yield f"Redis keeps the pins of {sorted(kept)}, the daemon holds those of {sorted(names)}"
    kinds = {fault.kind for fault in world.schedule.faults}
    loses = REDIS_LOSES if world.pair is not None else REDIS_LOSES | {Kind.DISK_FULL}
    if not names and not (kinds & DAEMON_ENDS and kinds & loses):
        yield "the operator's pin is forgotten"


async def _leaking(world: World, before: Level) -> AsyncIterator[Problem]:
    for text in (await level(world)).above(before):
        yield Problem(LEAK, text)
    for path in files_below(world.disk):
        if path.startswith("links/.work/") or path.startswith("valkey/temp-"):
            yield Problem(LEAK, f"{path} is left")
    for path in files_below(world.shm):
        if path.endswith(".part"):
            yield Problem(LEAK, f"{path} is left in shared memory")
