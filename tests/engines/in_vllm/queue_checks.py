"""Checks of the queue by due against vLLM's own classes. They run in the engine's environment, which has no pytest:
`tests/engines/test_vllm_plugin_queue.py` runs this file once and reports each check by its name."""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from engine_parts import (
    BLOCK,
    begin,
    cached_blocks,
    due_manager,
    fresh_table,
    pool_of,
    prompt,
    request,
    serve,
    stock_manager,
    tell,
)
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import KVCacheBlock

from scalesim_adapters.blockusers import MOST_USERS
from scalesim_adapters.dues import DueTable

ROUNDS = 400


def check_the_farthest_agents_go_first() -> None:
    """Ten agents fill the pool; whoever needs room takes it from unknown agents, then from the farthest."""
    manager = due_manager(40, fresh_table({f"s/a{number}": float(number) for number in range(1, 9)}))
    for number in random.Random(1).sample(range(10), 10):
        serve(manager, f"s/a{number}", prompt(number, 4)[:-1])
    gone = []
    for turn in range(9):
        before = {number for number in range(10) if cached_blocks(manager, prompt(number, 4)) == 4}
        room = request("s/a1", prompt(100 + turn, 4)[:-1])
        assert begin(manager, room) == 0
        gone += sorted(before - {n for n in range(10) if cached_blocks(manager, prompt(n, 4)) == 4})
    assert sorted(gone[:2]) == [0, 9], "these have no due"
    assert gone[2:] == [8, 7, 6, 5, 4, 3, 2], gone


def check_inside_an_agent_the_tail_of_the_oldest_prompt_goes_first() -> None:
    manager = due_manager(12, fresh_table({"s/a": 9.0, "s/b": 1.0}))
    serve(manager, "s/a", prompt(1, 4)[:-1])
    serve(manager, "s/a", prompt(2, 4)[:-1])
    serve(manager, "s/b", prompt(3, 4)[:-1])
    for left in (3, 2, 1):
        assert begin(manager, request("s/b", prompt(10 + left, 1)[:-1])) == 0
        assert [cached_blocks(manager, prompt(seed, 4)) for seed in (1, 2, 3)] == [left, 4, 4]


def check_of_equally_near_agents_who_was_served_last_goes_first() -> None:
    """Also where the other one's oldest block is younger, and where a due becomes equal only later."""
    table = fresh_table({"s/a": 5.0, "s/b": 7.0})
    manager = due_manager(12, table)
    for agent, seed in (("s/a", 1), ("s/b", 2), ("s/a", 3)):
        serve(manager, agent, prompt(seed, 4)[:-1])
    tell(table, {"s/b": 5.0})
    assert begin(manager, request(None, prompt(20, 6)[:-1])) == 0
    assert [cached_blocks(manager, prompt(seed, 4)) for seed in (1, 2, 3)] == [0, 4, 2]


def check_a_shared_block_counts_for_its_nearest_user() -> None:
    table = fresh_table({"s/far": 50.0, "s/middle": 20.0, "s/near": 1.0})
    manager = due_manager(12, table)
    shared = prompt(7, 4)[:-1]
    serve(manager, "s/near", [*shared, *prompt(1, 2)])
    serve(manager, "s/far", [*shared, *prompt(2, 2)])
    serve(manager, "s/middle", prompt(3, 4)[:-1])
    assert pool_of(manager).users.counts() == {"s/near": 6, "s/far": 6, "s/middle": 4}
    assert begin(manager, request(None, prompt(20, 3)[:-1])) == 0
    assert cached_blocks(manager, [*shared, *prompt(2, 2)]) == 4, "what only the far one uses went"
    assert cached_blocks(manager, prompt(3, 4)) == 3, "then the middle one's last block"
    # The near one turns far: now the middle one keeps its blocks and the shared ones go.
    tell(table, {"s/near": 60.0})
    assert begin(manager, request(None, prompt(21, 4)[:-1])) == 0
    assert cached_blocks(manager, prompt(3, 4)) == 3
    assert cached_blocks(manager, [*shared, *prompt(1, 2)]) == 2


def check_what_a_request_uses_is_never_taken() -> None:
    manager = due_manager(8, fresh_table({"s/far": 99.0, "s/near": 1.0}))
    held = request("s/far", prompt(1, 4)[:-1])
    assert begin(manager, held) == 0
    serve(manager, "s/near", prompt(2, 4)[:-1])
    assert begin(manager, request("s/near", prompt(3, 4)[:-1])) == 0
    assert cached_blocks(manager, prompt(1, 4)) == 4
    assert begin(manager, request("s/near", prompt(4, 1)[:-1])) is None


def check_a_stale_table_gives_the_stock_order() -> None:
    """The same random life on a stock manager and on ours, whose table falls silent and was never heard: the same
    blocks are given out, the same events told."""
    begun: list[int] = []
    for seed in range(30):
        silent = fresh_table({f"s/a{number}": float(number) for number in range(8)})
        silent.silence = 0.0
        ours = [due_manager(24, table) for table in (DueTable(), silent)]
        stock = stock_manager(24)
        told = []
        for manager in (stock, *ours):
            begun.append(live(manager, random.Random(seed), 300))
            told.append((manager.take_events(), [block.block_id for block in free_of(manager)]))
        assert told[0] == told[1] == told[2]
    assert sum(begun) > 6000, sum(begun)


def check_any_life_takes_the_victims_that_a_plain_ranking_names() -> None:
    """Random requests, shared prefixes, dues and silences: every victim is the first of all free blocks in a ranking
    that looks at each of them."""
    victims = 0
    for seed in range(60):
        rng = random.Random(seed)
        table = fresh_table()
        manager = due_manager(24, table)
        witness = Witness(manager, table)
        for _ in range(8):
            live(manager, rng, 15, witness)
            dues = {f"s/a{rng.randrange(8)}": rng.choice([None, float(rng.randrange(9))]) for _ in range(4)}
            tell(table, dues, now=float(rng.randrange(5)))
            table.silence = rng.choice([0.0, math.inf, math.inf])
            witness.refresh()
        victims += witness.victims
        assert pool_of(manager).users.counts() == witness.counts()
    assert victims > 5000, victims
    print(f"{victims} victims")


def check_an_agent_can_be_evicted() -> None:
    manager = due_manager(16, fresh_table({"s/a": 1.0, "s/b": 2.0}))
    shared = prompt(7, 2)[:-1]
    for number, agent in enumerate(("s/a", "s/b")):
        serve(manager, agent, [*shared, *prompt(number, 4)[:-1]])
    manager.take_events()
    pool = pool_of(manager)
    assert pool.evict_agent("s/a") == 4
    assert pool.users.counts() == {"s/b": 6}
    assert sum(type(event).__name__ == "BlockRemoved" for event in manager.take_events()) == 4
    assert [cached_blocks(manager, [*shared, *prompt(number, 4)]) for number in range(2)] == [2, 6]
    assert pool.evict_agent("s/a") == 0
    assert pool.get_num_free_blocks() == 16 == len(free_of(manager))
    # What became free is taken first, and nobody else loses anything.
    assert begin(manager, request("s/c", prompt(9, 10)[:-1])) == 0
    assert cached_blocks(manager, [*shared, *prompt(1, 4)]) == 6


def check_a_reset_forgets_everything() -> None:
    table = fresh_table({"s/a": 1.0})
    manager = due_manager(8, table)
    serve(manager, "s/a", prompt(1, 6))
    assert manager.reset_prefix_cache()
    assert not pool_of(manager).users.counts()
    assert cached_blocks(manager, prompt(1, 6)) == 0
    for turn in range(20):
        serve(manager, f"s/a{turn % 3}", prompt(turn % 5, 1 + turn % 6))
    table.silence = 0.0
    assert len(pool_of(manager).get_new_blocks(8)) == 8


def check_blocks_of_a_crowd_are_ranked_by_who_came_last() -> None:
    crowd = [f"s/a{number}" for number in range(MOST_USERS + 50)]
    table = fresh_table(dict.fromkeys(crowd, 5.0) | {"s/other": 4.0})
    manager = due_manager(8, table)
    for agent in crowd:
        serve(manager, agent, prompt(1, 3))
    assert len(pool_of(manager).users.counts()) == MOST_USERS
    serve(manager, "s/other", prompt(2, 3))
    assert begin(manager, request(None, prompt(3, 3))) == 0
    assert (cached_blocks(manager, prompt(1, 3)), cached_blocks(manager, prompt(2, 3))) == (1, 3)


def check_the_cost_per_block_is_the_same_in_any_pool() -> None:
    """Pools of 10^3, 10^4 and 10^5 blocks with 32 blocks per agent; in each round the clock ticks, an agent gets a new
    due, and 32 blocks are given out, stored and freed. Medians of the rounds, interleaved over the pools."""
    sizes = (1_000, 10_000, 100_000)
    pools = {kind: {size: Pool(size, kind) for size in sizes} for kind in ("stock", "recency", "due")}
    times: dict[tuple[str, int], list[float]] = {(kind, size): [] for kind in pools for size in sizes}
    for _ in range(ROUNDS):
        for kind, size in times:
            times[kind, size].append(pools[kind][size].round())
    medians = {key: statistics.median(values) * 1e6 for key, values in times.items()}
    for kind in pools:
        costs = ", ".join(f"{medians[kind, size]:.2f} us at {size:,} blocks" for size in sizes)
        print(f"{kind}: {costs}, per block given out, stored and freed")
    assert medians["due", sizes[-1]] <= 2 * medians["due", sizes[0]], medians


class Pool:
    """A full pool of agents with 32 blocks each; of a kind: vLLM's own, ours by due, or ours with a stale table."""

    def __init__(self, size: int, kind: str) -> None:
        self._rng = random.Random(size)
        self._agents = [f"s/a{number}" for number in range(size // 32)]
        self._table = fresh_table({agent: self._rng.uniform(0, 1e6) for agent in self._agents})
        if kind == "recency":
            self._table.silence = 0.0
        manager = stock_manager(size) if kind == "stock" else due_manager(size, self._table)
        self._pool = manager.block_pool
        self._hashes = 0
        self._now = 0.0
        for agent in self._agents:
            self._use(agent)

    def round(self) -> float:
        """Return the seconds per block."""
        agent = self._rng.choice(self._agents)
        self._now += 1.0
        tell(self._table, {agent: self._now + self._rng.uniform(0, 1e6)}, self._now)
        return self._use(agent)

    def _use(self, agent: str) -> float:
        hashes = [(self._hashes + offset).to_bytes(32, "big") for offset in range(32)]
        self._hashes += 32
        wanted = SimpleNamespace(
            block_hashes=hashes,
            session_id=agent,
            all_token_ids=[],
            lora_request=None,
            mm_features=[],
            cache_salt=None,
            prompt_embeds=None,
        )
        begun = time.perf_counter()
        blocks = self._pool.get_new_blocks(32)
        self._pool.cache_full_blocks(wanted, blocks, 0, 32, BLOCK, 0)
        self._pool.free_blocks(reversed(blocks))
        took = time.perf_counter() - begun
        self._pool.take_events()
        return took / 32


class Witness:
    """Ranks all free blocks each time one is given out, by what it has seen itself, and compares."""

    def __init__(self, manager: KVCacheManager, table: DueTable) -> None:
        self._manager = manager
        self._table = table
        self._users: dict[int, set[str]] = {}
        self._take = manager.block_pool.free_block_queue.popleft_n
        self._ranks: dict[str, float] = {}
        self.victims = 0
        manager.block_pool.free_block_queue.popleft_n = self._compare
        self.refresh()

    def refresh(self) -> None:
        """The table has changed."""
        self._ranks = {f"s/a{number}": self._table.nearness(f"s/a{number}") for number in range(8)}

    def hit(self, agent: str | None, blocks: list[KVCacheBlock]) -> None:
        """The agent's request found these."""
        for block in blocks:
            self._users.setdefault(block.block_id, set()).update({agent} if agent else ())

    def stored(self, agent: str | None, blocks: list[KVCacheBlock]) -> None:
        """The agent's request has these blocks; what has no users yet is new."""
        for block in blocks:
            if block.block_hash is not None and block.block_id not in self._users:
                self._users[block.block_id] = {agent} if agent else set()

    def emptied(self, block: int) -> None:
        """The block's content was declared invalid."""
        self._users.pop(block, None)

    def counts(self) -> dict[str, int]:
        """How many cached blocks each agent uses."""
        counts: dict[str, int] = {}
        for agent in (agent for users in self._users.values() for agent in users):
            counts[agent] = counts.get(agent, 0) + 1
        return counts

    def _compare(self, n: int) -> list[KVCacheBlock]:
        free = free_of(self._manager)
        taken = self._take(n)
        if self._table.silence:
            assert [self._rank(block) for block in taken] == sorted(map(self._rank, free))[:n]
            # Of one agent, and of all of whom nothing is foreseen, in the engine's order.
            for group in {self._group(block) for block in taken} - {None}:
                theirs, went = (
                    [block for block in blocks if self._group(block) == group] for blocks in (free, taken)
                )
                assert went == theirs[: len(went)], group
        else:
            assert taken == free[:n]
        for block in taken:
            self.victims += block.block_hash is not None
            self._users.pop(block.block_id, None)
        return taken

    def _group(self, block: KVCacheBlock) -> str | None:
        """Return whose the block is, the same for all of whom nothing is foreseen; None where several share it or it is
        empty."""
        users = self._users.get(block.block_id, set())
        if block.block_hash is None:
            return None
        if self._rank(block)[1] == -math.inf:
            return "nobody"
        return next(iter(users)) if len(users) == 1 else None

    def _rank(self, block: KVCacheBlock) -> tuple[bool, float]:
        users = self._users.get(block.block_id, ())
        return block.block_hash is not None, -min((self._ranks[user] for user in users), default=math.inf)


def live(manager: KVCacheManager, rng: random.Random, turns: int, witness: Witness | None = None) -> int:
    """Serve random requests, several at a time, whose prompts share prefixes; now and then blocks are declared
    invalid or everything is reset. Return how many requests were begun."""
    running: list[Any] = []
    begun = 0
    for _ in range(turns):
        happens = rng.random()
        if happens < 0.35 and running:
            manager.free(running.pop(rng.randrange(len(running))))
        elif happens < 0.38:
            invalid = rng.randrange(1, 25)
            manager.evict_blocks({invalid})
            if witness is not None:
                witness.emptied(invalid)
        elif happens < 0.39 and not running and witness is None:
            assert manager.reset_prefix_cache()
        else:
            agent = rng.choice([None, *(f"s/a{number}" for number in range(8))])
            common = prompt(rng.randrange(3), rng.randrange(4))[:-1]
            wanted = request(agent, [*common, *prompt(10 + rng.randrange(12), rng.randrange(1, 5))])
            found = manager.get_computed_blocks(wanted)
            if witness is not None:
                witness.hit(agent, found[0].blocks[0])
            if manager.allocate_slots(wanted, wanted.num_tokens - found[1], found[1], found[0]) is None:
                continue
            if witness is not None:
                witness.stored(agent, manager.get_blocks(wanted.request_id).blocks[0])
            running.append(wanted)
            begun += 1
    for wanted in running:
        manager.free(wanted)
    return begun


def free_of(manager: KVCacheManager) -> list[KVCacheBlock]:
    """Return the free blocks in the engine's own order."""
    blocks: list[KVCacheBlock] = manager.block_pool.free_block_queue.get_all_free_blocks()
    return blocks


def main() -> None:
    """Run all checks; say on one line of JSON each what became of it."""
    checks: dict[str, Callable[[], None]] = {
        name: value for name, value in globals().items() if name.startswith("check_")
    }
    said = sys.stdout
    for name, check in checks.items():
        lines: list[str] = []
        sys.stdout = SimpleNamespace(write=lines.append, flush=lambda: None)
        try:
            check()
            error = None
        except Exception:  # noqa: BLE001 - whatever a check raises is its report
            error = traceback.format_exc()
        finally:
            sys.stdout = said
        print(json.dumps({"check": name, "error": error, "said": "".join(lines)}), flush=True)


if __name__ == "__main__":
    main()
