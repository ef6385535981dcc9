"""Which of the blocks in a host tier goes first: the one whose users call latest. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from scalesim_adapters.blockusers import BlockUsers
from scalesim_adapters.dueorder import DueOrder
from scalesim_adapters.dues import DueTable

# Prompts of an agent that are looked at to tell what comes again: what only older ones had goes before anything else.
REMEMBERED_PROMPTS = 2

_OUTDATED = "\0outdated"
_UNKNOWN = "\0unknown"


class Ranking:
    """Blocks by key, in buckets: one for each agent, the agent being that user of a block who calls soonest.

    The agents are ordered by due, farthest first; within a bucket what came first goes first. With a stale table the
    agents are ordered by their last request. Blocks that no tagged request is known to have used are infinitely far.
    """

    def __init__(self, table: DueTable) -> None:
        self.table = table
        self.stale = True
        self._order = DueOrder(table)
        self._users: BlockUsers[bytes] = BlockUsers()
        self._prompts: dict[str, dict[str, Sequence[bytes]]] = {}
        self._buckets: dict[str, dict[bytes, None]] = {}
        self._home: dict[bytes, str] = {}
        self._mistaken: set[str] = set()
        self._uses = 0
        self._last_use: dict[str, int] = {_OUTDATED: 0, _UNKNOWN: 1}

    def look(self, wall: float) -> None:
        """Take in what the table has heard until `wall`, a monotonic time in seconds."""
        self.stale = self.table.stale(wall)
        self._order.refresh()

    def used(self, agent: str, request: str, keys: Sequence[bytes]) -> None:
        """A request of the agent has a prompt of these blocks; said again, it has become longer."""
        prompts = self._prompts.setdefault(agent, {})
        if any(self.outdated(key) for key in keys) and request not in prompts:
            self._mistaken.add(agent)
        self._users.hit(keys, agent)
        passing = self._passing(agent, request, keys)
        prompts[request] = keys
        if len(prompts) > REMEMBERED_PROMPTS:
            oldest = prompts.pop(next(iter(prompts)))
            passing |= set(oldest).difference(*prompts.values())
        self._outdate(agent, passing)
        self._uses += 1
        self._last_use[agent] = self._uses
        if agent in self._buckets:
            self._buckets[agent] = self._buckets.pop(agent)
            self._order.put(agent, self._uses, self._uses)

    def add(self, key: bytes) -> None:
        """The block may go from now on."""
        self._place(key, self._bucket(key))

    def remove(self, key: bytes) -> None:
        """The block may not go any more, or has gone."""
        name = self._home.pop(key, None)
        if name is not None:
            bucket = self._buckets[name]
            del bucket[key]
            if not bucket:
                del self._buckets[name]
                self._order.discard(name)

    def first(self) -> bytes | None:
        """Return the block that goes first, None where none may go."""
        while self._buckets:
            name = self._first_bucket()
            key = next(iter(self._buckets[name]))
            # Its users' dues may have changed since it was put here.
            home = self._bucket(key)
            if home == name:
                return key
            self.remove(key)
            self._place(key, home)
        return None

    def distance(self, key: bytes) -> float:
        """Return how many seconds away the block's next use is; negative where it is overdue, infinity where none is
        foreseen, and also while the table is stale."""
        name = self._bucket(key)
        return math.inf if self.stale or name in (_OUTDATED, _UNKNOWN) else self.table.nearness(name)

    def outdated(self, key: bytes) -> bool:
        """Whether only old requests had this block."""
        users = self._users.get(key)
        return users is not None and not users.agents

    def forget(self, gone: Callable[[bytes], bool]) -> None:
        """Forget the users of blocks that are gone."""
        for key in [key for key in self._users if key not in self._home and gone(key)]:
            self._users.evicted(key)
        known = self._users.counts()
        for agent in self._prompts.keys() - known:
            del self._prompts[agent], self._last_use[agent]
            self._mistaken.discard(agent)

    def __len__(self) -> int:
        """Return of how many blocks users are known."""
        return len(self._users)

    def _passing(self, agent: str, request: str, keys: Sequence[bytes]) -> set[bytes]:
        """Return what of a prompt is thought to be its own: what follows where it leaves an earlier one that it has
        most in common with. Where that was wrong once for an agent it isn't thought again."""
        if agent in self._mistaken:
            return set()
        others = [prompt for name, prompt in self._prompts[agent].items() if name != request]
        common = [_common(keys, prompt) for prompt in others]
        most = max(common, default=0)
        left = any(most == count < len(prompt) for count, prompt in zip(common, others, strict=True))
        return set(keys[most:]) if left and 2 * most >= len(keys) else set()

    def _outdate(self, agent: str, keys: Iterable[bytes]) -> None:
        for key in keys:
            if self._users.left(key, agent) and key in self._home:
                self.remove(key)
                self.add(key)

    def _bucket(self, key: bytes) -> str:
        users = self._users.get(key)
        if users is None:
            return _UNKNOWN
        if not users.agents:
            return _OUTDATED
        return max(users.agents, key=self._last_use.__getitem__) if self.stale else users.nearest(self.table)

    def _place(self, key: bytes, name: str) -> None:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = {}
            self._order.put(name, self._last_use[name], self._last_use[name])
        bucket[key] = None
        self._home[key] = name

    def _first_bucket(self) -> str:
        for name in (_OUTDATED, _UNKNOWN):
            if name in self._buckets:
                return name
        # Buckets lie in the order of their agents' last requests, or of their first block if that came later.
        return next(iter(self._buckets)) if self.stale else str(self._order.farthest())


def _common(one: Sequence[bytes], two: Sequence[bytes]) -> int:
    """Return how many blocks two prompts have in common at their head."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))
