"""Recordings: everything that comes in, by every door, whole lines whatever happens; prompts only where asked for."""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest

from scalesim_client import Publisher
from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.recording import recorder as module
from scalesim_daemon.recording.content import made_up, restore, size_of, withhold_body, withhold_event
from scalesim_daemon.recording.format import (
    MAX_LINE_BYTES,
    End,
    Message,
    Record,
    Request,
    read_header,
    read_records,
    to_line,
)
from scalesim_daemon.recording.recorder import Recorder, open_recorder
from scalesim_daemon.settings import ConfigError, RecordSettings
from tests.daemon.live import daemon, overrides, until

SECRET = "the vault is under the bakery"
PLENTY = 2**30


def recorded(path: Path) -> list[Record]:
    with path.open("rb") as file:
        _, offset = read_header(file)
        return [record for _, record in read_records(file, offset)]


def messages(path: Path) -> list[Message]:
    return [record for record in recorded(path) if isinstance(record, Message)]


def test_every_door_is_recorded_in_the_order_in_which_it_was_heard(tmp_path: Path) -> None:
    file = tmp_path / "heard.jsonl"

    async def scene() -> None:
        async with daemon(tmp_path, record={"path": str(file)}) as (sidecar, api):
            with Publisher("village", address=sidecar.feed_address) as publisher:
                publisher.activity("rosa", for_=3.0)

                async def heard() -> bool:
                    return (await api.get("/v1/agents")).json()["total"] == 1

                await until(heard)
            await api.post("/v1/events", json={"type": "agent.woken", "agent": "a"})
            await api.post("/v1/update", json={"agent_data": {"7": 2}, "timestep_cnt": 1})

    asyncio.run(scene())
    found = messages(file)
    types = [(message.source, event["type"]) for message in found for event in message.events]
    village = [kind for source, kind in types if source.startswith("village")]
    assert village[:2] == ["stream.opened", "agent.activity_started"]
    assert ("anonymous", "agent.woken") in types
    assert types[-3:] == [
        ("sscheduler/sscheduler", "stream.opened"),
        ("sscheduler/sscheduler", "step.advanced"),
        ("sscheduler/sscheduler", "agent.activity_started"),
    ]
    assert [message.after for message in found] == sorted(message.after for message in found)
    assert isinstance(recorded(file)[-1], End)


def test_without_content_no_prompt_is_in_the_file_but_ids_and_lengths_are(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r", content=False, max_bytes=PLENTY)
    bound: dict[str, Any] = {"type": "memory.bound", "agent": "a", "cache_salt": SECRET}
    spoken = [{"role": "system", "content": SECRET}, {"role": "user", "content": [{"text": SECRET}]}]
    inner = {**bound, "text": SECRET, "now": 3.0}
    events = [
        {**bound, "text": SECRET},
        {**bound, "messages": spoken, "note": SECRET},
        {**bound, "token_ids": [1, 2, 3]},
        {"type": "state.snapshot", "part": 0, "of": 1, "events": [inner, SECRET]},
        {"type": "prompt.said", "text": SECRET},
        {"type": [SECRET]},
        SECRET,
    ]
    recorder.message("s", 4, events)
    body = {"model": "base", "max_tokens": 3, "messages": spoken, "user": SECRET, "tools": [SECRET]}
    recorder.request("sim/a", "/v1/chat/completions", body)
    recorder.close()
    text = recorder.path.read_text()
    assert SECRET not in text and "vault" not in text
    message, request, _ = recorded(recorder.path)
    assert isinstance(message, Message) and isinstance(request, Request)
    length = len(SECRET)
    assert message.events[0] == {
        "type": "memory.bound",
        "agent": "a",
        "withheld": {"text": {"characters": length}},
    }
    assert message.events[2]["withheld"] == {"token_ids": {"tokens": 3}}
    assert message.events[3]["events"][0]["now"] == 3.0
    assert message.events[4:] == [{"type": "prompt.said"}, {"type": None}, None]
    assert (request.agent, request.path) == ("sim/a", "/v1/chat/completions")
    assert request.body["model"] == "base" and request.body["max_tokens"] == 3
    assert request.body["withheld"]["messages"]["messages"][0] == ["system", length]


def test_with_content_everything_is_in_the_file_as_it_came(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r", content=True, max_bytes=PLENTY)
    events = [{"type": "x", "text": SECRET, "many": [math.inf, 2**64 - 1, "\x00ä"]}, 7, None]
    recorder.message("ä", None, events)
    recorder.request(None, "/v1/completions", {"prompt": SECRET})
    recorder.close()
    message, request, _ = recorded(recorder.path)
    assert isinstance(message, Message) and isinstance(request, Request)
    assert (message.source, message.seq, message.events) == ("ä", None, events)
    assert (request.agent, request.body) == (None, {"prompt": SECRET})


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "x" * 1000,
        [],
        list(range(500)),
        ["one", "three"],
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": ""}],
    ],
)
def test_a_stand_in_has_the_size_of_what_it_stands_for(prompt: Any) -> None:
    size = size_of(prompt)
    assert size_of(made_up(json.loads(json.dumps(size)), "sim/a")) == size
    assert made_up(size, "sim/a") == made_up(size, "sim/a")


def test_stand_ins_of_two_agents_differ_and_no_message_grows() -> None:
    assert made_up({"tokens": 64}, "a") != made_up({"tokens": 64}, "b")
    assert made_up({"characters": 64}, "a") != made_up({"characters": 64}, "b")
    event = {"type": "memory.bound", "agent": "ä" * 100, "text": "x" * 50, "token_ids": [0] * 5000}
    again = restore(withhold_event(event), "s")
    assert len(msgpack.packb(again)) == len(msgpack.packb(event))
    assert withhold_body({"prompt": None, "stop": SECRET}) == {}


@pytest.mark.parametrize(
    "size",
    [
        None,
        {},
        {"characters": -1},
        {"characters": True},
        {"characters": MAX_MESSAGE_BYTES + 1},
        {"texts": [MAX_MESSAGE_BYTES, 1]},
        {"messages": [["user"]]},
        {"pages": 3},
    ],
)
def test_a_size_that_cant_be_makes_nothing_up(size: Any) -> None:
    with pytest.raises(ValueError, match="prompt"):
        made_up(size, "a")


def test_the_file_is_its_owners_alone_and_none_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "heard.jsonl"
    recorders = [Recorder(path, content=False, max_bytes=PLENTY) for _ in range(3)]
    assert [one.path.name for one in recorders] == ["heard.jsonl", "heard.1.jsonl", "heard.2.jsonl"]
    for recorder in recorders:
        recorder.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("path", ["missing/heard", "."])
def test_a_file_that_cant_be_made_stops_the_start_with_its_key(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"record\.path"):
        open_recorder(RecordSettings(path=tmp_path / path))


def test_a_full_recording_ends_with_a_whole_line_and_the_daemon_goes_on(
    tmp_path: Path, sidecar: Sidecar
) -> None:
    sidecar.recorder = Recorder(tmp_path / "r", content=True, max_bytes=2048)
    for number in range(100):
        assert sidecar.admit("s", None, [{"type": "agent.registered", "agent": f"agent {number}"}]).accepted
    sidecar.recorder.close()
    *some, last = recorded(tmp_path / "r")
    assert isinstance(last, End) and last.end == "full"
    assert 10 < len(some) < 100
    assert (tmp_path / "r").stat().st_size <= 2048
    assert len(sidecar.population.agents) == 100


def test_a_full_disk_ends_the_recording_and_not_the_daemon(small_shm: Path, sidecar: Sidecar) -> None:
    sidecar.recorder = Recorder(small_shm / "r", content=True, max_bytes=PLENTY)
    event = {"type": "memory.bound", "agent": "a", "text": "x" * 2**20}
    for _ in range(70):
        assert sidecar.admit("s", None, [event]).accepted
    sidecar.recorder.close()
    with (small_shm / "r").open("rb") as file:
        _, offset = read_header(file)
        whole = 0
        with pytest.raises(ValueError, match="cut off"):
            for _ in read_records(file, offset):
                whole += 1
    assert whole >= 60


def test_the_longest_message_is_a_line_that_can_be_read(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r", content=True, max_bytes=PLENTY)
    event = {"type": "memory.bound", "agent": "a", "text": "\x01" * (MAX_MESSAGE_BYTES - 100)}
    recorder.message("s", 0, [event])
    recorder.close()
    message, _ = recorded(tmp_path / "r")
    assert isinstance(message, Message) and message.events == [event]
    assert (tmp_path / "r").stat().st_size < MAX_LINE_BYTES


def test_snapshots_in_snapshots_however_deep_are_left_out(tmp_path: Path) -> None:
    snapshot: dict[str, Any] = {"type": "state.snapshot", "part": 0, "of": 1, "events": [{"type": "x"}]}
    deep = snapshot
    for _ in range(5000):
        deep = {**snapshot, "events": [{"type": "agent.idled", "agent": "a"}, deep]}
    recorder = Recorder(tmp_path / "r", content=False, max_bytes=PLENTY)
    recorder.message("s", 0, [deep])
    recorder.close()
    message, _ = recorded(tmp_path / "r")
    assert isinstance(message, Message)
    assert message.events[0]["events"] == [{"type": "agent.idled", "agent": "a"}]


def test_what_json_cant_hold_is_left_out(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    recorder = Recorder(tmp_path / "r", content=True, max_bytes=PLENTY)
    recorder.message("s", 0, [nested])
    recorder.message("s", 1, [{b"": 1, "bytes": b""}])
    recorder.close()
    message, _ = recorded(tmp_path / "r")
    assert isinstance(message, Message) and message.events == [{"bytes": None}]


def test_a_daemon_that_is_killed_leaves_a_recording_that_can_be_read(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(overrides(tmp_path)))
    file = tmp_path / "heard.jsonl"
    command = [sys.executable, "-c", "from scalesim_daemon.commands import scalesimd; scalesimd()"]
    process = subprocess.Popen(
        [*command, "record", "--out", str(file), "--config", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SCALESIM_LOG__FORMAT": "json"},
    )
    assert process.stderr is not None
    with process, process.stderr as log:
        try:
            ready = next(said for line in log if (said := json.loads(line))["event"] == "ready")
            with Publisher("village", address=ready["feed"]) as publisher:
                publisher.activity("rosa", for_=3.0)
                assert publisher.flush(10.0)

                async def there() -> bool:
                    return "rosa" in file.read_text()

                asyncio.run(until(there))
        finally:
            process.send_signal(signal.SIGKILL)
    kinds = [event["type"] for message in messages(file) for event in message.events]
    assert kinds[:2] == ["stream.opened", "agent.activity_started"]


def test_lines_are_as_the_format_says() -> None:
    assert len(to_line(End(1e9 + 1e-6, "closed"))) <= module.LAST_LINE_BYTES
    golden = b'{"after":0.25,"source":"s","seq":3,"events":[{"type":"agent.idled","agent":"\xc3\xa4"}]}\n'
    record = Message(0.25, "s", 3, [{"type": "agent.idled", "agent": "ä"}])
    assert to_line(record) == golden
    assert [found for _, found in read_records(io.BytesIO(golden), 0)] == [record]
