from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.base import Removed, Stored, Tier
from scalesim_daemon import blocks
from scalesim_daemon.blocks import BlockTree, Namespace
from scalesim_daemon.eviction import Node
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


def nodes(tree: BlockTree) -> int:
    """Count all nodes that the tree keeps, roots included."""

    def under(node: Node) -> int:
        return 1 + sum(under(child) for child in node.children.values())

    return sum(under(root) for root in tree._roots.values())


def test_blocks_are_counted_as_the_engine_has_them() -> None:
    bench = Bench(Pool(4))
    bench.tree.declare("a", PLAIN, [1, 2, 3, 4])
    assert bench.serve("a", [1, 2, 3, 4, 5, 6, 7]) == 2  # one full block, and the partly filled one
    assert (bench.tree.resident, bench.tree.resident_blocks("a")) == (3, 2)
    assert bench.order() == [frozenset(), frozenset("a"), frozenset("a")]
    bench.serve("b", bench.unseen(5))
    assert bench.tree.resident_blocks("a") == 1
    assert bench.tree.unpredicted == 0


def test_losses_of_prefixes_are_told_from_others() -> None:
    bench = Bench(Pool(3))
    bench.tree.declare("a", PLAIN, [1, 2])
    bench.serve("a", [1, 2, 3, 4, 5])
    bench.pool.serve(None, bench.unseen(3))
    assert bench.hear() == 0
    bench.pool.serve(None, bench.unseen(5))
    assert bench.hear() == 1


def test_a_prompt_of_whole_blocks_leaves_a_double() -> None:
    bench = Bench(Pool(8))
    bench.serve("a", [1, 2, 3, 4])
    bench.serve("a", [1, 2, 3, 4])
    bench.assert_counts_agree()
    assert bench.tree.resident == 3
    bench.pool.serve(None, bench.unseen(12))
    bench.hear()
    bench.assert_counts_agree()
    assert bench.tree.unpredicted == 0


def test_namespaces_keep_equal_tokens_apart() -> None:
    bench = Bench(Pool(20))
    for agent, namespace in (("plain", PLAIN), ("lora", LORA), ("salted", SALTED)):
        bench.tree.declare(agent, namespace, [1, 2, 3, 4])
    bench.serve("lora", [1, 2, 3, 4, 5], LORA)
    assert [bench.tree.resident_blocks(agent) for agent in ("plain", "lora", "salted")] == [0, 2, 0]
    bench.serve("salted", [1, 2, 3, 4, 5], SALTED)
    assert [bench.tree.resident_blocks(agent) for agent in ("plain", "lora", "salted")] == [0, 2, 2]


def test_other_tiers_and_block_sizes_are_not_ours() -> None:
    tree = BlockTree(2)
    tree.stored(Stored((1,), None, (1, 2), 2, Tier.HOST))
    tree.stored(Stored((1,), None, (1, 2, 3), 3, Tier.DEVICE))
    assert tree.resident == 0
    tree.stored(Stored((1,), None, (1, 2), 2, Tier.DEVICE))
    assert tree.removed(Removed((1,), Tier.HOST)) == 0
    assert tree.removed(Removed((7,), Tier.DEVICE)) == 0
    assert tree.resident == 1


def test_tokens_come_back_as_declared() -> None:
    tree = BlockTree(2)
    tree.declare("a", PLAIN, [1, 2**32 - 1, 3, 4, 5])
    assert (tree.prefix_blocks("a"), tree.tokens("a", 9), tree.tokens("a", 1)) == (
        2,
        (1, 2**32 - 1, 3, 4),
        (1, 2**32 - 1),
    )


# Learning


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("capacity", [6, 50])
def test_the_prefix_is_what_the_last_two_prompts_have_in_common(chunk: int, capacity: int) -> None:
    """Also where all of the first prompt was evicted before the second came."""
    bench = Bench(Pool(capacity, chunk=chunk))
    persona = [1, 2, 3, 4, 5, 6]
    bench.serve("a", persona + bench.unseen(5))
    assert bench.tree.prefix_blocks("a") == 0
    bench.serve("x", bench.unseen(11))
    bench.serve("a", persona + bench.unseen(4))
    assert bench.tree.tokens("a", 9) == tuple(persona)


def test_a_longer_chat_extends_the_prefix() -> None:
    bench = Bench(Pool(50))
    said = [1, 2, 3, 4]
    for _ in range(3):
        bench.serve("a", [*said, 9])
        said += bench.unseen(4)
    assert bench.tree.prefix_blocks("a") == 4


def test_our_own_prefetches_leave_the_prefix_as_it_is() -> None:
    bench = Bench(Pool(20))
    persona = list(range(8))
    for _ in range(2):
        bench.serve("a", persona + bench.unseen(3))
    bench.pool.serve(None, bench.unseen(39))
    bench.hear()
    assert (bench.tree.prefix_blocks("a"), bench.tree.resident_blocks("a")) == (4, 0)
    for blocks_loaded in (1, 3, 4):
        bench.serve("a", [*persona[: 2 * blocks_loaded], 77])
        assert (bench.tree.prefix_blocks("a"), bench.tree.resident_blocks("a")) == (4, blocks_loaded)
    bench.serve("a", persona + bench.unseen(3))
    assert bench.tree.prefix_blocks("a") == 4


def test_a_declared_prefix_is_not_relearned_and_a_forgotten_one_is() -> None:
    bench = Bench(Pool(50))
    bench.tree.declare("a", PLAIN, [1, 2, 3, 4])
    for _ in range(2):
        bench.serve("a", [1, 2, *bench.unseen(4)])
    assert bench.tree.prefix_blocks("a") == 2
    bench.tree.undeclare("a")
    assert list(bench.tree.agents()) == []
    for _ in range(2):
        bench.serve("a", [1, 2, *bench.unseen(4)])
    assert bench.tree.tokens("a", 9) == (1, 2)
    bench.tree.undeclare("a")
    assert bench.tree.prefix_blocks("a") == 1


def test_prompts_whose_head_was_not_heard_teach_nothing() -> None:
    tree = BlockTree(2)
    for last in (3, 4):
        tree.stored(Stored((10, last), 99, (5, 6, last, last), 2, Tier.DEVICE, "a"))
    assert list(tree.agents()) == []


# Memory


def test_a_cleared_tree_keeps_prefixes_only() -> None:
    bench = Bench(Pool(50))
    bench.tree.declare("a", PLAIN, [1, 2, 3, 4])
    bench.serve("a", [1, 2, 3, 4, *bench.unseen(9)])
    running = bench.begin("a", [1, 2, 3, 4, *bench.unseen(9)])
    bench.tree.cleared()
    bench.finish(running)
    assert (bench.tree.resident, bench.tree.resident_blocks("a"), nodes(bench.tree)) == (0, 0, 3)
    assert list(bench.tree.groups()) == []
    bench.tree.forget("a")
    assert nodes(bench.tree) == 0


def test_what_nobody_needs_is_dropped() -> None:
    bench = Bench(Pool(10))
    for round_ in range(50):
        agent = f"agent{round_}"
        bench.serve(agent, [*range(4), *bench.unseen(5)], announced=round_ % 2 == 0)
        bench.serve(agent, [*range(4), *bench.unseen(5)], (None, agent))
        bench.tree.forget(agent)
    bench.assert_counts_agree()
    assert nodes(bench.tree) <= 2 * 10
    bench.tree.stored(Stored((9999,), 8888, (5, 6), 2, Tier.DEVICE))
    bench.tree.removed(Removed((9999,), Tier.DEVICE))
    bench.tree.cleared()
    assert nodes(bench.tree) == 0


def test_of_two_prompts_that_have_parted_only_the_newer_is_kept() -> None:
    bench = Bench(Pool(20))
    for _ in range(9):
        bench.serve("a", [1, 2, *bench.unseen(11)])
        bench.serve("x", bench.unseen(39))
    bench.tree.forget("x")
    bench.tree.cleared()
    assert nodes(bench.tree) == 1 + 6


def test_kept_prompts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_PROMPTS", 3)
    bench = Bench(Pool(10))
    for round_ in range(20):
        bench.serve(f"session{round_}", bench.unseen(8), announced=False)
    assert nodes(bench.tree) <= 1 + 10 + 3 * 4


# Against the reference

AGENTS: dict[str, tuple[Namespace, list[int]]] = {
    "a": (PLAIN, [1, 2, 3, 4, 5, 6]),
    "b": (PLAIN, [1, 2, 3, 4, 7, 8, 9, 9]),
    "c": (PLAIN, [1, 2]),
    "d": (LORA, [1, 2, 3, 4]),
    "e": (SALTED, [1, 2, 3, 4, 5, 6]),
}
"""Agents that share the heads of their prefixes, and others with equal tokens in namespaces of their own."""

moves = st.lists(
    st.tuples(st.sampled_from([*AGENTS, None]), st.integers(0, 7), st.booleans(), st.integers(0, 3)),
    max_size=40,
)


def play(bench: Bench, script: Sequence[tuple[str | None, int, bool, int]], *, announced: bool) -> None:
    """Serve requests: who calls, with how many fresh tokens, whether that ends at once, and who ends next.

    An agent has one request at a time."""
    running: list[Request] = []
    for agent, fresh, at_once, ended in script:
        namespace, prefix = AGENTS[agent] if agent is not None else (PLAIN, [])
        prompt = [*prefix, *bench.unseen(fresh)] or bench.unseen(1)
        while running and not bench.pool.can_begin(prompt, namespace):
            bench.finish(running.pop(0), announced=announced)
        if not bench.pool.can_begin(prompt, namespace):
            continue
        for same in [request for request in running if request.agent == agent]:
            running.remove(same)
            bench.finish(same, announced=announced)
        request = bench.begin(agent, prompt, namespace, announced=announced)
        if agent is None or at_once:
            bench.finish(request, announced=announced)
        else:
            running.append(request)
        if ended < len(running):
            bench.finish(running.pop(ended), announced=announced)
        bench.assert_counts_agree()
        for name, (namespace, prefix) in AGENTS.items():
            true = bench.pool.resident(bench.pool.chains(prefix, namespace))
            assert bench.tree.resident_blocks(name) in ((true,) if bench.tree.prefix_blocks(name) else (0,))
    while running:
        bench.finish(running.pop(), announced=announced)


@settings(max_examples=150, deadline=None)
@given(moves, st.integers(9, 30), st.sampled_from([1, 2, 100]))
def test_residency_equals_the_engines(
    script: list[tuple[str | None, int, bool, int]], capacity: int, chunk: int
) -> None:
    bench = Bench(Pool(capacity, chunk=chunk))
    for agent, (namespace, prefix) in AGENTS.items():
        bench.tree.declare(agent, namespace, prefix)
    play(bench, script, announced=False)


@settings(max_examples=200, deadline=None)
@given(moves, st.integers(9, 30), st.sampled_from([1, 2, 100]))
def test_announced_requests_make_every_victim_predictable(
    script: list[tuple[str | None, int, bool, int]], capacity: int, chunk: int
) -> None:
    """Prompts of whole blocks without a fresh token are left out: they compute again what seemed a hit."""
    bench = Bench(Pool(capacity, chunk=chunk))
    for agent, (namespace, prefix) in AGENTS.items():
        bench.tree.declare(agent, namespace, prefix)
    play(
        bench,
        [(agent, fresh or 1, at_once, ended) for agent, fresh, at_once, ended in script],
        announced=True,
    )
    assert bench.tree.unpredicted == 0
    assert bench.order() == bench.true_order(AGENTS)


@settings(max_examples=100, deadline=None)
@given(moves, st.integers(9, 30))
def test_a_prefix_declared_late_changes_no_order(
    script: list[tuple[str | None, int, bool, int]], capacity: int
) -> None:
    bench = Bench(Pool(capacity))
    script = [(agent, fresh or 1, at_once, ended) for agent, fresh, at_once, ended in script]
    for agent, (namespace, prefix) in AGENTS.items():
        if agent != "b":
            bench.tree.declare(agent, namespace, prefix)
    play(bench, [move for move in script if move[0] != "b"], announced=True)
    bench.tree.declare("b", *AGENTS["b"])
    assert bench.order() == bench.true_order(AGENTS)
    bench.tree.forget("a")
    assert bench.order() == bench.true_order(
        {agent: known for agent, known in AGENTS.items() if agent != "a"}
    )


def test_an_unforeseen_victim_is_counted_and_teaches_the_order() -> None:
    """A request that nobody announced, and that only hits, moves blocks without an event."""
    bench = Bench(Pool(8))
    bench.tree.declare("a", PLAIN, [1, 2, 3, 4])
    bench.tree.declare("b", PLAIN, [5, 6, 7, 8])
    bench.serve("a", [1, 2, 3, 4, 9])
    bench.serve("b", [5, 6, 7, 8, 9])
    bench.serve("x", bench.unseen(5))
    bench.pool.serve(None, [1, 2, 3, 4, 9])
    bench.pool.serve(None, bench.unseen(7))
    bench.hear()
    assert (bench.tree.unpredicted, bench.tree.resident_blocks("a"), bench.tree.resident_blocks("b")) == (
        1,
        2,
        0,
    )
    for _ in range(2):
        bench.pool.serve(None, bench.unseen(3))
        bench.hear()
    assert (bench.tree.unpredicted, bench.tree.resident_blocks("a")) == (2, 2)


def test_blocks_may_go_while_their_agents_request_waits() -> None:
    """What is announced isn't in use yet: others may be served first."""
    bench = Bench(Pool(4))
    bench.tree.declare("a", PLAIN, [1, 2, 3, 4])
    bench.serve("a", [1, 2, 3, 4, 5])
    bench.tree.started("a")
    bench.pool.serve(None, bench.unseen(7))
    assert bench.hear() == 2
    assert bench.tree.unpredicted == 2
    bench.tree.released("a")
    bench.assert_counts_agree()
    assert (bench.tree.resident_blocks("a"), bench.order()) == (0, [frozenset()] * 3)
    bench.serve("a", [1, 2, 3, 4, 5])
    assert bench.tree.resident_blocks("a") == 2


def test_two_requests_of_one_agent_at_once_are_counted() -> None:
    bench = Bench(Pool(20))
    bench.tree.declare("a", PLAIN, [1, 2, 3, 4])
    running = [bench.begin("a", [1, 2, 3, 4, *bench.unseen(3)]) for _ in range(2)]
    bench.finish(running[0])
    assert bench.order() == []
    bench.finish(running[1])
    assert bench.order() == [frozenset()] * 2 + [frozenset("a")] * 2
