"""The host tier's bookkeeping: what it holds is what it says, and what is needed latest goes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.dues import DueTable
from scalesim_adapters.tierranking import Ranking
from scalesim_adapters.vllm.plugin.tier import Moves, Tier

AGENTS = 6


def table_of(dues: dict[str, float]) -> DueTable:
    table = DueTable()
    assert table.apply({"type": "snapshot", "clocks": {"c": (0.0, 1.0)}, "dues": {}}, 0.0)
    tell(table, dues)
    return table


def tell(table: DueTable, dues: dict[str, float], wall: float = 0.0) -> None:
    message = {"type": "delta", "clocks": {}, "dues": {agent: ("c", due) for agent, due in dues.items()}}
    assert table.apply(message, wall)


def chain(agent: str, *turns: int, shared: int = 1, own: int = 3) -> list[bytes]:
    """Return the keys of a prompt: what all agents share, the agent's own, and one block per turn."""
    parts = [f"all{i}" for i in range(shared)] + [f"{agent}/{i}" for i in range(own)]
    parts += [f"{agent}/t{'.'.join(map(str, turns[: i + 1]))}" for i in range(len(turns))]
    return [part.encode() for part in parts]


@dataclass
class Machine:
    """A device of some blocks that evicts what was used longest ago, tails first, and the tier behind it. `memory` and
    `host` hold what the copies really put there."""

    blocks: int
    tier: Tier
    device: dict[bytes, int] = field(default_factory=dict)  # oldest first
    memory: dict[int, bytes] = field(default_factory=dict)
    host: dict[int, bytes] = field(default_factory=dict)
    computed: int = 0
    copied: int = 0
    requests: int = 0

    def serve(
        self, agent: str | None, keys: Sequence[bytes], wall: float = 0.0, aborted: bool = False
    ) -> int:
        """Serve a request as the engine does; return how many blocks came from the host."""
        self.requests += 1
        if agent is not None:
            self.tier.ranking.used(agent, f"r{self.requests}", keys)
        local = 0
        while local < len(keys) and keys[local] in self.device:
            local += 1
        found = local
        while found < len(keys) and self.tier.has(keys[found]):
            assert not self.tier.leaves(keys[found])
            found += 1
        held = {self.device[key] for key in keys[:local]}
        slots = self.tier.load(keys[local:found])
        evicted, given = self._allocate(len(keys) - local, held)
        arriving = dict(zip(given, slots, strict=False))
        self._move(self.tier.evicted(evicted, arriving, wall))
        for key, block, slot in zip(keys[local:found], given, slots, strict=False):
            if not self.tier.leaves(key):
                self.memory[block] = self.host[slot]
            assert self.memory[block] == key, "the device got another block's content"
        self.tier.loaded(keys[local:found])
        if aborted:
            return 0
        for key, block in zip(keys[found:], given[found - local :], strict=True):
            self.memory[block] = key
        self.tier.computed(keys[found:])
        self.computed += len(keys) - found
        for key, block in zip(keys[local:], given, strict=True):
            self.device.pop(key, None)
            self.device[key] = block
        for key in reversed(keys):
            self.device[key] = self.device.pop(key)
        self.check()
        return found - local

    def check(self) -> None:
        """The bookkeeping agrees with the memory."""
        slots = [slot for slot, key in self.host.items() if self.tier._slots.get(key) == slot]
        assert len(slots) == len(self.tier) <= self.tier.count
        assert len(self.tier) + len(self.tier._free) == self.tier.count

    def _allocate(self, count: int, held: set[int]) -> tuple[list[tuple[int, bytes]], list[int]]:
        used = set(self.device.values())
        given = [block for block in range(self.blocks) if block not in used][:count]
        evicted = []
        for key, block in list(self.device.items()):
            if len(given) == count:
                break
            if block not in held:
                del self.device[key]
                evicted.append((block, key))
                given.append(block)
        assert len(given) == count
        return evicted, given

    def _move(self, moves: Moves) -> None:
        for move in moves.moves:
            assert self.memory[move.block] == move.key, "the host got another block's content"
            other = self.host.get(move.slot)
            self.host[move.slot] = self.memory[move.block]
            if move.exchange:
                assert other is not None
                self.memory[move.block] = other
            self.copied += 1


def machine(blocks: int, slots: int, table: DueTable | None = None) -> Machine:
    device: dict[bytes, int] = {}
    tier = Tier(slots, {}, table or DueTable(), lambda key: key in device)
    return Machine(blocks, tier, device)


def test_device_and_host_together_hold_what_fits_into_both() -> None:
    scene = machine(blocks=8, slots=8, table=table_of({f"a{n}": n for n in range(4)}))
    prompts = [chain(f"a{n}", shared=0, own=4) for n in range(4)]
    for _ in range(3):
        for number, keys in enumerate(prompts):
            scene.serve(f"a{number}", keys)
    assert scene.computed == 16
    assert len(scene.tier) + len(scene.device) == 16


def test_the_farthest_agent_goes_first_and_a_farther_newcomer_stays_outside() -> None:
    table = table_of({"near": 1, "far": 9, "farther": 20, "now": 0})
    scene = machine(blocks=4, slots=4, table=table)
    for agent in ("far", "near", "now"):
        scene.serve(agent, chain(agent, shared=0, own=4))
    assert all(scene.tier.has(key) for key in chain("near", shared=0, own=4))
    scene.serve("farther", chain("farther", shared=0, own=4))
    assert not any(scene.tier.has(key) for key in chain("near", shared=0, own=4))
    scene.serve("far", chain("far", shared=0, own=4))
    assert not any(scene.tier.has(key) for key in chain("farther", shared=0, own=4))
    assert all(scene.tier.has(key) for key in chain("now", shared=0, own=4))


def test_blocks_that_come_and_blocks_that_go_change_places() -> None:
    scene = machine(blocks=4, slots=4, table=table_of({"a": 1, "b": 9}))
    for _ in range(5):
        scene.serve("a", chain("a", shared=0, own=4))
        scene.serve("b", chain("b", shared=0, own=4))
    assert scene.computed == 8


def test_dues_that_change_change_the_order() -> None:
    table = table_of({"a": 1, "b": 5, "c": 0, "d": 2})
    scene = machine(blocks=2, slots=4, table=table)
    for agent in ("a", "b", "c"):
        scene.serve(agent, chain(agent, shared=0, own=2))
    assert scene.tier.has(b"b/0")
    tell(table, {"a": 50, "b": 1})
    scene.serve("d", chain("d", shared=0, own=2))
    assert scene.tier.has(b"b/0")
    assert scene.tier.has(b"c/0")
    assert not scene.tier.has(b"a/0")


def test_a_shared_block_is_as_near_as_its_nearest_user() -> None:
    table = table_of({"a": 50, "b": 40, "c": 20, "d": 3})
    scene = machine(blocks=3, slots=3, table=table)
    scene.serve("a", chain("a", shared=1, own=2))
    scene.serve("b", chain("b", shared=1, own=2))
    scene.serve("c", chain("c", shared=0, own=3))
    assert scene.tier.has(b"all0")
    tell(table, {"a": 1})
    scene.serve("d", chain("d", shared=0, own=3))
    assert scene.tier.has(b"all0")
    assert not scene.tier.has(b"b/0")


def test_a_prompt_that_fits_in_part_keeps_its_head() -> None:
    scene = machine(blocks=4, slots=2, table=table_of({"a": 5, "b": 1}))
    scene.serve("a", chain("a", shared=0, own=4))
    scene.serve("b", chain("b", shared=0, own=4))
    assert [scene.tier.has(key) for key in chain("a", shared=0, own=4)] == [True, True, False, False]


def test_what_only_old_requests_had_goes_before_what_is_far() -> None:
    table = table_of({"a": 1, "far": 90, "b": 0, "c": 0})
    scene = machine(blocks=5, slots=9, table=table)
    for turn in range(3):
        scene.serve("a", chain("a", turn, shared=0, own=4))
    scene.serve("far", chain("far", shared=0, own=5))
    scene.serve("b", chain("b", shared=0, own=5))
    assert not scene.tier.has(b"a/t0")
    assert all(scene.tier.has(key) for key in chain("a", shared=0, own=4))


def test_where_a_prompt_leaves_the_one_before_its_rest_is_not_kept() -> None:
    ranking = Ranking(table_of({"a": 1}))
    ranking.used("a", "r1", chain("a", 1, shared=0, own=4))
    assert not ranking.outdated(b"a/t1")
    ranking.used("a", "r2", chain("a", 2, shared=0, own=4))
    assert ranking.outdated(b"a/t2")
    assert not any(ranking.outdated(key) for key in chain("a", shared=0, own=4))


def test_a_talk_that_grows_is_kept_and_so_is_another_kind_of_prompt() -> None:
    ranking = Ranking(table_of({"a": 1}))
    for turns in ([1], [1, 2], [1, 2, 3]):
        ranking.used("a", f"r{turns}", chain("a", *turns, shared=0, own=4))
    ranking.used("a", "other", chain("a-reflects", shared=0, own=4))
    kept = chain("a", 1, 2, 3, shared=0, own=4) + chain("a-reflects", shared=0, own=4)
    assert not any(ranking.outdated(key) for key in kept)


def test_an_agent_whose_outdated_blocks_come_again_keeps_all_of_its_prompts_from_then_on() -> None:
    ranking = Ranking(table_of({"a": 1}))
    for number, turn in enumerate((1, 2, 2, 3)):
        ranking.used("a", f"r{number}", chain("a", turn, shared=0, own=4))
    assert not ranking.outdated(b"a/t2")
    assert not ranking.outdated(b"a/t3")


def test_what_a_request_adds_while_it_runs_belongs_to_it() -> None:
    ranking = Ranking(table_of({"a": 1}))
    ranking.used("a", "r1", chain("a", 1, shared=0, own=4))
    ranking.used("a", "r1", chain("a", 1, 2, shared=0, own=4))
    ranking.used("a", "r2", chain("a", 1, 2, 3, shared=0, own=4))
    assert not any(ranking.outdated(key) for key in chain("a", 1, 2, 3, shared=0, own=4))


def test_with_a_stale_table_the_agent_asked_longest_ago_goes_first() -> None:
    table = table_of({"a": 1, "b": 2, "c": 3, "d": 0})
    late = table.silence + 1
    scene = machine(blocks=2, slots=4, table=table)
    for agent in ("b", "a", "c", "d"):
        scene.serve(agent, chain(agent, shared=0, own=2), wall=late)
    assert not scene.tier.has(b"b/0")
    assert scene.tier.has(b"a/0")
    assert scene.tier.has(b"c/0")


def test_without_any_tag_or_due_it_is_a_tier_by_recency() -> None:
    scene = machine(blocks=2, slots=4)
    for name in "abcd":
        scene.serve(None, chain(name, shared=0, own=2))
    assert [scene.tier.has(f"{name}/0".encode()) for name in "abcd"] == [False, True, True, False]


def test_content_of_an_earlier_process_is_used_and_goes_before_what_is_known() -> None:
    device: dict[bytes, int] = {}
    held = {0: b"a/0", 1: b"a/1", 2: b"x/0", 3: b"x/0"}
    tier = Tier(4, held, table_of({"a": 1, "b": 2, "c": 0}), lambda key: key in device)
    scene = Machine(2, tier, device, host=dict(held))
    assert len(tier) == 3
    assert scene.serve("a", [b"a/0", b"a/1"]) == 2
    scene.serve("b", chain("b", shared=0, own=2))
    scene.serve("c", chain("c", shared=0, own=2))
    assert not tier.has(b"x/0")
    assert tier.has(b"a/0")


def test_a_block_that_the_device_had_twice_takes_one_slot() -> None:
    tier = Tier(3, {}, DueTable(), lambda key: False)
    moves = tier.evicted([(1, b"twice"), (2, b"once"), (3, b"twice")], {}, 0.0)
    assert sorted(move.key for move in moves.moves) == [b"once", b"twice"]
    assert [tier.evicted([(4, key)], {}, 0.0).dropped for key in (b"third", b"fourth")] == [[], [b"once"]]


def test_a_reset_empties_the_tier() -> None:
    scene = machine(blocks=2, slots=4)
    for name in "abc":
        scene.serve(name, chain(name, shared=0, own=2))
    scene.tier.clear()
    scene.device.clear()
    assert len(scene.tier) == 0
    assert scene.serve("a", chain("a", shared=0, own=2)) == 0


def test_users_of_vanished_blocks_are_forgotten() -> None:
    scene = machine(blocks=4, slots=4, table=table_of({"a": 1}))
    for turn in range(6000):
        scene.serve(f"s{turn}", chain(f"s{turn}", shared=0, own=4))
    assert len(scene.tier.ranking) <= 16384 + 4
    assert len(scene.tier.ranking._prompts) < 4200


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, AGENTS),
        st.integers(0, 2),
        st.integers(0, 3),
        st.dictionaries(st.integers(0, AGENTS - 1), st.integers(0, 30), max_size=3),
        st.sampled_from([0.0, 0.0, 0.0, 10.0]),
        st.integers(0, 9),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(REQUESTS, st.integers(6, 14), st.integers(1, 16))
def test_whatever_happens_every_copy_has_the_right_content(
    requests: list[tuple[int, int, int, dict[int, int], float, int]], blocks: int, slots: int
) -> None:
    table = table_of({f"a{n}": n for n in range(AGENTS)})
    scene = machine(blocks, slots, table)
    for agent, turns, own, dues, wall, fate in requests:
        tell(table, {f"a{n}": due for n, due in dues.items()})
        name = f"a{agent}" if agent < AGENTS else None
        scene.serve(name, chain(f"a{agent}", *range(turns), own=own), wall, aborted=fate == 0)
    scene.check()
