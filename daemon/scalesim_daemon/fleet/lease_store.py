"""The leases in Redis, Valkey, or a cluster of either: each question is one script on keys of one slot.

Of each engine, `ss:engine:{name}:lease` is a hash (owner, token, since, ready) that expires, `:token` the highest token
that was given or seen, `:next` a hash (owner, near) that says who waits for it, and `:decisions` a capped stream.
Tokens grow also where Redis has lost its data, as long as its clock doesn't go back: they are at least its wall time in
milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError

from scalesim_daemon.fleet.lease import Answer, Ask, Terms, Verb

KEPT_DECISIONS = 10_000

# KEYS: lease, token, next.
_COMMON = """
local lease, counter, waiting, me, ttl = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function give(owner, seen, ready)
  local highest = math.max(tonumber(redis.call('GET', counter) or 0), seen)
  local token = string.format('%.0f', math.max(highest + 1, now()))
  redis.call('SET', counter, token)
  redis.call('DEL', lease)
  redis.call('HSET', lease, 'owner', owner, 'token', token, 'since', string.format('%.0f', now()), 'ready', ready)
  redis.call('PEXPIRE', lease, ttl)
end
local function mine(token)
  local held = redis.call('HMGET', lease, 'owner', 'token')
  return held[1] == me and (token == nil or held[2] == token)
end
local function state(ready, wanted)
  local held = redis.call('HMGET', lease, 'owner', 'token', 'since')
  if not held[1] then return {'', redis.call('GET', counter) or '0', 0, '0', 0, 0} end
  return {held[1], held[2], redis.call('PTTL', lease), held[3], ready, wanted}
end
"""
# ARGV: me, ttl, highest token seen, whether to take it, whether we are near the engine. Who waits asks again within a
# quarter of the ttl: who hasn't is gone, and is put in nobody's place.
_CLAIM = """
local seen, take, near = tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
if mine() then
  if redis.call('HGET', lease, 'ready') == '1' then
    redis.call('HSET', lease, 'ready', '0')
    redis.call('PEXPIRE', lease, ttl)
    return state(1, 0)
  end
  if take then give(me, seen, '0') end
elseif redis.call('EXISTS', lease) == 0 then
  if take then give(me, seen, '0') end
elseif near == '1' or redis.call('HGET', waiting, 'near') ~= '1' then
  redis.call('HSET', waiting, 'owner', me, 'near', near)
  redis.call('PEXPIRE', waiting, math.ceil(ttl * 3 / 8))
end
return state(0, 0)
"""
# ARGV: me, ttl, token held.
_RENEW = """
local token = ARGV[3]
if not mine(token) then return state(0, 0) end
redis.call('PEXPIRE', lease, ttl)
if tonumber(redis.call('GET', counter) or 0) < tonumber(token) then redis.call('SET', counter, token) end
return state(0, redis.call('HGET', waiting, 'near') == '1' and 1 or 0)
"""
# ARGV: me, ttl, token held. Whoever waits is named: another may not take the hand-over for its own.
_HAND_OVER = """
if not mine(ARGV[3]) then return state(0, 0) end
local successor = redis.call('HGET', waiting, 'owner')
redis.call('DEL', lease, waiting)
if successor then give(successor, tonumber(ARGV[3]), '1') end
return state(0, 0)
"""
# KEYS: token. ARGV: token, commands as a JSON list of lists.
_FENCED = """
if tonumber(redis.call('GET', KEYS[1]) or 0) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
for _, command in ipairs(cjson.decode(ARGV[2])) do redis.call(unpack(command)) end
return 1
"""
_SCRIPTS = {
    Verb.HEAR: _COMMON + "return state(0, 0)",
    Verb.LOOK: _COMMON + _CLAIM,
    Verb.TAKE: _COMMON + _CLAIM,
    Verb.RENEW: _COMMON + _RENEW,
    Verb.HAND_OVER: _COMMON + _HAND_OVER,
}


def key_of(engine: str, what: str) -> str:
    """Return one of the keys of an engine, which all lie in one cluster slot."""
    return f"ss:engine:{{{engine}}}:{what}"


class LeaseStore:
    """Asks for one daemon, `me`, through a client that decodes responses. Raises what the client raises."""

    def __init__(self, client: Redis | RedisCluster, me: str, terms: Terms) -> None:
        self._client = client
        self._me = me
        self._ttl = round(terms.ttl * 1000)

    async def put(self, engine: str, ask: Ask, *, near: bool = True) -> Answer:
        """Put a question about an engine. `near`: we are no standby of another daemon there."""
        arguments: list[str | int] = [self._me, self._ttl, ask.token]
        if ask.verb in (Verb.LOOK, Verb.TAKE):
            arguments += [int(ask.verb is Verb.TAKE), int(near)]
        keys = [key_of(engine, what) for what in ("lease", "token", "next")]
        owner, token, left, since, ready, wanted = await self._run(_SCRIPTS[ask.verb], keys, arguments)
        if not 0 <= int(token) < 2**53:
            raise ValueError(f"{keys[1]} has a token that no daemon gave: {token}; delete it")
        return Answer(
            str(owner), int(token), max(0, left) / 1000, int(since) / 1000, bool(ready), bool(wanted)
        )

    async def write(self, engine: str, token: int, commands: Iterable[Sequence[str | int | float]]) -> bool:
        """Carry out commands on keys of an engine under a token; return False, and write nothing, where a higher one
        was seen. Each command's second part is its key: see `key_of`."""
        payload = json.dumps([[str(part) for part in command] for command in commands])
        return bool(await self._run(_FENCED, [key_of(engine, "token")], [token, payload]))

    async def decided(self, engine: str, token: int, records: Iterable[Mapping[str, Any]]) -> bool:
        """Append what was done on an engine under a token to its stream, as JSON in the field `record`; False as for
        `write`."""
        head = ("XADD", key_of(engine, "decisions"), "MAXLEN", "~", KEPT_DECISIONS, "*", "record")
        return await self.write(engine, token, [(*head, json.dumps(one, default=str)) for one in records])

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        try:
            return await cast(Any, self._client.evalsha(_hash(script), len(keys), *keys, *arguments))
        except (
            NoScriptError
        ):  # This server was restarted, or hasn't been asked yet: the script itself makes it known.
            return await cast(Any, self._client.eval(script, len(keys), *keys, *arguments))


@cache
def _hash(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
