"""The prefix cache as a state machine, and the order in which it evicts."""

from collections import Counter
from itertools import takewhile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from scalesim_adapters.emulator.cache import PrefixCache
from scalesim_adapters.emulator.chain import Chain, published
from scalesim_adapters.emulator.events import AllBlocksCleared, BlockRemoved, BlockStored, KVEvent
from scalesim_adapters.emulator.loras import Lora

BLOCKS = 12
SIZE = 4


def chain(
    family: int, blocks: int, extra: int = 0, salt: str | None = None, lora: Lora | None = None
) -> Chain:
    """Return a chain of whole blocks and some tokens more; chains of one family share their prefix."""
    return Chain(SIZE, [family * 1000 + index for index in range(blocks * SIZE + extra)], lora, salt)


def use(cache: PrefixCache, prompt: Chain) -> list[int]:
    """Let a request hold all blocks of its prompt, as after its prefill."""
    hits = cache.match(prompt.hashes, len(prompt.tokens))
    cache.hold(hits)
    blocks = hits + cache.take(-(-len(prompt.tokens) // SIZE) - len(hits))
    cache.store(prompt, blocks, len(hits), len(prompt.hashes))
    return blocks


def hits(cache: PrefixCache, prompt: Chain) -> int:
    return len(cache.match(prompt.hashes, len(prompt.hashes) * SIZE + 1))


def replay(resident: Counter[int], events: list[KVEvent]) -> None:
    """Follow the events as a listener does: a count of copies per hash."""
    for event in events:
        match event:
            case BlockStored():
                resident.update(event.block_hashes)
            case BlockRemoved():
                for block_hash in event.block_hashes:
                    assert resident[block_hash] > 0
                resident.subtract(event.block_hashes)
            case AllBlocksCleared():
                resident.clear()


class CacheMachine(RuleBasedStateMachine):
    """Requests come and go; a listener that only reads the events must know what is resident."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(BLOCKS, SIZE)
        self.held: dict[int, tuple[Chain, list[int]]] = {}
        self.seen: list[Chain] = []
        self.resident: Counter[int] = Counter()
        self.started = 0

    @rule(
        target=running,
        family=st.integers(0, 3),
        blocks=st.integers(0, 5),
        extra=st.integers(0, SIZE - 1),
        salt=st.sampled_from([None, "pepper"]),
        lora=st.sampled_from([None, Lora(1, "a", "/a"), Lora(2, "a", "/b")]),
    )
    def start(self, family: int, blocks: int, extra: int, salt: str | None, lora: Lora | None) -> int:
        prompt = chain(family, blocks, extra, salt, lora)
        needed = -(-len(prompt.tokens) // SIZE)
        found = self.cache.match(prompt.hashes, len(prompt.tokens)) if prompt.tokens else []
        self.started += 1
        if prompt.tokens and needed - len(found) + self.cache.idle(found) <= self.cache.free:
            self.held[self.started] = (prompt, use(self.cache, prompt))
            self.seen.append(prompt)
        return self.started

    @rule(which=consumes(running))
    def end(self, which: int) -> None:
        if which in self.held:
            self.cache.release(self.held.pop(which)[1])

    @rule()
    def clear(self) -> None:
        assert self.cache.clear() is not bool(self.held)

    @invariant()
    def blocks_are_held_or_free(self) -> None:
        held = {block for _, blocks in self.held.values() for block in blocks}
        assert self.cache.free == BLOCKS - len(held)

    @invariant()
    def events_tell_what_is_resident(self) -> None:
        replay(self.resident, self.cache.drain())
        assert sum(self.resident.values()) <= BLOCKS
        for prompt in self.seen:
            run = takewhile(lambda block_hash: self.resident[published(block_hash)], prompt.hashes)
            assert hits(self.cache, prompt) == len(list(run))

    @invariant()
    def what_requests_use_stays(self) -> None:
        for prompt, _ in self.held.values():
            assert hits(self.cache, prompt) == len(prompt.hashes)


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_least_recent_goes_first_and_tails_before_heads() -> None:
    cache = PrefixCache(BLOCKS, SIZE)
    prompts = [chain(family, 3, 1) for family in range(3)]
    for prompt in prompts:
        cache.release(use(cache, prompt))
    cache.release(use(cache, prompts[0]))
    cache.drain()
    cache.take(8)
    removed = [event.block_hashes[0] for event in cache.drain() if isinstance(event, BlockRemoved)]
    tails_first = [published(block_hash) for prompt in prompts[1:] for block_hash in reversed(prompt.hashes)]
    assert removed == tails_first[:5]
    assert hits(cache, prompts[0]) == 3


def test_a_prompt_of_whole_blocks_stores_its_last_block_twice() -> None:
    cache = PrefixCache(BLOCKS, SIZE)
    prompt = chain(0, 2)
    first, second = use(cache, prompt), use(cache, prompt)
    assert first[0] == second[0] and first[1] != second[1]
    cache.release(first)
    cache.release(second)
    resident: Counter[int] = Counter()
    replay(resident, cache.drain())
    assert resident == {published(prompt.hashes[0]): 1, published(prompt.hashes[1]): 2}


def test_name_path_and_salt_keep_prefixes_apart() -> None:
    a, b = Lora(1, "a", "/one"), Lora(2, "a", "/two")
    roots = {
        chain(0, 1, lora=lora, salt=salt).hashes[0]
        for lora in (None, a, b)
        for salt in (None, "pepper", "salt")
    }
    assert len(roots) == 9
    assert chain(0, 1, lora=Lora(7, "a", "/one")).hashes == chain(0, 1, lora=a).hashes


def test_more_than_the_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="13 blocks asked for, 12 free"):
        PrefixCache(BLOCKS, SIZE).take(13)
