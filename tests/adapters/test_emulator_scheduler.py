"""Continuous batching, step by step."""

from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.emulator.cache import PrefixCache
from scalesim_adapters.emulator.chain import Chain
from scalesim_adapters.emulator.config import EmulatorConfig
from scalesim_adapters.emulator.loras import Lora
from scalesim_adapters.emulator.scheduler import Scheduler, Sequence

SIZE = 4
CONFIG = EmulatorConfig(
    blocks=16, block_size=SIZE, max_model_len=64, max_num_batched_tokens=8, max_num_seqs=4, max_loras=1
)


class Rig:
    """A scheduler and the requests that were given to it."""

    def __init__(self, config: EmulatorConfig = CONFIG) -> None:
        self.cache = PrefixCache(config.blocks, config.block_size)
        self.scheduler = Scheduler(config, self.cache)
        self.sequences: list[Sequence] = []

    def add(
        self, first: int, tokens: int, max_tokens: int = 1, priority: int = 0, lora: Lora | None = None
    ) -> Sequence:
        chain = Chain(SIZE, list(range(first, first + tokens)), lora)
        sequence = Sequence(len(self.sequences), chain, max_tokens, priority)
        self.sequences.append(sequence)
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> dict[Sequence, int]:
        step = self.scheduler.schedule()
        self.scheduler.finish(step)
        return step.sequences

    def run(self) -> None:
        while self.scheduler.running or self.scheduler.waiting:
            assert self.step(), "it is stuck"


def test_two_requests_share_steps() -> None:
    rig = Rig()
    a, b = rig.add(0, 5, max_tokens=3), rig.add(100, 6, max_tokens=2)
    assert rig.step() == {a: 5, b: 3}
    assert rig.step() == {a: 0, b: 3}
    assert rig.step() == {a: 0, b: 0}
    assert not rig.scheduler.running
    assert rig.scheduler.totals.finished == {"length": 2}
    assert rig.scheduler.totals.generated == 5


def test_a_request_that_overlaps_another_shares_its_blocks() -> None:
    rig = Rig()
    first = rig.add(0, 17)
    rig.step()
    second = rig.add(0, 17)
    rig.run()
    assert (first.cached, second.cached) == (0, 16)
    assert rig.scheduler.totals.prefix_hits == 16


def test_urgent_requests_overtake_under_priority_alone() -> None:
    for policy, expected in (("priority", [1, 0]), ("fcfs", [0, 1])):
        rig = Rig(
            EmulatorConfig(
                blocks=16, block_size=SIZE, max_model_len=64, max_num_seqs=1, scheduling_policy=policy
            )
        )
        rig.add(0, 5, priority=10)
        rig.add(100, 5)
        order = [sequence.arrival for _ in range(2) for sequence in rig.step()]
        assert order == expected


def test_a_prompt_that_does_not_fit_waits_for_blocks() -> None:
    rig = Rig()
    first = rig.add(0, 40, max_tokens=2)
    second = rig.add(100, 40)
    while first in rig.scheduler.running or not first.outputs:
        rig.step()
        if first in rig.scheduler.running:
            assert second in rig.scheduler.waiting
    rig.run()
    assert second.outputs == 1


def test_running_out_of_blocks_preempts_the_least_urgent() -> None:
    rig = Rig()
    urgent = rig.add(0, 31, max_tokens=20)
    late = rig.add(100, 30, max_tokens=20, priority=1)
    rig.run()
    assert rig.scheduler.totals.preemptions == 1
    assert urgent.outputs == late.outputs == 20
    assert rig.scheduler.totals.finished == {"length": 2}


def test_a_lora_waits_for_a_slot_and_lets_others_by() -> None:
    rig = Rig()
    a, b = Lora(1, "a", "/a"), Lora(2, "b", "/b")
    running = rig.add(0, 4, max_tokens=3, lora=a)
    deferred = rig.add(100, 4, lora=b)
    other = rig.add(200, 4)
    assert rig.step() == {running: 4, other: 4}
    assert rig.scheduler.deferred == [deferred]
    rig.run()
    assert deferred.outputs == 1


def test_an_aborted_request_leaves_its_chunks() -> None:
    rig = Rig()
    aborted = rig.add(0, 40)
    rig.step()
    rig.step()
    rig.scheduler.abort(aborted)
    rig.scheduler.abort(aborted)
    assert rig.cache.free == CONFIG.blocks
    again = rig.add(0, 40)
    rig.run()
    assert again.cached == 16
    assert rig.scheduler.totals.finished == {"length": 1}


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(1, 50),
            st.integers(1, 14),
            st.integers(0, 2),
            st.sampled_from([0, 1, 2]),
        ),
        max_size=12,
    ),
    st.data(),
)
def test_everything_ends_within_budget_and_gives_back_its_blocks(
    asked: list[tuple[int, int, int, int, int]], data: st.DataObject
) -> None:
    rig = Rig()
    aborted: set[Sequence] = set()
    for family, tokens, max_tokens, priority, lora in asked:
        rig.add(
            family * 1000, tokens, max_tokens, priority, Lora(lora, f"l{lora}", f"/{lora}") if lora else None
        )
        step = rig.scheduler.schedule()
        assert step.prefill_tokens + step.decodes <= CONFIG.max_num_batched_tokens
        assert len(step.loras) <= CONFIG.max_loras
        assert len(rig.scheduler.running) <= CONFIG.max_num_seqs
        rig.scheduler.finish(step)
        if data.draw(st.booleans()) and rig.scheduler.running:
            victim = data.draw(st.sampled_from(rig.scheduler.running))
            rig.scheduler.abort(victim)
            aborted.add(victim)
    rig.run()
    assert rig.cache.free == CONFIG.blocks
    for sequence, (_, _, max_tokens, _, _) in zip(rig.sequences, asked, strict=True):
        if sequence not in aborted:
            assert sequence.outputs == max_tokens
