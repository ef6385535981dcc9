"""What the tree learns from prompts, and that it keeps no more than that."""

from __future__ import annotations

import pytest

from scalesim_adapters.base import Removed, Stored, Tier
from scalesim_daemon import blocks
from scalesim_daemon.blocks import BlockTree
from scalesim_daemon.eviction import Node
from tests.daemon.block_bench import PLAIN, Bench
from tests.daemon.reference_pool import Pool

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


# Keeping


def nodes(tree: BlockTree) -> int:
    """Count all nodes that the tree keeps, roots included."""

    def under(node: Node) -> int:
        return 1 + sum(under(child) for child in node.children.values())

    return sum(under(root) for root in tree._roots.values())


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
