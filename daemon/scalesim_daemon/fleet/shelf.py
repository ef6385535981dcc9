"""What daemons share, in Redis: keys, scripts and the bell that tells of changes. No policy is here.

All keys of a simulation lie in one slot:

- `ss:{simulation}:owners` hash, source to `incarnation fence number daemon`: who speaks for it, by which word
- `ss:{simulation}:heads` hash, source to `Head`
- `ss:{simulation}:told:<source>` hash, agent to `Told`
- `ss:{simulation}:placed` hash, agent to engine
- `ss:{simulation}:changes` capped stream of what has changed in these: `s`, `o` and `w` (source, owner, `Word`; without
  `w` the source has ended), `p` (agents to engines, an empty one for none), or `v` and `d` (agents to the engines that
  served them, and who saw it)

and outside of them `ss:simulations` (sorted set by the wall time at which one was last spoken for), `ss:daemons` (hash,
name to a count that goes up), `ss:engines` (hash, name to `Engine`) and `ss:content:{<hash>}`, which is there for a
minute after it was asked for. Every change rings the channel `ss:bell`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from time import time
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from scalesim_daemon.fleet.mishaps import Mishaps
from scalesim_daemon.fleet.words import (
    Engine,
    Head,
    Owner,
    Told,
    Word,
    pack,
    read_engine,
    read_head,
    read_told,
)
from scalesim_daemon.redis_client import heed, one_server, open_client
from scalesim_daemon.store import prefix_of

KEEP_SECONDS = 24 * 3600
KEPT_CHANGES = 500
CONTENT_SECONDS = 60
PAGE = 100
NOTHING_YET = b"0-0"
BELL = "ss:bell"
SIMULATIONS, DAEMONS, ENGINES = "ss:simulations", "ss:daemons", "ss:engines"

# KEYS: owners. ARGV: seconds to keep, source, incarnation, fence (0 for one that is new here), daemon. Returns who
# speaks for the source from now on. A new fence is later than all before it, also where Redis has lost those.
_CLAIM = """
local known = redis.call('HGET', KEYS[1], ARGV[2])
local incarnation, fence = tonumber(ARGV[3]), tonumber(ARGV[4])
local last, number = fence, 0
local i, f, n = string.match(known or '', '^(%d+) (%d+) (%d+) ')
if i and tonumber(i) < 2^53 and tonumber(f) < 2^53 then
  local later = fence > 0 and tonumber(f) > fence
  if tonumber(i) > incarnation or (tonumber(i) == incarnation and later) then return known end
  last, number = math.max(fence, tonumber(f)), n
end
local now = redis.call('TIME')
local millis = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local mine = ARGV[3] .. ' ' .. string.format('%.0f', math.max(last + 1, millis)) .. ' ' .. number .. ' ' .. ARGV[5]
redis.call('HSET', KEYS[1], ARGV[2], mine)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return mine
"""
# KEYS: owners, heads, told, changes, placed. ARGV: seconds to keep, most changes, bell, ring, source, owner as it was
# written last, owner from now on, head, word, then agents, each with what is told of it, empty for one that is gone.
# Without a head the source has ended. Returns 1, or who speaks for the source instead, empty for nobody.
_SAY = """
local known = redis.call('HGET', KEYS[1], ARGV[5])
if known ~= ARGV[6] then return known or '' end
if ARGV[8] == '' then
  redis.call('HDEL', KEYS[1], ARGV[5])
  redis.call('HDEL', KEYS[2], ARGV[5])
  redis.call('UNLINK', KEYS[3])
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[2], '*', 's', ARGV[5], 'o', ARGV[7])
else
  redis.call('HSET', KEYS[1], ARGV[5], ARGV[7])
  redis.call('HSET', KEYS[2], ARGV[5], ARGV[8])
  for i = 10, #ARGV, 2 do
    if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[3], ARGV[i])
    else redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
  end
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[2], '*', 's', ARGV[5], 'o', ARGV[7], 'w', ARGV[9])
end
for i = 1, 5 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
"""
# KEYS: placed, changes. ARGV: seconds to keep, most changes, bell, ring, field, packed, daemon, then agents and
# engines, an empty one for none.
_PLACE = """
for i = 8, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', ARGV[5], ARGV[6], 'd', ARGV[7])
for i = 1, 2 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
redis.call('PUBLISH', ARGV[3], ARGV[4])
"""


T = TypeVar("T")


class Spoken(NamedTuple):
    """A source as it stands in Redis."""

    owner: Owner
    head: Head


Change = dict[bytes, bytes]
"""One entry of a simulation's stream, by field."""


class Shelf:
    """Reads and writes what is shared. Every call raises one of `redis_client.AWAY` where Redis doesn't answer."""

    def __init__(self, url: str, *, cluster: bool = False, mishaps: Mishaps | None = None) -> None:
        self._url = url
        self._mishaps = Mishaps() if mishaps is None else mishaps
        self._client = open_client(url, cluster=cluster, text=False)
        self._claim = self._client.register_script(_CLAIM)
        self._say = self._client.register_script(_SAY)
        self._place = self._client.register_script(_PLACE)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    # One simulation

    async def claim(self, simulation: str, source: str, incarnation: int, fence: int, daemon: str) -> Owner:
        """Speak for a source from now on, or learn who does; `fence` is the one that this daemon had, 0 for none."""
        keys = [_key(simulation, "owners")]
        mine = await self._claim(keys=keys, args=[KEEP_SECONDS, _utf8(source), incarnation, fence, daemon])
        return Owner.read(mine)

    async def say(
        self, simulation: str, source: str, before: Owner, now: Owner, word: Word | None
    ) -> Owner | None:
        """Write what has changed of a source, None for its end. Return `now` where it is written; else who speaks for
        the source, None where Redis knows of nobody."""
        names = ("owners", "heads", f"told:{source}", "changes", "placed")
        keys = [_key(simulation, name) for name in names]
        head = b"" if word is None else pack(word.head)
        args: list[Any] = [KEEP_SECONDS, KEPT_CHANGES, BELL, ring("changed", simulation), _utf8(source)]
        args += [str(before), str(now), head, b"" if word is None else pack(word)]
        for agent, told in word.agents.items() if word is not None else ():
            args += (_utf8(agent), b"" if told is None else pack(told))
        answer = await self._say(keys=keys, args=args)
        if answer == 1:
            return now
        return self._readable({source: answer}, Owner.read).get(source) if answer else None

    async def agents(self, simulation: str, source: str) -> set[str]:
        """Return the agents of whom something is told."""
        return {name async for name, _ in self._pages(_key(simulation, f"told:{source}"))}

    async def told(self, simulation: str, source: str) -> dict[str, Told]:
        """Return what is told of a source's agents."""
        pages = self._pages(_key(simulation, f"told:{source}"))
        return self._readable({name: value async for name, value in pages}, read_told)

    async def spoken(self, simulation: str) -> dict[str, Spoken]:
        """Return the sources of a simulation."""
        owners = self._readable(await self._all(_key(simulation, "owners")), Owner.read)
        heads = self._readable(await self._all(_key(simulation, "heads")), read_head)
        return {source: Spoken(owners[source], heads[source]) for source in owners.keys() & heads.keys()}

    async def place(self, simulation: str, moved: Mapping[str, str | None]) -> None:
        """Write where agents live from now on."""
        engines = {agent: engine or "" for agent, engine in moved.items()}
        pairs = [_utf8(text) for pair in engines.items() for text in pair]
        await self._tell_engines(simulation, "p", engines, "", pairs)

    async def tell_calls(self, simulation: str, seen: Mapping[str, str], daemon: str) -> None:
        """Tell which engines served agents, as a daemon has seen."""
        await self._tell_engines(simulation, "v", seen, daemon, ())

    async def placed(self, simulation: str) -> dict[str, str]:
        """Return where agents live."""
        pages = self._pages(_key(simulation, "placed"))
        return {name: value.decode(errors="replace") async for name, value in pages}

    async def last_change(self, simulation: str) -> bytes:
        """Return the id of the latest change, `NOTHING_YET` where there is none."""
        latest = await self._client.xrevrange(_key(simulation, "changes"), count=1)
        return cast(bytes, latest[0][0]) if latest else NOTHING_YET

    async def changes(self, simulation: str, since: bytes) -> tuple[list[tuple[bytes, Change]], bool]:
        """Return what has changed since an id, a page of it, and whether that is all that has: where the change with
        that id is still there, none after it is gone."""
        found: Any = await self._client.xrange(_key(simulation, "changes"), min=since, count=PAGE + 1)
        if found and found[0][0] == since:
            return found[1:], True
        return [], not found and since == NOTHING_YET

    async def _tell_engines(
        self, simulation: str, field: str, engines: Mapping[str, str], daemon: str, pairs: Iterable[bytes]
    ) -> None:
        keys = [_key(simulation, "placed"), _key(simulation, "changes")]
        args: list[Any] = [KEEP_SECONDS, KEPT_CHANGES, BELL, ring("changed", simulation)]
        args += [field, pack(engines), daemon, *pairs]
        await self._place(keys=keys, args=args)

    async def _all(self, key: bytes) -> dict[str, bytes]:
        found = cast(dict[bytes, bytes], await self._client.hgetall(key))
        return {name.decode(errors="replace"): value for name, value in found.items()}

    async def _pages(self, key: bytes) -> AsyncIterator[tuple[str, bytes]]:
        async for name, value in self._client.hscan_iter(key, count=10 * PAGE):
            yield name.decode(errors="replace"), value

    def _readable(self, found: Mapping[str, bytes], read: Callable[[bytes], T]) -> dict[str, T]:
        """Return what is understood."""
        understood: dict[str, T] = {}
        for name, value in found.items():
            try:
                understood[name] = read(value)
            except (msgspec.MsgspecError, ValueError) as error:
                self._mishaps.refused(name, error)
        return understood

    # All daemons and engines

    async def beat(self, daemon: str, count: int, engines: Mapping[str, Engine]) -> None:
        """Say that this daemon is there, and how its engines are."""
        await self._client.hset(DAEMONS, daemon, str(count))
        if engines:
            await self._client.hset(ENGINES, mapping={name: pack(one) for name, one in engines.items()})

    async def beats(self) -> dict[str, bytes]:
        """Return the count of each daemon."""
        return await self._all(_utf8(DAEMONS))

    async def bury(self, daemon: str, engines: Iterable[str]) -> None:
        """Forget a daemon that is gone, and the engines that it has told of last."""
        await self._client.hdel(DAEMONS, daemon)
        for engine in engines:
            await self._client.hdel(ENGINES, engine)

    async def engines(self) -> dict[str, Engine]:
        """Return all engines."""
        return self._readable(await self._all(_utf8(ENGINES)), read_engine)

    async def spoken_for(self, simulations: Iterable[str]) -> None:
        """Say that there are these simulations, and forget those of which nobody has spoken for a day."""
        now = time()
        names = {_utf8(simulation): now for simulation in simulations}
        if names:
            await self._client.zadd(SIMULATIONS, names)
        await self._client.zremrangebyscore(SIMULATIONS, "-inf", now - KEEP_SECONDS)

    async def simulations(self) -> set[str]:
        """Return all simulations."""
        names = cast(list[bytes], await self._client.zrange(SIMULATIONS, 0, -1))
        return {name.decode(errors="replace") for name in names}

    async def bring(self, name: str, content: bytes) -> None:
        """Put a content where whoever asked for it finds it."""
        await self._client.set(f"ss:content:{{{name}}}", content, ex=CONTENT_SECONDS)

    async def fetch(self, name: str) -> bytes | None:
        """Return a content, None where it isn't there."""
        return cast(bytes | None, await self._client.get(f"ss:content:{{{name}}}"))

    async def ring(self, *words: str) -> None:
        """Ring the bell."""
        await self._client.execute_command("PUBLISH", BELL, ring(*words))  # type: ignore[no-untyped-call]  # of redis-py

    async def heard(self) -> AsyncGenerator[list[str] | None, None]:
        """Yield what the bell says; None once it can be heard, and every second in which it is silent."""
        # Every server of a cluster passes on what any of them is told.
        server = await one_server(self._client, self._url)
        bell = server.pubsub(ignore_subscribe_messages=True)
        try:
            await bell.subscribe(BELL)
            yield None
            while True:
                heed()
                message = await bell.get_message(timeout=1.0)
                if message is None:
                    yield None
                elif message["type"] == "message":
                    yield message["data"].decode(errors="replace").split("\n")
        finally:
            await bell.aclose()  # type: ignore[no-untyped-call]  # of redis-py
            await server.aclose()


def ring(*words: str) -> bytes:
    """Return what the bell says: `changed` and a simulation; `wanted`, a daemon and hashes of contents; `brought` and
    these."""
    return _utf8("\n".join(words))


def _key(simulation: str, name: str) -> bytes:
    return _utf8(prefix_of(simulation) + name)


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")
