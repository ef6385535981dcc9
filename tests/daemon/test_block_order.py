"""Residency and eviction order, against the reference pool."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.base import Removed, Tier
from scalesim_daemon.blocks import Namespace
from tests.daemon.block_bench import LORA, PLAIN, SALTED, Bench
from tests.daemon.reference_pool import Pool, Request

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


def test_what_was_demoted_goes_first_until_its_agent_calls_and_what_is_shared_stays() -> None:
    bench = Bench(Pool(20))
    for agent, prefix in {"a": [1, 2, 3, 4], "b": [1, 2, 5, 6], "c": [7, 8]}.items():
        bench.tree.declare(agent, PLAIN, prefix)
        bench.serve(agent, [*prefix, 9])
    shared, a, b, c = (frozenset(users) for users in ("ab", "a", "b", "c"))
    assert bench.order() == [a, b, shared, c]
    bench.tree.demoted("c")
    bench.tree.demoted("b")
    assert bench.order() == [b, c, a, shared]
    bench.serve("c", [7, 8, 9])
    assert bench.order() == [b, a, shared, c]
    bench.tree.demoted("nobody")
    b_alone = bench.pool.hashes[PLAIN, (1, 2, 5, 6)]
    bench.tree.removed(Removed((b_alone,), Tier.DEVICE))
    assert (bench.tree.unpredicted, bench.order()) == (0, [a, shared, c])
