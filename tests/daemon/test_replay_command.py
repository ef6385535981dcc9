"""`scalesimd replay` and `record` as they are typed: exit codes, what is said of a file that is damaged, and Ctrl-C."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from scalesim_daemon.cli import app
from scalesim_daemon.recording import targets
from scalesim_daemon.recording.format import (
    MAX_LINE_BYTES,
    BadRecording,
    Message,
    Record,
    read_header,
    read_records,
    to_line,
)
from tests.daemon.ctl_rig import whole_daemon
from tests.daemon.live import until
from tests.daemon.recordings import DISTANCES, HEADER, VILLAGE, distances, opened, written
from tests.daemon.recordings import until as acts_until

ROSA: list[Record] = [Message(0.0, "village-1", 0, [opened("village-1"), acts_until("rosa", 6)])]
CLIENT = httpx.Client()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with CLIENT, whole_daemon(tmp_path_factory.mktemp("daemon")) as url:
        yield url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["replay", *arguments])


def shown(url: str) -> dict[str, float]:
    return distances(CLIENT.get(f"{url}/v1/agents"))


def release(url: str) -> None:
    """Let the daemon forget what was replayed."""
    for source in ("village-1", "anonymous", "poster/1"):
        CLIENT.post(f"{url}/v1/events", params={"source": source}, json={"type": "stream.closed"})
    assert shown(url) == {}


def test_a_whole_recording_is_sent_and_summed_up(tmp_path: Path, url: str) -> None:
    done = run(str(written(tmp_path / "r", *VILLAGE)), "--to", url, "--speed", "0")
    assert done.exit_code == 0, done.output
    assert shown(url) == DISTANCES
    assert "6 messages with 9 events of 3 sources" in done.stdout
    assert "1 requests, not sent: name an --engine" in done.stdout
    assert "not taken: agent.moved" in done.stderr
    release(url)


def test_a_recording_without_its_end_is_sent_and_that_is_said(tmp_path: Path, url: str) -> None:
    done = run(str(written(tmp_path / "r", *VILLAGE[:-1])), "--to", url, "--speed", "0")
    assert done.exit_code == 0 and "no end" in done.stdout
    release(url)


DAMAGE = [
    (b'{"after": 1.0, "source": "x", "se', "cut off in the middle of a line"),
    (b"\x00\xff\x13garbage\n" + to_line(VILLAGE[1]), "damaged"),
    (b"[1]\n", "no map"),
    (b"[" * 100_000 + b"\n", "damaged"),
    (b'{"after": "soon", "source": "x", "seq": 0, "events": []}\n', "$.after"),
    (b'{"after": -1, "source": "x", "seq": 0, "events": []}\n', "after"),
    (b'{"after": NaN, "source": "x", "seq": 0, "events": []}\n', "after"),
    (b'{"after": 0, "source": "", "seq": 0, "events": []}\n', "source"),
    (b'{"after": 0, "source": "\\ud800", "seq": 0, "events": []}\n', "damaged"),
    (b'{"after": 0, "source": "x", "seq": -1, "events": []}\n', "seq"),
    (b'{"after": 0, "source": "x", "seq": 0, "events": {}}\n', "$.events"),
    (b'{"after": 0, "source": "x", "seq": 0, "events": [' + b"0," * 1000 + b"0]}\n", "1000"),
    (b'{"after": 0, "agent": "a", "path": "x", "body": {}}\n', "path"),
    (b'{"after": 0, "agent": 7, "path": "/x", "body": {}}\n', "$.agent"),
    (b'{"after": 0, "end": "sad"}\n', "$.end"),
    (b'{"after": 0}\n', "`end`"),
    (to_line(VILLAGE[-1]) + b"more\n", "follows the end"),
]


@pytest.mark.parametrize(("damage", "why"), DAMAGE)
def test_what_came_before_the_damage_is_read_and_its_place_is_told(damage: bytes, why: str) -> None:
    start = 1000
    file = io.BytesIO(to_line(ROSA[0]) + damage)
    records = read_records(file, start)
    offset, record = next(records)
    assert (offset, [record]) == (start + len(to_line(ROSA[0])), ROSA)
    with pytest.raises(BadRecording) as caught:
        list(records)
    assert why in str(caught.value)


def test_what_came_before_the_damage_is_sent_and_its_place_is_told(tmp_path: Path, url: str) -> None:
    file = written(tmp_path / "r", *ROSA)
    whole = file.stat().st_size
    too_large = b'{"after": 0, "source": "x", "seq": 0, "events": [1' + b"0" * 30 + b"]}\n"
    for damage, why in (
        (b"\x00\xffgarbage\n", "damaged"),
        (b'{"after": 1', "cut off"),
        (too_large, "msgpack"),
    ):
        written(file, *ROSA, more=damage)
        done = run(str(file), "--to", url, "--speed", "0")
        assert done.exit_code == 1
        assert f"{file}: byte {whole}: " in done.stderr and why in done.stderr
        assert "Traceback" not in done.output
        assert shown(url) == {"village/rosa": 6.0}
        release(url)


def test_an_endless_line_is_given_up(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        read_bytes = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.read_bytes += len(buffer)
            buffer[:] = b" " * len(buffer)
            return len(buffer)

    raw = Endless()
    with pytest.raises(BadRecording, match="a line of more than"):
        list(read_records(io.BufferedReader(raw), 0))
    assert raw.read_bytes <= MAX_LINE_BYTES + 2**20


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no recording"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "no recording"),
        (b'{"scalesim": "costs"}\n', "no recording"),
        (b"[[[", "no recording"),
        (b'{"scalesim": "recording", "version": 2}\n', "version 2 is not supported, only 1"),
        (b'{"scalesim": "recording", "version": "1.0"}\n', 'version "1.0" is not supported'),
        (b'{"scalesim": "recording", "version": 1}\n', "`at`"),
    ],
)
def test_what_is_no_recording_of_this_version_is_not_sent(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "r"
    file.write_bytes(content)
    done = run(str(file))
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{file}: byte 0: " in done.stderr and why in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["missing"], "missing"),
        (["."], "directory"),
        (["r", "--speed", "-1"], "--speed"),
        (["r", "--speed", "nan"], "--speed"),
        (["r", "--to", "nowhere"], "nowhere"),
        (["r", "--to", "http://127.0.0.1:9"], "no daemon answers"),
        (["r", "--to", "ipc://r"], "no daemon answers"),
        (["r", "--engine", "http://["], "is no URL"),
    ],
)
def test_usage_and_absence_are_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(targets, "ANSWER_SECONDS", 0.2)
    written(tmp_path / "r", *VILLAGE)
    done = run(*arguments)
    assert done.exit_code == 2
    assert named in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_request_that_fails_is_told_and_exit_1(tmp_path: Path, url: str) -> None:
    file = written(tmp_path / "r", *VILLAGE)
    done = run(str(file), "--to", url, "--speed", "0", "--engine", "http://127.0.0.1:9")
    assert done.exit_code == 1
    assert "failed: /v1/chat/completions" in done.stderr
    release(url)


def test_control_c_is_130_and_says_how_far_it_came(tmp_path: Path, url: str) -> None:
    late = Message(3600.0, "village-1", 1, [acts_until("ben", 9)])
    file = written(tmp_path / "r", *ROSA, late)

    async def first() -> bool:
        return shown(url) == {"village/rosa": 6.0}

    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        asyncio.run(until(first))
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    done = run(str(file), "--to", url)
    thread.join()
    assert done.exit_code == 130
    assert "interrupted" in done.stderr
    assert done.stdout.startswith("1 messages")
    release(url)


def test_a_pipe_is_read_as_it_comes(tmp_path: Path, url: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = written(tmp_path / "r", *VILLAGE).read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    done = run(str(pipe), "--to", url, "--speed", "0")
    writer.join()
    assert done.exit_code == 0, done.output
    assert shown(url) == DISTANCES
    release(url)


LINES = [to_line(record) for record in (HEADER, *VILLAGE)]
FILE = b"".join(LINES)
ENDS = [sum(map(len, LINES[: count + 1])) for count in range(len(LINES))]


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(0, len(FILE)),
    cut=st.integers(0, 40),
    put=st.binary(max_size=40) | st.text('{}[]:,"\\naeu0123.\n', max_size=30).map(str.encode),
)
@example(at=len(FILE), cut=0, put=b"")
def test_whatever_is_done_to_a_file_what_came_before_is_read_and_the_place_is_told(
    at: int, cut: int, put: bytes
) -> None:
    file = io.BytesIO(FILE[:at] + put + FILE[at + cut :])
    found: list[tuple[int, Record]] = []
    try:
        _, offset = read_header(file)
        for one in read_records(file, offset):
            found.append(one)
    except BadRecording as error:
        assert str(error).startswith(f"byte {error.offset}: ")
        assert error.offset == (found[-1][0] if found else error.offset)
    whole = [end for end in ENDS[1:] if end <= at]
    assert [offset for offset, _ in found[: len(whole)]] == whole
    assert [to_line(record) for _, record in found[: len(whole)]] == LINES[1 : len(whole) + 1]
