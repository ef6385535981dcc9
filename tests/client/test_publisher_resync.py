"""The newest state reaches every daemon, whatever it missed and however often it comes anew."""

from __future__ import annotations

import time
from pathlib import Path
from resource import getpagesize

import pytest
from router import Router

from scalesim_client import link
from scalesim_client.events import (
    AgentActivated,
    AgentRegistered,
    AgentReleased,
    MemoryBound,
    PathDeclared,
    PlanDeclared,
    StepAdvanced,
)
from scalesim_client.publisher import Publisher

DEADLINE = 10.0


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


def test_a_welcome_that_asks_for_state_gets_a_snapshot(router: Router) -> None:
    with Publisher("village", address=router.address) as publisher:
        publisher.step(3)
        publisher.bind("Ada", text="persona")
        publisher.activity("Ada", for_=2)
        router.welcome(resync=True)
        parts, events = router.snapshot()
        assert [part.events[0]["now"] for part in parts] == [3]
        assert events == [
            {"type": "agent.registered", "agent": "Ada"},
            {"type": "memory.bound", "agent": "Ada", "text": "persona"},
            {"type": "agent.activity_started", "agent": "Ada", "until": 5, "now": 3},
        ]
        assert publisher.flush(DEADLINE)
        assert publisher.sent == 3


def test_a_resync_is_answered_once_however_often_it_is_said(router: Router) -> None:
    with Publisher("village", address=router.address) as publisher:
        opened = router.welcome(resync=True)
        publisher.send(*(AgentRegistered(agent=str(n)) for n in range(2500)))
        router.events_until(lambda event: event.get("agent") == "2499")
        router.reply(opened, "resync", last_seq=2**40)
        parts, events = router.snapshot()
        assert len(events) == 2500
        assert [len(part.events[0]["events"]) for part in parts] == [1000, 1000, 500]
        # What a daemon says that hears the parts one by one, and then one that has lost something later.
        for part in parts[:-1]:
            router.reply(part, "resync")
        router.reply(parts[-1], "resync")
        again, _ = router.snapshot()
        publisher.step(1)
        assert router.receive().types == ["step.advanced"]
        assert again[0].seq == parts[-1].seq + 1


def test_an_unknown_stream_opens_again(router: Router) -> None:
    with Publisher("village", address=router.address) as publisher:
        first = router.welcome()
        publisher.moved("Ada", place="park")
        moved = router.receive()
        router.reply(moved, "resync", last_seq=-1)
        again = router.welcome()
        assert (again.seq, again.events) == (moved.seq + 1, first.events)
        _, events = router.snapshot()
        assert [event["type"] for event in events] == ["agent.registered", "agent.moved"]


def test_a_restarted_daemon_hears_the_newest_state() -> None:
    with Router() as first:
        publisher = Publisher("village", address=first.address, incarnation=1)
        opened = first.welcome()
        publisher.send(
            StepAdvanced(now=1),
            PathDeclared(path="rumour", nodes=["Ada", "Bob", "Cyd"]),
            AgentActivated(agent="Ada", path="rumour"),
            PlanDeclared(agents=["Bob"], at=4),
            MemoryBound(agent="Bob", text="persona"),
            AgentRegistered(agent="Dan"),
        )
        heard = first.events_until(lambda event: event.get("agent") == "Dan")
        assert len(heard) == 6
    with publisher:
        # The old door is shut: what is said now is state alone.
        deadline = time.monotonic() + DEADLINE
        while publisher.dropped == 0:
            publisher.step(2)
            assert time.monotonic() < deadline
        publisher.activity("Bob", until=9)
        publisher.send(AgentReleased(agent="Dan"), PlanDeclared(agents=["Ada"], at=6))
        with Router(first.address) as second:
            reopened = second.welcome()
            assert reopened.events == opened.events
            assert reopened.seq > opened.seq
            parts, events = second.snapshot()
            assert parts[0].seq == reopened.seq + 1
            assert parts[0].events[0]["now"] == 2
            assert events == [
                {
                    "type": "path.declared",
                    "path": "rumour",
                    "nodes": ["Ada", "Bob", "Cyd"],
                    "hop": 1.0,
                    "now": 1,
                },
                {"type": "agent.registered", "agent": "Ada"},
                {"type": "agent.activated", "agent": "Ada", "path": "rumour", "now": 1},
                {"type": "agent.registered", "agent": "Bob"},
                {"type": "memory.bound", "agent": "Bob", "text": "persona"},
                {"type": "agent.activity_started", "agent": "Bob", "until": 9, "now": 2},
                {"type": "plan.declared", "agents": ["Ada"], "at": 6, "now": 2},
            ]
            publisher.step(3)
            assert second.receive().events == [{"type": "step.advanced", "now": 3}]


def test_no_daemon_costs_neither_time_nor_memory(router: Router) -> None:
    address = router.address
    router.context.destroy(linger=0)
    sends, agents = 200_000, 1000
    with Publisher("village", address=address) as publisher:
        before = resident_bytes()
        for number in range(sends):
            publisher.activity(str(number % agents), until=number)
        assert resident_bytes() - before < 48 * 1024 * 1024
        assert publisher.sent == 0
        with Router(address) as late:
            late.welcome(resync=True)
            _, events = late.snapshot()
            until = {e["agent"]: e["until"] for e in events if e["type"] == "agent.activity_started"}
            assert until == {str(agent): sends - agents + agent for agent in range(agents)}
            assert len(events) == 2 * agents
            assert publisher.flush(DEADLINE)
        assert publisher.dropped + publisher.sent == sends


def test_a_daemon_that_stops_reading_gets_the_newest_state_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SEND_HIGH_WATER_MARK", 2)
    with Router(receive_mark=1) as router, Publisher("village", address=router.address) as publisher:
        router.welcome()
        filler = "x" * 65_536
        for number in range(1000):
            publisher.bind(f"agent {number % 10}", text=f"{number} {filler}")
        assert publisher.dropped > 0
        newest: dict[str, str] = {}
        while sorted(newest.values()) != [str(number) for number in range(990, 1000)]:
            for event in router.receive().events:
                for bound in event.get("events", [event]):
                    if bound["type"] == "memory.bound":
                        newest[bound["agent"]] = bound["text"].split()[0]
        assert publisher.flush(DEADLINE)
        assert publisher.sent + publisher.dropped == 1000


def test_parts_of_a_snapshot_stay_near_a_mebibyte(router: Router) -> None:
    with Publisher("village", address=router.address) as publisher:
        for number in range(5):
            publisher.bind(str(number), text="x" * 400_000)
        publisher.bind("big", text="x" * 3_000_000)
        router.welcome(resync=True)
        parts, _ = router.snapshot()
        sizes = [sum(len(e.get("text", "")) for e in part.events[0]["events"]) for part in parts]
        assert sizes == [800_000, 800_000, 400_000, 3_000_000]


def test_the_state_is_said_again_from_time_to_time(router: Router) -> None:
    with Publisher("village", address=router.address, snapshot_every=0.05) as publisher:
        router.welcome()
        publisher.moved("Ada", place="park")
        for _ in range(2):
            while not any(event["type"] == "agent.moved" for event in router.snapshot()[1]):
                pass


def test_a_stream_without_welcome_is_opened_again(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "WELCOME_WAIT", 0.05)
    with Publisher("village", address=router.address) as publisher:
        publisher.moved("Ada", place="park")
        assert router.receive().types == ["stream.opened"]
        again = router.receive()
        assert (again.seq, again.types) == (1, ["stream.opened"])
        router.reply(again, "welcome")
        _, events = router.snapshot()
        assert events[-1]["place"] == "park"
        assert (publisher.sent, publisher.dropped) == (0, 1)


def test_a_refused_stream_stays_silent_until_another_daemon_comes(caplog: pytest.LogCaptureFixture) -> None:
    with Router() as first:
        publisher = Publisher("village", address=first.address)
        opened = first.receive()
        first.reply(opened, "welcome", error="schema version 1.0 is not supported")
        deadline = time.monotonic() + DEADLINE
        while publisher.dropped == 0:
            publisher.moved("Ada", place="park")
            assert time.monotonic() < deadline
        assert "refuses stream 'village': schema version 1.0 is not supported" in caplog.text
        assert not first.socket.poll(0)
    with publisher, Router(first.address) as second:
        second.welcome()
        assert second.snapshot()[1][-1]["type"] == "agent.moved"
