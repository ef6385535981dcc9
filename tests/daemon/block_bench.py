"""The reference pool and the tree that hears of it, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scalesim_adapters.base import Removed, Stored
from scalesim_daemon.blocks import BlockTree, Namespace
from tests.daemon.reference_pool import Pool, Request

PLAIN: Namespace = (None, None)
LORA: Namespace = ("lora", None)
SALTED: Namespace = (None, "salt")


@dataclass
class Bench:
    """A pool and the tree that hears of it; requests are announced to the tree."""

    pool: Pool
    tree: BlockTree = field(init=False)
    fresh: int = 1000

    def __post_init__(self) -> None:
        self.tree = BlockTree(self.pool.block_size)

    def begin(
        self,
        agent: str | None,
        prompt: Sequence[int],
        namespace: Namespace = PLAIN,
        *,
        announced: bool = True,
    ) -> Request:
        if agent is not None and announced:
            self.tree.started(agent)
        request = self.pool.begin(agent, prompt, namespace)
        self.hear()
        return request

    def finish(self, request: Request, *, announced: bool = True) -> int:
        self.pool.finish(request)
        return self.tree.released(request.agent) if request.agent is not None and announced else 0

    def serve(
        self, agent: str, prompt: Sequence[int], namespace: Namespace = PLAIN, *, announced: bool = True
    ) -> int:
        return self.finish(self.begin(agent, prompt, namespace, announced=announced), announced=announced)

    def hear(self) -> int:
        lost = 0
        for event in self.pool.take_events():
            if isinstance(event, Stored):
                self.tree.stored(event)
            elif isinstance(event, Removed):
                lost += self.tree.removed(event)
        return lost

    def unseen(self, tokens: int) -> list[int]:
        self.fresh += tokens
        return list(range(self.fresh - tokens, self.fresh))

    def order(self) -> list[frozenset[str]]:
        """The users of each block in the tree's eviction order."""
        return [frozenset(group.users) for group in self.tree.groups() for _ in range(group.blocks)]

    def true_order(self, prefixes: dict[str, tuple[Namespace, Sequence[int]]]) -> list[frozenset[str]]:
        owned = {agent: set(self.pool.chains(prompt, ns)) for agent, (ns, prompt) in prefixes.items()}
        cached = [slot for slot in self.pool.queue if slot.chain is not None]
        return [
            frozenset(agent for agent, chains in owned.items() if slot.chain in chains)
            if self.pool.is_missed(slot)
            else frozenset()
            for slot in cached
        ]

    def assert_counts_agree(self) -> None:
        assert self.tree.resident == sum(slot.chain is not None for slot in self.pool.slots)
