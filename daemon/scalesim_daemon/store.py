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
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import Any, TypeVar, cast

import msgspec
import structlog
from redis.asyncio.connection import AbstractConnection

from scalesim_client.events import CLOCK_KINDS, ClockKind
from scalesim_daemon.board import DueRecord
from scalesim_daemon.redis_client import AWAY, heed, look, open_client, pause

FLUSH_SECONDS = 0.02
CHUNK = 1000
ANSWER_SECONDS = 5.0
HEARTBEAT_SECONDS = 1.0
KEEP_SECONDS = 24 * 3600
RESTATE_SECONDS = 3600.0
KEPT_LAGS = 10_000
KEPT_DECISIONS = 10_000
DECISIONS_KEY = "ss:decisions"

# KEYS: one in the slot, and maybe one whose presence is told. ARGV: seconds to keep, how many decisions to keep, their
# key, the clock kinds, and as one text what is said. That is of each simulation its keys' prefix, its agents, the
# fields of its clock where that has ticked, and whether its stream was closed; then decisions. Of an agent it is said
# its name, clock, due, confidence, basis and items, where an empty clock means that nothing is foreseen. All of it is
# one command, since the client puts arguments and commands together one by one, in Python, and holds up the event
# loop.
_WRITE = """
local keep, kept, decisions, kinds = ARGV[1], ARGV[2], ARGV[3], cjson.decode(ARGV[4])
local simulations, decided = unpack(cjson.decode(ARGV[5]))
for _, simulation in ipairs(simulations) do
  local prefix, agents, ticked, closed = unpack(simulation)
  for _, said in ipairs(agents) do
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
  if ticked[1] then redis.call('HSET', prefix .. 'clock', unpack(ticked)) end
  redis.call('EXPIRE', prefix .. 'clock', keep)
  for _, kind in ipairs(kinds) do
    local due = prefix .. 'due:' .. kind
    redis.call('EXPIRE', due, keep)
    if closed then
      for _, agent in ipairs(redis.call('ZRANGE', due, 0, -1)) do
        redis.call('EXPIRE', prefix .. 'agent:' .. agent, keep)
      end
    end
  end
end
for _, record in ipairs(decided) do
  redis.call('XADD', decisions, 'MAXLEN', '~', kept, '*', 'record', record)
end
return KEYS[2] and redis.call('EXPIRE', KEYS[2], keep)
"""
_KINDS = json.dumps(CLOCK_KINDS)

_Mark = tuple[DueRecord | None, float | None]
_Clock = tuple[ClockKind, float, float]
_Simulation = tuple[str, list[tuple[str, ...]], tuple[str, ...], bool]
"""What the script is told of one."""
_Answer = TypeVar("_Answer")

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
        # Nor a limit of time for one server, but `_answer`'s: the client's makes a task of each message that it sends,
        # and that takes three turns of a loop whose turns may be long.
        self._cluster = cluster
        limit = ANSWER_SECONDS if cluster else None
        self._client = open_client(url, cluster=cluster, answer_seconds=limit, on_connect=self._on_connect)
        self._connections = 0
        self._failures = 0
        self._marks: dict[str, _Mark] = {}
        self._writing: dict[str, _Mark] = {}
        self._clocks: dict[str, _Clock] = {}
        self._ticked: set[str] = set()
        self._closed: set[str] = set()
        self._decisions: deque[str] = deque()
        self._lags: deque[float] = deque(maxlen=KEPT_LAGS)
        self._dirty = asyncio.Event()
        self._flushed = asyncio.Event()
        self._restated = False
        self._presence = f"ss:mirror:{secrets.token_hex(8)}"
        self._present = False
        self._there = False
        self._looked = 0.0
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
        try:
            while True:
                heed()
                try:
                    await self._follow(full_state)
                except AWAY as error:
                    if self.connected or not self._failures:
                        why = str(error) or type(error).__name__
                        log.warning("Redis is away, going on without it", error=why)
                    self.connected = False
                    self._failures += 1
                    self._leave_to_restating()
                    await asyncio.sleep(pause(self._failures))
        finally:
            await self._client.aclose()

    async def _on_connect(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        self._connections += 1
        self._restated = False

    async def _follow(self, full_state: Callable[[], Mapping[str, DueRecord]]) -> None:
        """Restate everything, then what changes, until the connection is a new one, Redis has lost what it had, or an
        hour has passed."""
        if self._present:
            await self._look()
            if not self._there:
                log.warning("Redis has lost what it had: it is told again")
        connection, until = self._connections, monotonic() + RESTATE_SECONDS
        await _answer(self._client.set(self._presence, "", ex=KEEP_SECONDS))
        self._present = self._there = True
        await self._restate(full_state())
        self._looked = monotonic()
        while self._there and self._connections == connection and monotonic() < until:
            began = monotonic()
            await self._flush()
            heed()
            # The client may have connected anew meanwhile, to a Redis that is empty.
            self._restated = self._there and self._connections == connection
            self._flushed.set()
            if not self.connected:
                log.info("Redis is in step", agents=self.written)
            self.connected, self._failures = True, 0
            await asyncio.sleep(began + FLUSH_SECONDS - monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._dirty.wait()
            if monotonic() - self._looked >= HEARTBEAT_SECONDS:
                await self._look()
        self._restated = False

    async def _look(self) -> None:
        """See whether Redis has what was written; the answer to each write tells that, too. Its sign lasts as long as
        what was written last: where Redis's clock was behind meanwhile, both are over at once when it is set right."""
        await _answer(look(self._client))
        self._there = bool(await _answer(self._client.expire(self._presence, KEEP_SECONDS)))
        self._looked = monotonic()

    async def _restate(self, state: Mapping[str, DueRecord]) -> None:
        """Mark all of `state`, and the removal of what else Redis has of its simulations. Newer marks win."""
        simulations = {agent.partition("/")[0] for agent in state} | self._clocks.keys()
        for simulation in simulations if self._alone else ():
            for kind in CLOCK_KINDS:
                written = await _answer(self._client.zrange(f"{prefix_of(simulation)}due:{kind}", 0, -1))
                for agent in cast(list[str], written):
                    key = f"{simulation}/{agent}"
                    if key not in state:
                        self._marks.setdefault(key, (None, None))
        for key, record in state.items():
            self._marks.setdefault(key, (record, None))
        self._ticked |= self._clocks.keys()

    def _leave_to_restating(self) -> None:
        """While Redis is away agents come and go. Who is gone is found among what Redis has of simulations that are
        known when all is restated: it needn't be kept here until then."""
        if self._alone:
            gone = [agent for agent, (record, _) in self._marks.items() if record is None]
            for agent in gone:
                if agent.partition("/")[0] in self._clocks:
                    del self._marks[agent]

    async def _flush(self) -> None:
        self._dirty.clear()
        most = max(len(self._marks), len(self._decisions), 1)
        for _ in range(math.ceil(most / CHUNK)):
            await self._write()

    async def _write(self) -> None:
        """Write of what waits as much as goes in one message: an answer takes turns of the event loop to come, which
        are long where much is taken in."""
        batch = self._writing = dict(islice(self._marks.items(), CHUNK))
        for agent in batch:
            del self._marks[agent]
        clocks = {simulation: self._clocks.get(simulation) for simulation in self._ticked}
        closed = frozenset(self._closed)
        decisions, dropped = list(islice(self._decisions, CHUNK)), self.decisions_dropped
        try:
            await self._send(batch, clocks, closed, decisions)
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
        self._ticked -= {one for one, clock in clocks.items() if self._clocks.get(one) == clock}
        self._closed -= closed
        for _ in range(len(decisions) - (self.decisions_dropped - dropped)):
            self._decisions.popleft()

    async def _send(
        self,
        marks: Mapping[str, _Mark],
        clocks: Mapping[str, _Clock | None],
        closed: Collection[str],
        decisions: Sequence[str],
    ) -> None:
        ticked = {simulation for simulation, clock in clocks.items() if clock is not None}
        said: dict[str, list[tuple[str, ...]]] = {simulation: [] for simulation in (*ticked, *closed)}
        for agent, (record, _) in marks.items():
            simulation, _, name = agent.partition("/")
            said.setdefault(simulation, []).append(_said(name, record))
        simulations = [
            (_text(prefix_of(simulation)), agents, _fields(clocks.get(simulation)), simulation in closed)
            for simulation, agents in said.items()
        ]
        if not simulations and not decisions:
            return
        if self._cluster:
            pipeline = self._client.pipeline()
            for one in simulations:
                pipeline.eval(*_command([one], ()))
            if decisions:
                pipeline.eval(*_command((), decisions))
            pipeline.expire(self._presence, KEEP_SECONDS)
            there = (await _answer(pipeline.execute()))[-1]
        else:
            there = await _answer(self._client.eval(*_command(simulations, decisions, self._presence)))
        self._there, self._looked = bool(there), monotonic()


def _command(simulations: Sequence[_Simulation], decisions: Sequence[str], *asked: str) -> tuple[Any, ...]:
    """Return the script and its arguments. Of the keys that it writes one is named."""
    key = _utf8(simulations[0][0]) if simulations else DECISIONS_KEY
    said = msgspec.json.encode((simulations, decisions))
    return _WRITE, 1 + len(asked), key, *asked, KEEP_SECONDS, KEPT_DECISIONS, DECISIONS_KEY, _KINDS, said


async def _answer(asked: Awaitable[_Answer]) -> _Answer:
    """Await what Redis is asked. Raises `TimeoutError`, and the connection is gone with it."""
    async with asyncio.timeout(ANSWER_SECONDS):
        return await asked


def _fields(clock: _Clock | None) -> tuple[str, ...]:
    if clock is None:
        return ()
    kind, now, pace = clock
    return "clock", kind, "now", repr(now), "pace", repr(pace)


def _said(agent: str, record: DueRecord | None) -> tuple[str, ...]:
    """One agent's part of what the script is told; a due that is no number counts as none."""
    if record is None or math.isnan(record.due):
        return _text(agent), "", "", "", "", ""
    items = msgspec.json.encode(record.items).decode() if record.items else "[]"
    due, confidence = repr(record.due), repr(record.confidence)
    return _text(agent), record.clock, due, confidence, _text(record.basis), items


def _text(text: str) -> str:
    return text if text.isascii() else _utf8(text).decode()


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")
