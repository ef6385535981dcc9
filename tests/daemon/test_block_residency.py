"""Which blocks the tree counts as the engine's, and whose they are."""

from __future__ import annotations

from scalesim_adapters.base import Removed, Stored, Tier
from scalesim_daemon.blocks import BlockTree
from tests.daemon.block_bench import LORA, PLAIN, SALTED, Bench
from tests.daemon.reference_pool import Pool


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
