"""Who uses which cached block: the agents whose requests stored it or hit it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from scalesim_adapters.dues import DueTable

# A block that very many agents share is ranked by those of them that came to it last.
MOST_USERS = 256


class Users:
    """The agents that share some blocks, the latest last. Immutable; blocks of one prompt have the same object."""

    __slots__ = ("_nearest", "agents")

    def __init__(self, agents: tuple[str, ...]) -> None:
        self.agents = agents
        self._nearest: tuple[int, str] | None = None

    def nearest(self, table: DueTable) -> str:
        """Return the user whose invocation is nearest."""
        if len(self.agents) == 1:
            return self.agents[0]
        if self._nearest is None or self._nearest[0] != table.version:
            self._nearest = table.version, min(self.agents, key=table.nearness)
        return self._nearest[1]


Block = TypeVar("Block", int, bytes)


class BlockUsers(Generic[Block]):
    """The users of cached blocks, by block id or hash. Blocks that no tagged request has used are not in it."""

    def __init__(self) -> None:
        self._users: dict[Block, Users] = {}

    def get(self, block: Block) -> Users | None:
        """Return a block's users, None where it never had one."""
        return self._users.get(block)

    def stored(self, blocks: Iterable[Block], agent: str) -> None:
        """The agent's request has filled these blocks."""
        self._users.update(dict.fromkeys(blocks, Users((agent,))))

    def hit(self, blocks: Iterable[Block], agent: str) -> None:
        """The agent's request uses these blocks."""
        joined: dict[int, Users] = {}
        for block in blocks:
            users = self._users.get(block)
            if users is not None and agent in users.agents:
                continue
            key = id(users)
            if key not in joined:
                others: tuple[str, ...] = () if users is None else users.agents[1 - MOST_USERS :]
                joined[key] = Users((*others, agent))
            self._users[block] = joined[key]

    def evicted(self, block: Block) -> None:
        """The block's content is gone."""
        self._users.pop(block, None)

    def left(self, block: Block, agent: str) -> bool:
        """The agent uses the block no longer, which stays known even if nobody does; return whether it did."""
        users = self._users.get(block)
        if users is None or agent not in users.agents:
            return False
        self._users[block] = Users(tuple(other for other in users.agents if other != agent))
        return True

    def leave(self, agent: str) -> list[Block]:
        """Take the agent out of all users; return the blocks that nobody else uses, which keep it as theirs."""
        alone = []
        left: dict[int, Users] = {}
        for block, users in self._users.items():
            if agent not in users.agents:
                continue
            if len(users.agents) == 1:
                alone.append(block)
                continue
            key = id(users)
            if key not in left:
                left[key] = Users(tuple(other for other in users.agents if other != agent))
            self._users[block] = left[key]
        return alone

    def counts(self) -> Counter[str]:
        """Return how many cached blocks each agent uses."""
        return Counter(agent for users in self._users.values() for agent in users.agents)

    def clear(self) -> None:
        """Nothing is cached any more."""
        self._users.clear()

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks that have had users."""
        return iter(self._users)

    def __len__(self) -> int:
        """Return how many blocks have had users."""
        return len(self._users)
