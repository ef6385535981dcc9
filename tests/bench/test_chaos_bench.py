"""The bench of faults: its schedules repeat themselves, and what it looks through and looks at is true."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest
import zmq
import zmq.asyncio

from bench.chaos.checks import Level, mirror_differs
from bench.chaos.enginepath import EnginePath, Manner
from bench.chaos.page import FIGURES, PAGE, PROMISES, renewed
from bench.chaos.paths import Stream, Way
from bench.chaos.play import Tally, blameless
from bench.chaos.result import Record, conditions, figures, read
from bench.chaos.run import not_played
from bench.chaos.schedule import NEEDS_EXTERNAL, Kind, draw
from bench.chaos.shim import Shim, compiled
from bench.chaos.truth import emulated, replayed
from bench.chaos.world import Outage
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer

BLOCK = 32
WITHIN = 5.0


def test_a_seed_is_a_schedule() -> None:
    drawn = [draw(seed, "emulator", Kind) for seed in range(200)]
    assert drawn == [draw(seed, "emulator", reversed(Kind)) for seed in range(200)]
    assert {fault.kind for schedule in drawn for fault in schedule.faults} == set(Kind)
    for schedule in drawn:
        assert 1 <= len(schedule.faults) <= 4
        assert schedule.store == "external" or not NEEDS_EXTERNAL & {fault.kind for fault in schedule.faults}
        for number, one in enumerate(schedule.faults):
            for other in schedule.faults[number + 1 :]:
                assert one.kind.target != other.kind.target or one.at + one.seconds < other.at


def test_a_call_is_excused_by_what_the_schedule_took_away_meanwhile() -> None:
    outages = [Outage("engine", 10.0, 12.0), Outage("daemon", 20.0)]
    assert blameless(outages, ("engine",), 11.0, 13.0)
    assert blameless(outages, ("engine",), 5.0, 30.0)
    assert not blameless(outages, ("engine",), 12.5, 30.0)
    assert not blameless(outages, ("engine",), 8.0, 9.5)
    assert blameless(outages, ("engine", "daemon"), 25.0, 26.0)


def test_what_a_process_holds_more_than_before_is_named() -> None:
    before = Level({"sockets": 3}).most(Level({"sockets": 2, "files": 1}))
    assert list(Level({"sockets": 3, "files": 1}).above(before)) == []
    assert list(Level({"sockets": 4, "pipes": 1}).above(before)) == [
        "4 sockets, 3 before",
        "1 pipes, 0 before",
    ]


def test_a_due_that_redis_has_from_before_is_named() -> None:
    def shown(key: str, distance: float | None) -> dict[str, object]:
        return {"key": key, "basis": "activity", "distance": distance}

    agents = [shown("s/near", 2.5), shown("s/now", 0.0), shown("s/overdue", None)]
    dues = {"s/near": 12.5, "s/now": 9.0, "s/overdue": 3.0}
    assert list(mirror_differs(agents, dues, 10)) == []
    assert list(mirror_differs(agents, {**dues, "s/near": 11.0}, 10)) == [
        "s/near is due at 12.5, in Redis at 11.0"
    ]
    assert len(list(mirror_differs(agents, {**dues, "s/gone": 1.0}, 10))) == 1


def test_a_call_that_ends_in_no_known_way_is_lost() -> None:
    assert Tally(calls=5, served=2, early=1, excused=1, failed=["a call"]).lost == 0
    assert Tally(calls=5, served=2).lost == 3


def test_the_truth_of_events_is_the_emulated_engines_own(tmp_path: Path) -> None:
    config = EmulatorConfig(
        blocks=64, endpoint=f"ipc://{tmp_path}/kv", replay_endpoint=f"ipc://{tmp_path}/kvr", max_model_len=512
    )
    with EmulatorServer(config) as engine, httpx.Client(base_url=engine.url) as client:
        for agent in (*range(12), 3):
            prompt = [agent * 100 + position for position in range(7 * BLOCK)]
            client.post("/v1/completions", json={"prompt": prompt, "max_tokens": 1}).raise_for_status()
        own = emulated(client.get("/emulator/truth").json(), BLOCK)
        told = asyncio.run(replayed(tmp_path / "kvr", BLOCK, {}))
    assert (own.resident, dict(own.blocks)) == (told.resident, dict(told.blocks))
    assert own.resident == config.blocks
    for agent in range(12):
        prompt = [agent * 100 + position for position in range(7 * BLOCK)]
        assert own.leading(prompt, None) == told.leading(prompt, None)
    assert own.leading(list(range(300, 300 + 7 * BLOCK)), None) == 7
    assert own.leading([1, 2, 3] * BLOCK, None) == 0


def test_whole_messages_are_lost_on_a_way_and_no_others(tmp_path: Path) -> None:
    async def body() -> None:
        way = Stream(f"{tmp_path}/way", f"{tmp_path}/end", up=True)
        await way.start()
        with (
            zmq.asyncio.Context() as context,
            context.socket(zmq.ROUTER) as end,
            context.socket(zmq.DEALER) as near,
        ):
            end.bind(f"ipc://{tmp_path}/end")
            near.connect(f"ipc://{tmp_path}/way")
            way.filter = lambda message: () if b"lost" in message else (message, message)
            for text in (b"one", b"lost", b"x" * 1000):
                await near.send_multipart([text, b"tail"])
            heard = [(await asyncio.wait_for(end.recv_multipart(), WITHIN))[1:] for _ in range(4)]
            assert heard == [[b"one", b"tail"]] * 2 + [[b"x" * 1000, b"tail"]] * 2
            assert (way.spoilt, way.ended) == (3, 0)
            near.setsockopt(zmq.LINGER, 0)
        await way.close()

    asyncio.run(body())


def test_a_silent_way_never_speaks_again_and_a_new_one_does(tmp_path: Path) -> None:
    async def body() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        server = await asyncio.start_unix_server(echo, tmp_path / "end")
        way = Stream(f"{tmp_path}/way", f"{tmp_path}/end")
        await way.start()
        reader, writer = await asyncio.open_unix_connection(way.listen)
        writer.write(b"a")
        assert await reader.read(1) == b"a"
        way.go(Way.SILENT)
        way.go(Way.OPEN)
        writer.write(b"b")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        assert way.spoilt == 1
        fresh, speaking = await asyncio.open_unix_connection(way.listen)
        speaking.write(b"c")
        assert await fresh.read(1) == b"c"
        way.cut()
        assert way.spoilt == 3
        assert await fresh.read(1) == b""
        for one in (writer, speaking):
            one.close()
        await way.close()
        server.close()

    asyncio.run(body())


def test_answers_are_spoilt_on_the_daemons_way_alone() -> None:
    async def body(engine: EmulatorServer) -> None:
        path = EnginePath(engine.url, {"base": "other"}, 1)
        await path.start()
        async with httpx.AsyncClient(base_url=path.url, timeout=WITHIN) as client:
            assert (await client.get("/v1/models")).json()["data"][0]["id"] == "other"
            path.manner = Manner.FAILING
            assert (await client.get("/version")).is_error
            path.manner = Manner.LYING
            honest = (await client.get(f"{engine.url}/metrics")).text
            assert (await client.get("/metrics")).text != honest
            path.manner = Manner.CUT
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/metrics")
            path.manner = Manner.RESET
            with pytest.raises(httpx.HTTPError):
                await client.get("/version")
            path.manner = Manner.SILENT
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/version", timeout=0.1)
            assert (path.spoilt, path.failed, path.waiting) == (5, 0, 0)
        await path.close()

    with EmulatorServer(EmulatorConfig()) as engine:
        asyncio.run(body(engine))


def test_a_clock_jumps_and_a_disk_is_slow_for_whoever_has_the_shim(tmp_path: Path) -> None:
    library = compiled()
    if library is None:
        pytest.skip("no C compiler: clock and disk can't be changed here")
    shim = Shim(library, tmp_path / "control", tmp_path)
    code = (
        "import os, sys, time; began = time.monotonic(); file = open(sys.argv[1], 'wb', buffering=0); file.write(b'x');"
        "print(time.time(), time.monotonic() - began)"
    )
    assert shim.felt() == (0, 0, 0, 0)
    shim.set(offset=-5000.0, delay=0.05)
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tmp_path / "file")],
        env=shim.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    felt = shim.felt()
    shim.close()
    now, took = map(float, said.stdout.split())
    assert felt.misled and felt.delayed and not felt.refused_disk and not felt.refused_elsewhere
    assert abs(time.time() - 5000 - now) < 60
    assert took >= 0.05


def test_the_page_has_every_fault_and_what_was_found(tmp_path: Path) -> None:
    assert set(PROMISES) == set(Kind)
    outcome = not_played(draw(7, "emulator", [Kind.DISK_FULL]), OSError("no room"))
    held = conditions("a command", 4, {Kind.SHM_FULL: "no mounts"})
    record = Record(tmp_path / "chaos.json")
    record.begin("emulator", held, resume=False)
    record.add(outcome, 90.0)
    result = read(tmp_path / "chaos.json")
    assert figures(result.schedules) == {
        "schedules": 1,
        "engines": {"emulator": 1},
        "failed_requests": 0,
        "divergences": 1,
        "budget_violations": 0,
        "leaks": 0,
    }
    page = renewed(
        "head\n<!-- chaos: written by `make results` -->of yore<!-- end of chaos -->\ntail", result
    )
    assert page.startswith("head\n") and page.endswith("\ntail") and "of yore" not in page
    assert "seed 7, divergences: not played: OSError: no room" in page
    assert "shm-full (no mounts)" in page
    assert "0 of 1" in page, "a fault that nothing felt"


def test_a_run_that_was_cut_off_goes_on_at_its_commit(tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    held = msgspec.structs.replace(conditions("a command", 4, {}), commit="abc")
    outcomes = [not_played(draw(seed, "emulator", Kind), OSError("no room")) for seed in (1, 2)]
    for number, outcome in enumerate(outcomes):
        # Each time another process, which the one before it has left what it had.
        record = Record(file)
        played = record.begin("emulator", held, resume=True)
        assert played == {1} if number else played == frozenset()
        record.add(outcome, 10.0)
    Record(file).begin("vllm", held, resume=True)
    assert read(file).conditions["emulator"].seconds == 20.0
    assert [outcome.seed for outcome in read(file).schedules] == [1, 2]
    for other in (
        msgspec.structs.replace(held, commit="abd"),
        msgspec.structs.replace(held, commit="abc+"),
        msgspec.structs.replace(held, command="another"),
    ):
        assert Record(file).begin("emulator", other, resume=True) == frozenset()
    assert Record(file).begin("emulator", held, resume=False) == frozenset()
    record = Record(file)
    record.begin("emulator", msgspec.structs.replace(held, commit="abd"), resume=True)
    record.add(outcomes[1], 10.0)
    assert [outcome.seed for outcome in read(file).schedules] == [2]


def test_the_page_is_as_its_figures_are() -> None:
    root = Path(__file__).parents[2]
    page = (root / PAGE).read_text(encoding="utf-8")
    assert renewed(page, read(root / FIGURES)) == page, "run make results"
