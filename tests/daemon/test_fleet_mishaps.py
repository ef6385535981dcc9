"""What goes wrong between daemons is counted, costs one simulation its news for a while, and ends no daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import time
from typing import Any

import pytest

from scalesim_daemon.fleet.lease import Answer, Ask, Lease, Terms, Verb
from scalesim_daemon.fleet.lease_clock import now
from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.fleet.shared import Shared
from scalesim_daemon.fleet.words import Bound, Head, Told, Word, pack
from scalesim_daemon.gate import Stream
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.population import Memory
from tests.daemon.fleet_rig import member, store
from tests.daemon.live import until
from tests.daemon.still import add_engine, open_stream, say, still_sidecar
from tests.daemon.stores import client

TOLD = Head("step", 0.0, 1.0, 1.0, 1.0, tells_calls=False, whole=True)


def test_a_fault_in_one_simulation_ends_nobody_and_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where it is told nor where it is heard, nor what a fault in all of it does."""
    head, foretell, beats = SharedPopulation.head, SharedPopulation.foretell, []

    def no_head(self: SharedPopulation, source: str, whole: bool) -> Head:
        return head(self, source, whole) if source != "untold" else {}["a fault"]

    def no_foretelling(self: SharedPopulation, stream: Stream, *rest: Any, **more: Any) -> None:
        if stream.simulation == "unheard":
            raise AttributeError("a fault")
        foretell(self, stream, *rest, **more)

    def no_engines(self: Shared) -> dict[str, Any]:
        beats.append(self)
        if len(beats) < 3:
            raise AttributeError("a fault")
        return {}

    monkeypatch.setattr(SharedPopulation, "head", no_head)
    monkeypatch.setattr(SharedPopulation, "foretell", no_foretelling)
    monkeypatch.setattr(Shared, "_own_engines", no_engines)

    async def scene() -> None:
        async with (
            store() as redis,
            member(tmp_path, "a", redis.url) as (a, _),
            member(tmp_path, "b", redis.url) as (b, _),
        ):
            started = {"type": "agent.activity_started", "until": 9.0}
            for simulation in ("untold", "unheard", "fine"):
                open_stream(a, simulation)
                say(a, started | {"agent": "x"}, simulation=simulation)

            async def heard() -> bool:
                return "fine/x" in b.population.agents

            await until(heard)
            for simulation in ("unheard", "fine"):
                say(a, started | {"agent": "y"}, simulation=simulation)

            async def heard_again() -> bool:
                return "fine/y" in b.population.agents

            await until(heard_again)
            assert a.counts["fleet_faults"] and b.counts["fleet_faults"]

    asyncio.run(scene())


def test_of_who_has_gone_nothing_waits_to_be_told(tmp_path: Path) -> None:
    """Nobody asks for it any more, and it would stay."""
    population = SharedPopulation()
    sidecar = still_sidecar(tmp_path, population=population)
    open_stream(sidecar)
    for agent in ("rosa", "ben"):
        about = {"agent": agent}
        say(sidecar, {"type": "agent.woken", **about}, {"type": "invocation.started", **about})
    say(sidecar, {"type": "agent.released", "agent": "rosa"})
    assert set(population.calls) == set(population.woken) == {("sim", "sim/ben")}
    say(sidecar, {"type": "stream.closed"})
    assert not population.calls and not population.woken
    sidecar.library.close()


def test_numbers_that_cannot_be_are_not_taken_in_and_counted(tmp_path: Path) -> None:
    """The other agents of a source are, and its next word."""

    async def scene() -> None:
        async with store() as redis, client(redis.url) as look, member(tmp_path, "b", redis.url) as (b, _):
            await look.hset("ss:daemons", "a#1", "1")
            told = {"x": Told(5.0, 0.5), "nan": Told(float("nan")), "many": Told(in_flight=10**9)}
            await look.hset("ss:{s}:owners", "source", "1 2 3 a#1")
            await look.hset("ss:{s}:heads", "source", pack(TOLD))
            for name, one in told.items():
                await look.hset("ss:{s}:told:source", name, pack(one))
            await look.zadd("ss:simulations", {"s": time()})

            async def heard() -> bool:
                return set(b.population.agents) == {"s/x"}

            await until(heard)
            assert b.counts["fleet_words_refused"] >= 2
            infinite = pack(Word(TOLD, {"x": Told(float("inf"))}))
            await look.xadd("ss:{s}:changes", {"s": "source", "o": "1 2 4 a#1", "w": infinite})
            await look.hset("ss:{s}:told:source", "x", pack(Told(6.0, 0.5)))
            await look.hset("ss:{s}:owners", "source", "1 2 5 a#1")
            word = pack(Word(TOLD, {"x": Told(6.0, 0.5)}))
            await look.xadd("ss:{s}:changes", {"s": "source", "o": "1 2 5 a#1", "w": word})
            await look.publish("ss:bell", "changed\ns")

            async def told_anew() -> bool:
                due = b.population.board.get("s/x")
                return due is not None and due.at == 6.0

            await until(told_anew)

    asyncio.run(scene())


def fleet_of_one(folder: Path) -> tuple[Sidecar, SharedPopulation, Shared, Lease]:
    """A daemon that drives its engine, and knows the memory of an agent there by another's word."""
    population = SharedPopulation()
    sidecar = still_sidecar(folder, population=population)
    shared = sidecar.shared = sidecar.homes.shared = Shared(sidecar, population, "redis://127.0.0.1:9")
    lease = add_engine(sidecar, "one").view.lease = Lease("here/1", Terms.of(5.0))
    lease.answered(Ask(Verb.LOOK, 0, now()), Answer("here/1", 7, 4.0, ready=True), now())
    sidecar.homes.placement.moved("s/x", "one")
    shared.hold_where_driven()
    word = Word(TOLD, {"x": Told(memory=Bound(lora="/l/x", lora_name="x"))})
    population.foretell(Stream("s of s, told", "s", 1, "step", "a"), word, 0.0)
    return sidecar, population, shared, lease


def test_memory_is_kept_over_a_hiccup_of_redis_until_another_daemon_drives(tmp_path: Path) -> None:
    sidecar, population, shared, lease = fleet_of_one(tmp_path)
    memory = Memory(lora="/l/x", lora_name="x")
    assert population.agents["s/x"].memory == memory
    lease.failed(Ask(Verb.RENEW, 7, now()), "no answer", now())
    lease.answered(Ask(Verb.RENEW, 7, now()), Answer(token=7), now())
    assert not shared.drives("one")
    shared.hold_where_driven()
    assert population.agents["s/x"].memory == memory
    lease.answered(Ask(Verb.LOOK, 7, now()), Answer("there/1", 8, 4.0), now())
    shared.hold_where_driven()
    assert population.agents["s/x"].memory is None
    sidecar.library.close()
