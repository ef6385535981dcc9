"""The due board in Redis: written off the hot path, disposable, rebuilt whenever Redis was away.

`ss:{simulation}:due:<clock>` is a sorted set of agents by due, `ss:{simulation}:clock` a hash (clock, now,
pace) and `ss:{simulation}:agent:<id>` a hash (confidence, basis, items as a JSON list); `ss:decisions` is a
capped stream, and `ss:mirror:<id>` is there as long as Redis has what one daemon wrote. The braces are part of the
keys: they keep a simulation's keys in one cluster slot.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import Any, cast

import msgspec
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.backoff import ExponentialWithJitterBackoff

from scalesim_client.events import CLOCK_KINDS, ClockKind
from scalesim_daemon.board import DueRecord
from scalesim_daemon.redis_client import AWAY, heed, look, open_client

FLUSH_SECONDS = 0.02
CHUNK = 500
HEARTBEAT_SECONDS = 1.0
KEEP_SECONDS = 24 * 3600
RESTATE_SECONDS = 3600.0
KEPT_LAGS = 10_000
KEPT_DECISIONS = 10_000
DECISIONS_KEY = "ss:decisions"

# KEYS: a simulation's prefix. ARGV: seconds to keep, the clock kinds, and as one text agent, clock, due, confidence,
# basis and items of each agent, where an empty clock means that nothing is foreseen. So 500 agents are a command of
# three arguments: the client puts arguments and commands together one by one, in Python, and holds up the event loop.
_WRITE = """
local prefix, keep, kinds = KEYS[1], ARGV[1], cjson.decode(ARGV[2])
for _, said in ipairs(cjson.decode(ARGV[3])) do
  local agent, clock, due, confidence, basis, items = unpack(said)
  local key = prefix .. 'agent:' .. agent
  for _, kind in ipairs(kinds) do
    if kind ~= clock then redis.call('ZREM', prefix .. 'due:' .. kind, agent) end
  end
  if clock == '' then
    redis.call('DEL', key)
  else
    redis.call('ZADD', prefix .. 'due:' .. clock, due, agent)
    redis.call('HSET', key, 'confidence', confidence, 'basis', basis, 'items', items)
    redis.call('EXPIRE', key, keep)
  end
end
for _, kind in ipairs(kinds) do redis.call('EXPIRE', prefix .. 'due:' .. kind, keep) end
"""
# KEYS: a simulation's prefix. ARGV: seconds to keep, the clock kinds.
_CLOSE = """
local prefix, keep = KEYS[1], ARGV[1]
redis.call('EXPIRE', prefix .. 'clock', keep)
for _, kind in ipairs(cjson.decode(ARGV[2])) do
  local due = prefix .. 'due:' .. kind
  redis.call('EXPIRE', due, keep)
  for _, agent in ipairs(redis.call('ZRANGE', due, 0, -1)) do
    redis.call('EXPIRE', prefix .. 'agent:' .. agent, keep)
  end
end
"""

log = structlog.get_logger(__name__)


def prefix_of(simulation: str) -> str:
    """Return what the keys of a simulation start with. A closing brace in its name is escaped: it would
    end the hash tag and could make two simulations share a key."""
    return "ss:{" + simulation.replace("%", "%25").replace("}", "%7D") + "}:"


class Mirror:
    """Writes what changes to Redis, at most every `FLUSH_SECONDS`, newest state per agent.

    `mark`, `clock`, `close_stream` and `decision` return at once and never fail; they belong to the event
    loop that `run` runs in. What is written expires 24 h after its stream's end, or the daemon's. Where it is not
    `alone`, other daemons write of the same simulations, and what isn't known here isn't removed.
    """

    def __init__(self, url: str, *, cluster: bool = False, alone: bool = True) -> None:
        self._alone = alone
        # No retries inside the client: Redis may be empty after an outage, so a new connection restates all.
        self._client = open_client(url, cluster=cluster, on_connect=self._on_connect)
        self._write_script = self._client.register_script(_WRITE)
        self._close_script = self._client.register_script(_CLOSE)
        self._connections = 0
        self._failures = 0
        self._marks: dict[str, tuple[DueRecord | None, float | None]] = {}
        self._writing: dict[str, tuple[DueRecord | None, float | None]] = {}
        self._clocks: dict[str, tuple[ClockKind, float, float]] = {}
        self._ticked: set[str] = set()
        self._closed: set[str] = set()
        self._decisions: deque[str] = deque()
        self._lags: deque[float] = deque(maxlen=KEPT_LAGS)
        self._dirty = asyncio.Event()
        self._flushed = asyncio.Event()
        self._restated = False
        self._presence = f"ss:mirror:{secrets.token_hex(8)}"
        self._present = False
        self.connected = False
        self.written = 0
        self.decisions_dropped = 0

    # What the daemon says

    def mark(self, agent: str, record: DueRecord | None) -> None:
        """Have the record of an agent (`<simulation>/<agent>`) written; None removes it."""
        waiting = self._marks.get(agent)
        since = waiting[1] if waiting is not None else None
        self._marks[agent] = (record, monotonic() if since is None else since)
        self._dirty.set()

    def clock(self, simulation: str, clock: ClockKind, now: float, pace: float) -> None:
        """Have a clock's value, and its wall seconds per unit, written."""
        self._clocks[simulation] = (clock, now, pace)
        self._ticked.add(simulation)
        self._dirty.set()

    def close_stream(self, simulation: str) -> None:
        """Let the simulation's keys expire in 24 h. Its agents' records stay as last written until then,
        even where their removal was marked just now."""
        for agent in [key for key, (record, _) in self._marks.items() if record is None]:
            if agent.partition("/")[0] == simulation:
                del self._marks[agent]
        self._clocks.pop(simulation, None)
        self._closed.add(simulation)
        self._dirty.set()

    def decision(self, record: Mapping[str, Any]) -> None:
        """Have a decision appended to the stream, as JSON in its field `record`; an outage may double it."""
        if len(self._decisions) == KEPT_DECISIONS:
            self._decisions.popleft()
            self.decisions_dropped += 1
        self._decisions.append(json.dumps(record, default=str))
        self._dirty.set()

    # What people ask

    @property
    def pending(self) -> int:
        """How many agents' newest state isn't known to be in Redis."""
        return len(self._marks) + len(self._writing)

    @property
    def lag_p99(self) -> float:
        """Seconds from a mark until it was written: the 99th percentile of the last 10,000 written."""
        lags = sorted(self._lags)
        return lags[math.ceil(0.99 * len(lags)) - 1] if lags else 0.0

    async def drained(self) -> None:
        """Wait until all that was said is written."""
        while not self._restated or self.pending or self._ticked or self._closed or self._decisions:
            self._flushed.clear()
            await self._flushed.wait()

    # Writing

    async def run(self, full_state: Callable[[], Mapping[str, DueRecord]]) -> None:
        """Write until cancelled. `full_state` gives every agent's record, for whenever Redis may hold
        something else; it must not block."""
        backoff = ExponentialWithJitterBackoff(base=0.05, cap=2.0)
        try:
            while True:
                heed()
                try:
                    await self._follow(full_state)
                except AWAY as error:
                    if self.connected or not self._failures:
                        log.warning("Redis is away, going on without it", error=str(error))
                    self.connected = False
                    self._failures += 1
                    await asyncio.sleep(backoff.compute(self._failures))
        finally:
            await self._client.aclose()

    async def _on_connect(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        self._connections += 1
        self._restated = False

    async def _follow(self, full_state: Callable[[], Mapping[str, DueRecord]]) -> None:
        """Restate everything, then what changes, until the connection is a new one, Redis has lost what it had, or an
        hour has passed."""
        if self._present and not await self._is_there():
            log.warning("Redis has lost what it had: it is told again")
        await look(self._client)
        connection, until = self._connections, monotonic() + RESTATE_SECONDS
        await self._client.set(self._presence, "", ex=KEEP_SECONDS)
        self._present = True
        await self._restate(full_state())
        looked = monotonic()
        while self._connections == connection and monotonic() < until:
            await self._flush()
            heed()
            # The client may have connected anew meanwhile, to a Redis that is empty.
            self._restated = self._connections == connection
            self._flushed.set()
            if not self.connected:
                log.info("Redis is in step", agents=self.written)
            self.connected, self._failures = True, 0
            await asyncio.sleep(FLUSH_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._dirty.wait()
            if monotonic() - looked >= HEARTBEAT_SECONDS:
                looked = monotonic()
                await look(self._client)
                if not await self._is_there():
                    self._restated = False
                    return

    async def _is_there(self) -> bool:
        return bool(await self._client.exists(self._presence))

    async def _restate(self, state: Mapping[str, DueRecord]) -> None:
        """Mark all of `state`, and the removal of what else Redis has of its simulations. Newer marks win."""
        simulations = {agent.partition("/")[0] for agent in state} | self._clocks.keys()
        for simulation in simulations if self._alone else ():
            for kind in CLOCK_KINDS:
                written = await self._client.zrange(f"{prefix_of(simulation)}due:{kind}", 0, -1)
                for agent in cast(list[str], written):
                    key = f"{simulation}/{agent}"
                    if key not in state:
                        self._marks.setdefault(key, (None, None))
        for key, record in state.items():
            self._marks.setdefault(key, (record, None))
        self._ticked |= self._clocks.keys()

    async def _flush(self) -> None:
        self._dirty.clear()
        for _ in range(math.ceil(len(self._marks) / CHUNK)):
            await self._write_marks()
        await self._write_clocks()
        while self._decisions:
            await self._write_decisions()

    async def _write_marks(self) -> None:
        batch = self._writing = dict(islice(self._marks.items(), CHUNK))
        for agent in batch:
            del self._marks[agent]
        simulations: dict[str, list[tuple[str, ...]]] = {}
        for agent, (record, _) in batch.items():
            simulation, _, name = agent.partition("/")
            simulations.setdefault(simulation, []).append(_said(name, record))
        try:
            for simulation, said in simulations.items():
                arguments = KEEP_SECONDS, json.dumps(CLOCK_KINDS), msgspec.json.encode(said)
                await self._write_script(keys=[_utf8(prefix_of(simulation))], args=arguments)
        except BaseException:
            for agent, (record, since) in batch.items():
                newer = self._marks.get(agent)
                self._marks[agent] = (record if newer is None else newer[0], since)
            raise
        finally:
            self._writing = {}
        now = monotonic()
        self._lags.extend(now - since for _, since in batch.values() if since is not None)
        self.written += len(batch)

    async def _write_clocks(self) -> None:
        ticked, closed = frozenset(self._ticked), frozenset(self._closed)
        if not ticked and not closed:
            return
        pipeline = self._client.pipeline(transaction=False)
        for simulation in ticked & self._clocks.keys():
            clock, now, pace = self._clocks[simulation]
            key = _utf8(f"{prefix_of(simulation)}clock")
            pipeline.hset(key, mapping={"clock": clock, "now": now, "pace": pace})
            pipeline.expire(key, KEEP_SECONDS)
        written = {simulation: self._clocks.get(simulation) for simulation in ticked}
        await pipeline.execute()
        self._ticked -= {
            simulation for simulation in ticked if self._clocks.get(simulation) == written[simulation]
        }
        for simulation in closed:
            await self._close_script(
                keys=[_utf8(prefix_of(simulation))], args=[KEEP_SECONDS, json.dumps(CLOCK_KINDS)]
            )
        self._closed -= closed

    async def _write_decisions(self) -> None:
        batch, dropped = list(islice(self._decisions, CHUNK)), self.decisions_dropped
        pipeline = self._client.pipeline(transaction=False)
        for record in batch:
            pipeline.xadd(DECISIONS_KEY, {"record": record}, maxlen=KEPT_DECISIONS, approximate=True)
        await pipeline.execute()
        for _ in range(len(batch) - (self.decisions_dropped - dropped)):
            self._decisions.popleft()


def _said(agent: str, record: DueRecord | None) -> tuple[str, ...]:
    """One agent's part of what the script is told; a due that is no number counts as none."""
    if record is None or math.isnan(record.due):
        return _text(agent), "", "", "", "", ""
    items = json.dumps(list(record.items)) if record.items else "[]"
    due, confidence = repr(record.due), repr(record.confidence)
    return _text(agent), record.clock, due, confidence, _text(record.basis), items


def _text(text: str) -> str:
    return text if text.isascii() else _utf8(text).decode()


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")
