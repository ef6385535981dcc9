"""The bench of several daemons: its schedules repeat themselves, and it sees who acts beside whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from bench.fleet.engine import read as read_acts
from bench.fleet.judge import Blow, Held, Takeover, overlapping, takeovers
from bench.fleet.page import FIGURES, PAGE, WHAT, renewed
from bench.fleet.play import Village
from bench.fleet.result import Result, conditions, figures, read, write
from bench.fleet.run import Outcome, drawn
from bench.fleet.schedule import DAEMONS, ENGINES, LEASE_SECONDS, Kind, Layout, draw
from bench.fleet.tap import Act, Tap

WAIT = 1.6


def test_a_seed_is_a_schedule() -> None:
    schedules = [draw(seed, Kind) for seed in range(200)]
    assert schedules == [draw(seed, list(reversed(Kind))) for seed in range(200)]
    assert {fault.kind for one in schedules for fault in one.faults} == set(Kind)
    assert {one.layout for one in schedules} == set(Layout)
    for schedule in schedules:
        assert 1 <= len(schedule.faults) <= 4
        for number, one in enumerate(schedule.faults):
            assert (one.daemon in DAEMONS) == (one.kind.target != "redis")
            assert (one.engine in ENGINES) == (one.kind.target == "engine")
            for other in schedule.faults[number + 1 :]:
                apart = one.at + one.seconds < other.at
                assert apart or (one.kind.target, one.daemon) != (other.kind.target, other.daemon)


def test_on_hosts_each_engine_has_one_daemon_of_its_own() -> None:
    schedule = next(one for one in (draw(seed, Kind) for seed in range(20)) if one.layout is Layout.HOSTS)
    standby = [schedule.engines(daemon) for daemon in DAEMONS]
    assert standby == [{"one": False, "two": True}, {"one": True, "two": False}, {"one": True, "two": True}]


def test_who_acts_after_a_follower_has_begun_is_found() -> None:
    acts = [Act(1.0, "a", 5), Act(2.0, "b", 7), Act(2.1, "a", 5), Act(3.0, "b", 7)]
    assert overlapping(acts, [], WAIT) == [acts[2]]
    assert overlapping([acts[0], acts[1], acts[3]], [], WAIT) == []


def test_who_acts_when_another_could_is_found_and_who_acts_while_that_waits_is_not() -> None:
    taken = [Held(7, "b", 1.0)]
    waiting, late = Act(1.0 + WAIT - 0.1, "a", 5), Act(1.0 + WAIT + 0.1, "a", 5)
    assert overlapping([waiting, late], taken, WAIT) == [late]
    # One's own lease, taken anew, is nobody else's.
    assert overlapping([waiting, late], [Held(7, "a", 1.0)], WAIT) == []


def test_who_acts_without_a_token_is_found() -> None:
    act = Act(1.0, "a", None)
    assert overlapping([act], [], WAIT) == [act]


def taken(acts: list[Act], leases: list[Held], blows: list[Blow]) -> list[Takeover]:
    found = takeovers("one", acts, leases, blows, DAEMONS)
    return [Takeover(one.daemon, round(one.seconds, 6)) for one in found]


def test_a_takeover_begins_when_its_holder_is_struck_and_somebody_is_whole() -> None:
    acts = [Act(9.9, "a", 1), Act(13.0, "b", 2)]
    struck = Blow("a", "", 10.0, 20.0, True)
    assert taken(acts, [], [struck]) == [Takeover("b", 3.0)]
    others = [Blow("b", "", 9.0, 11.5, True), Blow("c", "", 9.0, 12.0, True)]
    assert taken(acts, [], [struck, *others]) == [Takeover("b", 1.5)]
    # C could have taken it all along: that it didn't is no excuse.
    assert taken(acts, [], [struck, others[0]]) == [Takeover("b", 3.0)]
    # Nor is another engine's way.
    elsewhere = [Blow(daemon, "two", 9.0, 12.0, False) for daemon in DAEMONS]
    assert taken(acts, [], [struck, *elsewhere]) == [Takeover("b", 3.0)]


def test_a_successor_that_is_struck_in_turn_is_followed_from_then_on() -> None:
    acts = [Act(9.9, "a", 1), Act(15.0, "b", 3)]
    blows = [Blow("a", "", 10.0, 20.0, True), Blow("c", "", 12.0, 20.0, True)]
    assert taken(acts, [Held(2, "c", 11.6)], blows) == [Takeover("b", 3.0)]


def test_an_engine_that_is_given_back_or_can_not_be_reached_is_not_taken_over() -> None:
    acts = [Act(9.9, "a", 1), Act(10.5, "b", 2)]
    assert taken(acts, [], []) == []
    assert taken(acts, [], [Blow("a", "one", 10.0, 20.0, False)]) == []
    assert taken(acts, [], [Blow("a", "", 11.0, 20.0, True)]) == []


def test_who_takes_its_own_lease_anew_when_redis_is_back_is_counted() -> None:
    acts = [Act(9.9, "a", 1), Act(17.0, "a", 2)]
    blows = [Blow(daemon, "", 10.0, 14.0, True) for daemon in DAEMONS]
    assert taken(acts, [], blows) == [Takeover("a", 3.0)]


async def sent(*requests: bytes) -> list[Act]:
    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(1 << 20)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    noted: list[Act] = []
    async with Tap(server.sockets[0].getsockname()[1], noted.append).open() as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        for request in requests:
            writer.write(request)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
    assert noted == tap.acts
    return noted


def request(path: str, id: str, body: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nx-request-id: {id}\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def test_a_tap_notes_acts_and_under_which_token(tmp_path: Path) -> None:
    acts = asyncio.run(
        sent(
            request("/v1/completions", f"scalesim-a-engine-t5-t17-{'0' * 16}", '{"prompt":[1,2]}'),
            request("/v1/completions", f"scalesim-a-engine-t5-{'0' * 16}", '{"prompt":[1]}'),
            request("/v1/completions", "village-1", '{"prompt":[1,2]}'),
            request("/v1/load_lora_adapter", f"scalesim-b-engine-{'0' * 16}", "{}"),
            request("/tokenize", f"scalesim-b-engine-{'0' * 16}", "{}"),
        )
    )
    assert [(act.daemon, act.token) for act in acts] == [("a", 17), ("b", None)]
    file = tmp_path / "acts"
    file.write_text("1.25 a 17\n2.5 b -\n")
    assert read_acts(file) == [Act(1.25, "a", 17), Act(2.5, "b", None)]


def test_a_due_that_a_daemon_has_from_before_is_stale() -> None:
    village = Village.__new__(Village)
    village.step, village.dues = 10, {"village/near": 12.0, "village/gone": 13.0}
    known = {"village/near": {"distance": 2.0}, "village/gone": {"distance": 3.0}}
    assert list(village.differs(known)) == []
    assert len(list(village.differs({"village/near": {"distance": 1.0}}))) == 2


def outcome(**fields: object) -> Outcome:
    return msgspec.structs.replace(drawn(draw(7, Kind)), **fields)


def test_the_page_has_every_fault_and_what_was_found(tmp_path: Path) -> None:
    assert set(WHAT) == set(Kind)
    outcomes = [outcome(takeovers=[2.0, 3.0], acts=5), outcome(takeovers=[3.5], stale_dues=["a: a due"])]
    assert figures(outcomes) == {
        "schedules": 2,
        "acts": 5,
        "calls": 0,
        "takeovers": 3,
        "takeover_p50_s": 3.0,
        "takeover_max_s": 3.5,
        "takeover_over_lease": round(3.5 / LEASE_SECONDS, 2),
        "overlapping_acts": 0,
        "failed_requests": 0,
        "stale_dues": 1,
        "silent_engines": 0,
        "daemons_ended": 0,
    }
    assert figures([])["takeover_over_lease"] is None
    assert [one.clean for one in outcomes] == [True, False]
    write(
        tmp_path / "fleet.json", Result(conditions("a command", 90.0, {Kind.HOST_LATE: "no netem"}), outcomes)
    )
    result = read(tmp_path / "fleet.json")
    page = renewed(
        "head\n<!-- schedules: written by `make results` -->of yore<!-- end of schedules -->\ntail", result
    )
    assert page.startswith("head\n") and page.endswith("\ntail") and "of yore" not in page
    assert "seed 7, stale dues: a: a due" in page and "`host-late` (no netem)" in page


def test_the_page_is_as_its_figures_are() -> None:
    root = Path(__file__).parents[2]
    page = (root / PAGE).read_text(encoding="utf-8")
    assert renewed(page, read(root / FIGURES)) == page, "run make results"
