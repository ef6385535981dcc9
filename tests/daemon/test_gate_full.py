"""As many sources as may be open: who then makes room for another one, and who is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from scalesim_daemon.gate import MAX_SOURCES, Closed, Gate, Opened, Said
from scalesim_daemon.loop import Sidecar
from tests.daemon.api_calls import get, post
from tests.daemon.still import ask

WOKEN = {"type": "agent.woken", "agent": "a"}


def opened(name: str, incarnation: int = 1) -> dict[str, Any]:
    stream = {"type": "stream.opened", "simulation": "s", "source": name, "incarnation": incarnation}
    return {**stream, "clock": "step"}


def fill(gate: Gate, start: int = 0) -> None:
    """Let in publishers, each with a connection, until there is no room."""
    for number in range(start, MAX_SOURCES):
        assert gate.admit(str(number), 0, [opened(str(number))], b"%d" % number).error is None


@pytest.fixture
def full() -> Gate:
    gate = Gate()
    fill(gate)
    return gate


def test_who_has_a_connection_and_is_heard_in_full_gives_way_to_nobody(full: Gate) -> None:
    verdict = full.admit("more", 0, [opened("more")], b"more")
    assert verdict.error is not None and "which is the most" in verdict.error
    bare = full.admit("bare", None, [WOKEN])
    assert (bare.accepted, [refused.reason for refused in bare.refused]) == (0, [verdict.error])
    assert full.streams().keys() == {str(number) for number in range(MAX_SOURCES)}
    # Whoever was there may begin anew, and who leaves makes room.
    assert full.admit("7", 1, [opened("7", 2)], b"7").error is None
    full.admit("8", 1, [{"type": "stream.closed"}], b"8")
    assert full.admit("more", 0, [opened("more")], b"more").error is None


def test_the_longest_silent_of_those_without_a_connection_makes_room() -> None:
    gate = Gate()
    for name in ("first", "second", "third"):
        assert gate.admit(name, None, [WOKEN]).accepted == 1
    fill(gate, start=3)
    gate.admit("first", None, [WOKEN])
    went, came, said = gate.admit("more", 0, [opened("more"), WOKEN], b"more").admitted
    assert isinstance(went, Closed) and went.stream.source == "second"
    assert isinstance(came, Opened) and isinstance(said, Said)
    went, said = gate.admit("fourth", None, [WOKEN]).admitted
    assert isinstance(went, Closed) and went.stream.source == "third"
    # Who went may come back.
    went, said = gate.admit("second", None, [WOKEN]).admitted
    assert isinstance(went, Closed) and went.stream.source == "first"
    assert len(gate.streams()) == MAX_SOURCES


def test_whose_view_is_stale_makes_room_and_is_asked_to_say_all_again(full: Gate) -> None:
    full.admit("7", 5, [WOKEN], b"7")
    (went, _) = full.admit("more", 0, [opened("more")], b"more").admitted
    assert isinstance(went, Closed) and went.stream.source == "7"
    verdict = full.admit("7", 6, [WOKEN], b"7")
    assert (verdict.resync, verdict.last_seq) == (True, -1)


def test_over_http_nothing_is_lost_silently(sidecar: Sidecar) -> None:
    fill(sidecar.gate)
    answer = post(sidecar, json.dumps(WOKEN), source="bare")
    assert answer.status_code == 400 and "sources are open, which is the most" in answer.text
    step = {"timestep_cnt": 0, "agent_data": {"7": 1}}
    (update,) = asyncio.run(ask(sidecar, lambda client: client.post("/v1/update", json=step)))
    assert update.status_code == 422 and "sources are open, which is the most" in update.text
    sidecar.admit("7", 1, [{"type": "stream.closed"}], b"7")
    assert post(sidecar, json.dumps(WOKEN), source="one").json()["accepted"] == 1
    assert post(sidecar, json.dumps(WOKEN), source="two").json()["accepted"] == 1
    # With its source goes what it has said.
    assert get(sidecar, "/v1/agents/one/a").status_code == 404
    assert get(sidecar, "/v1/agents/two/a").status_code == 200
