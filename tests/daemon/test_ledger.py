from __future__ import annotations

from scalesim_daemon.ledger import Ledger


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
