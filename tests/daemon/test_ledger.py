from __future__ import annotations

from collections import Counter

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.ledger import Ledger
from scalesim_daemon.plan import Action, Step


def load(key: str, start: int, stop: int, kind: MemoryKind = MemoryKind.PREFIX_KV) -> Step:
    return Step(Action.LOAD, kind, key, start, stop, 1.0, "due next")


def test_chunks_of_one_invocation_are_one_prefetch() -> None:
    ledger = Ledger()
    ledger.loaded("a", 256)
    ledger.loaded("a", 100)
    assert (ledger.prefetches, ledger.tokens, ledger.pending) == (1, 356, (1, 356))
    ledger.invoked("a", 1024)
    assert (ledger.used, ledger.wasted, ledger.tokens_wasted, ledger.pending) == (1, 0, 0, (0, 0))


def test_what_was_lost_before_the_call_is_wasted() -> None:
    ledger = Ledger()
    ledger.loaded("a", 300)
    ledger.loaded("b", 200)
    ledger.invoked("a", 100)
    ledger.invoked("b", 0)
    assert (ledger.used, ledger.wasted, ledger.tokens_wasted) == (1, 1, 400)


def test_an_invocation_without_a_prefetch_counts_nothing() -> None:
    ledger = Ledger()
    ledger.invoked("a", 100)
    assert ledger == Ledger()


def test_every_prefetch_is_used_wasted_or_pending() -> None:
    ledger = Ledger()
    for agent, resident in (("a", 10), ("b", 0), ("a", 0), ("c", 5)):
        ledger.loaded(agent, 10)
        ledger.invoked(agent, resident)
    ledger.loaded("d", 10)
    assert ledger.prefetches == ledger.used + ledger.wasted + ledger.pending[0] == 5


def test_what_is_loaded_again_before_it_was_used_is_churn() -> None:
    ledger = Ledger()
    ledger.brought(load("a", 0, 16))
    ledger.brought(load("a", 16, 32))
    assert not ledger.reloads.total()
    ledger.brought(load("a", 20, 32))
    assert ledger.reloads == Counter({MemoryKind.PREFIX_KV: 1})
    ledger.brought(load("a", 0, 16))
    ledger.brought(load("a", 16, 32))
    ledger.brought(load("a", 32, 48))
    assert ledger.reloads == Counter({MemoryKind.PREFIX_KV: 3}), "the last chunk is new"
    ledger.invoked("a", 0)
    ledger.brought(load("a", 0, 16))
    assert ledger.reloads == Counter({MemoryKind.PREFIX_KV: 3})


def test_a_lora_churns_by_itself_and_a_restart_is_none() -> None:
    ledger = Ledger()
    lora = load("a", 0, 1, MemoryKind.LORA)
    ledger.brought(load("a", 0, 16))
    ledger.brought(lora)
    assert not ledger.reloads.total()
    ledger.used_up(MemoryKind.LORA, "a")
    ledger.brought(lora)
    ledger.restarted()
    ledger.brought(lora)
    assert not ledger.reloads.total()
    ledger.brought(lora)
    assert ledger.reloads == Counter({MemoryKind.LORA: 1})


def test_what_was_found_is_never_more_than_what_was_looked_for() -> None:
    ledger = Ledger()
    ledger.called(100, 64)
    ledger.called(100, 128)
    assert (ledger.prefix_tokens, ledger.found_tokens) == (200, 164)
