"""A feed that other hosts reach: refused without keys, heard by those whose key is known and by nobody else."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq.asyncio
from structlog.testing import capture_logs

from scalesim_client import Curve, Publisher
from scalesim_client.curve import make_keys
from scalesim_client.curve.__main__ import main
from scalesim_daemon.app import running
from scalesim_daemon.curve import Keys
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError
from tests.daemon.keyring import Keyring
from tests.daemon.live import Raw, daemon, overrides, until

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq was built without CURVE")


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


@pytest.mark.parametrize(
    "bind", ["tcp://0.0.0.0:5600", "tcp://*:5600", "tcp://[::]:5600", "tcp://a-host:5600"]
)
def test_a_feed_that_other_hosts_reach_is_refused_without_keys(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"feed\.bind: .* is reachable from outside.*set feed\.curve"):
        load_settings(None, {"feed": {"bind": bind}})
    assert load_settings(None, {"feed": {"bind": bind, "insecure_no_keys": True}}).feed.bind == bind
    curve = {"server_key_file": "/etc/scalesim/feed.key_secret", "clients_dir": "/etc/scalesim/clients"}
    assert load_settings(None, {"feed": {"bind": bind, "curve": curve}}).feed.bind == bind


@pytest.mark.parametrize(
    "bind", ["tcp://127.0.0.1:5600", "tcp://localhost:*", "tcp://[::1]:5600", "ipc:///tmp/feed"]
)
def test_what_only_this_host_reaches_needs_none(bind: str) -> None:
    assert load_settings(None, {"feed": {"bind": bind}}).feed.bind == bind


def test_who_has_a_known_key_is_heard_and_nobody_else(
    tmp_path: Path, keyring: Keyring, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    keys: dict[str, Curve | None] = {
        "friend": keyring.publisher("friend", known=True),
        "stranger": keyring.publisher("stranger", known=False),
        "keyless": None,
    }

    async def scene() -> None:
        async with daemon(tmp_path, feed=keyring.door(), redis={"enabled": False}) as (sidecar, _):
            publishers = {
                name: Publisher(name, address=sidecar.feed_address, curve=curve)
                for name, curve in keys.items()
            }
            try:
                for publisher in publishers.values():
                    publisher.activity("a", for_=1.0)

                async def refused() -> bool:
                    return caplog.text.count("ends the handshake") >= 2 and set(sidecar.gate.streams()) == {
                        "friend"
                    }

                await until(refused)
                # Its key counts as soon as it lies there.
                keyring.admit("stranger")

                async def admitted() -> bool:
                    return set(sidecar.gate.streams()) == {"friend", "stranger"}

                await until(admitted)
            finally:
                for publisher in publishers.values():
                    publisher.close()

    with caplog.at_level(logging.WARNING, "scalesim_client"):
        asyncio.run(scene())
    logged = capsys.readouterr().err
    assert logged.count("its key is not known") == 1
    for curve in keys.values():
        assert curve is None or curve.secret.decode() not in logged + caplog.text + repr(curve)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda ring: ring.own.unlink(), r"feed\.curve\.server_key_file: .*feed\.key_secret"),
        (lambda ring: ring.own.write_bytes(ring.server.read_bytes()), "holds no secret key"),
        (
            lambda ring: ring.own.write_text("public-key: abc"),
            r"feed\.curve\.server_key_file: .* is no file of keys",
        ),
        (lambda ring: ring.own.write_text(f'public-key = "{"#" * 40}"'), "holds no secret key"),
        (lambda ring: ring.clients.rmdir(), r"feed\.curve\.clients_dir: "),
    ],
)
def test_keys_that_cannot_be_read_stop_the_start(
    tmp_path: Path, keyring: Keyring, spoil: Any, named: str
) -> None:
    spoil(keyring)

    async def scene() -> None:
        settings = load_settings(None, overrides(tmp_path, feed=keyring.door(), redis={"enabled": False}))
        async with running(settings):
            pass

    with pytest.raises(ConfigError, match=named):
        asyncio.run(scene())


SPOILT: dict[str, Callable[[Path], object]] = {
    "no = in it": lambda file: file.write_text("public-key: abc"),
    "PEM": lambda file: file.write_text("-----BEGIN PUBLIC KEY-----\nMCowBQ\n-----END PUBLIC KEY-----\n"),
    "an empty key": lambda file: file.write_text('public-key = ""'),
    "too large a key": lambda file: file.write_text(f'public-key = "{"#" * 40}"'),
    "bytes": lambda file: file.write_bytes(b"public-key = \xff\xfe"),
    "a directory": lambda file: file.mkdir(),
    "a link to nothing": lambda file: file.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_no_key_is_named_once_and_keeps_nobody_in_or_out(
    keyring: Keyring, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object]
) -> None:
    first, second = (keyring.publisher(name, known=False).public for name in ("first", "second"))
    keyring.admit("first")
    keys = Keys(keyring.clients)
    spoil(keyring.clients / "bad.key")
    for _ in range(3):
        assert keys.callback("*", first)
    keyring.admit("second")
    assert keys.callback("*", second)
    (keyring.clients / "first.key").unlink()
    assert not keys.callback("*", first) and keys.callback("*", second)
    logged = "".join(capsys.readouterr())
    assert logged.count("passed over") == logged.count("bad.key") == 1
    # It isn't in the way of a start, either.
    assert Keys(keyring.clients).callback("*", second)


def test_one_spoilt_file_does_not_end_the_doorman(tmp_path: Path, keyring: Keyring) -> None:
    early, late = keyring.publisher("early", known=True), keyring.publisher("late", known=True)

    async def scene() -> None:
        async with daemon(tmp_path, feed=keyring.door(), redis={"enabled": False}) as (sidecar, _):

            async def heard(*names: str) -> bool:
                return set(sidecar.gate.streams()) == set(names)

            with closing(Publisher("early", address=sidecar.feed_address, curve=early)):
                await until(lambda: heard("early"))
                SPOILT["no = in it"](keyring.clients / "bad.key")
                with closing(Publisher("late", address=sidecar.feed_address, curve=late)):
                    await until(lambda: heard("early", "late"))

    asyncio.run(scene())


def test_a_key_that_is_replaced_in_place_counts_at_once(keyring: Keyring) -> None:
    old, new = (keyring.publisher(name, known=False).public for name in ("old", "new"))
    keyring.admit("old")
    keys, file = Keys(keyring.clients), keyring.clients / "old.key"
    assert keys.callback("*", old)
    folder_then, inode = keyring.clients.stat().st_mtime_ns, file.stat().st_ino
    file.write_text(file.read_text().replace(old.decode(), new.decode()))
    os.utime(file, ns=(0, 1))
    assert (keyring.clients.stat().st_mtime_ns, file.stat().st_ino) == (folder_then, inode)
    assert keys.callback("*", new) and not keys.callback("*", old)


def test_a_folder_that_is_gone_is_said_once_and_those_known_stay(
    keyring: Keyring, capsys: pytest.CaptureFixture[str]
) -> None:
    known = keyring.publisher("known", known=True).public
    keys, away = Keys(keyring.clients), keyring.clients.with_name("away")
    for _ in range(2):
        keyring.clients.rename(away)
        assert keys.callback("*", known) and keys.callback("*", known)
        away.rename(keyring.clients)
        assert keys.callback("*", known)
    assert "".join(capsys.readouterr()).count("can't be read") == 2


@pytest.mark.parametrize("there", ["feed.key", "feed.key_secret"])
def test_neither_key_of_a_pair_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("the old one")
    with pytest.raises(FileExistsError):
        make_keys(tmp_path, "feed")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(there, "the old one")]


def test_the_command_makes_keys_once_and_for_their_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tmp_path / "new"), "feed", "village"])
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == [
        "feed.key",
        "feed.key_secret",
        "village.key",
        "village.key_secret",
    ]
    assert {path.stat().st_mode & 0o077 for path in paths if path.suffix == ".key_secret"} == {0}
    before = paths[1].read_bytes()
    with pytest.raises(SystemExit, match="File exists"):
        main([str(tmp_path / "new"), "feed"])
    assert paths[1].read_bytes() == before
    with pytest.raises(ValueError, match="holds no secret key"):
        Curve.load(paths[0], paths[0])
    with pytest.raises(ValueError, match="server is no key"):
        Curve(b"x" * 39, b"y" * 40, b"z" * 40)


def test_the_command_warns_of_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "scalesim_client.curve", str(tmp_path), "feed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{tmp_path}/feed.key\n{tmp_path}/feed.key_secret\n", "")


def test_a_key_that_hears_dues_speaks_for_nobody(keyring: Keyring) -> None:
    keyring.make("village", known=True)
    with capture_logs() as lines:
        Keys(keyring.clients, "feed")
        Keys(keyring.clients, "broadcast")
    assert [(line["door"], line.get("speaks_for")) for line in lines] == [
        ("feed", "any source"),
        ("broadcast", None),
    ]


def test_a_key_speaks_for_the_sources_that_its_file_names(
    tmp_path: Path, keyring: Keyring, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    town = keyring.publisher("town", known=False)
    keyring.admit("town", "town", "town-*")

    async def scene() -> None:
        async with daemon(tmp_path, feed=keyring.door(), redis={"enabled": False}) as (sidecar, _):
            # As itself, as a source of its own, as another's, as a source of its own for another's simulation.
            tried = [
                ("town", "town"),
                ("town", "town-west"),
                ("village", "village"),
                ("village", "town-east"),
            ]
            publishers = [
                Publisher(simulation, address=sidecar.feed_address, source=source, curve=town)
                for simulation, source in tried
            ]
            try:
                for publisher in publishers:
                    publisher.activity("a", for_=1.0)

                async def judged() -> bool:
                    return (
                        caplog.text.count("may not speak for 'village'") == 2
                        and len(sidecar.gate.streams()) == 2
                    )

                await until(judged)
                assert set(sidecar.gate.streams()) == {"town", "town-west"}
                assert set(sidecar.population.agents) == {"town/a"}
                assert sidecar.gate.counts["foreign"] == 2
            finally:
                for publisher in publishers:
                    publisher.close()

    with caplog.at_level(logging.WARNING, "scalesim_client"):
        asyncio.run(scene())
    logged = capsys.readouterr().err
    assert "a line speaks-for in its file allows it" in logged
    assert "['town', 'town-*']" in logged


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "agent.woken", "agent": "a"}],
        [{"type": "nonsense"}, {"type": "stream.opened", "simulation": "village", "source": "x"}],
        [7, {"type": "stream.opened", "simulation": ["town"]}],
    ],
)
def test_no_order_of_events_gets_past_a_key(keyring: Keyring, events: list[object]) -> None:
    key = keyring.publisher("town", known=False).public
    keyring.admit("town", "t?wn", "[uv]*x")
    keys = Keys(keyring.clients)
    assert keys.callback("*", key) and keys.refusal(key, "village", events)
    ours = [{"type": "stream.opened", "simulation": "town"}, *events[:1]]
    assert keys.refusal(key, "vex", ours) is None
    assert (keys.refusal(key, "vex", events) is None) is (len(events) == 1)
    # What connections that stand may say is known of a key that is gone, too.
    (keyring.clients / "town.key").unlink()
    assert not keys.callback("*", key) and keys.refusal(key, "village", events)


def test_neither_another_s_connection_nor_no_source_makes_a_key_speak_for_more(
    tmp_path: Path, keyring: Keyring
) -> None:
    curve, village = keyring.publisher("town", known=False), keyring.publisher("village", known=True)
    keyring.admit("town", "town")
    event = b'[0, [{"type": "agent.woken", "agent": "a"}]]'

    async def scene() -> None:
        async with daemon(tmp_path, feed=keyring.door(), redis={"enabled": False}) as (sidecar, _):
            with closing(Raw(sidecar.feed_address, "town", curve)) as town:
                assert (await town.open("town"))["resync"] is False
                await town.send([event])
                assert "'anonymous'" in (await town.hear())["error"]
                assert set(sidecar.gate.streams()) == {"town"}
            with closing(Raw(sidecar.feed_address, "village", village, b"me")) as true:
                assert (await true.open("village"))["last_seq"] == 0
                with closing(Raw(sidecar.feed_address, "village", curve, b"me")) as false:
                    false.seq = 1
                    await false.say({"type": "agent.woken", "agent": "a"})
                    assert "'village'" in (await false.hear())["error"]
            assert not sidecar.population.agents and sidecar.gate.counts["foreign"] == 2

    asyncio.run(scene())


def test_a_copy_of_a_key_does_not_free_it(keyring: Keyring) -> None:
    key = keyring.publisher("town", known=False).public
    keyring.admit("town")
    keys, file = Keys(keyring.clients), keyring.clients / "town.key"
    assert keys.refusal(key, "village", []) is None
    for name, line in (("a", "speaks-for = town"), ("b", ""), ("c", "speaks-for = hamlet")):
        (keyring.clients / f"{name}.key").write_text(f"{file.read_text()}{line}\n")
    assert keys.callback("*", key)
    assert [keys.refusal(key, name, []) is None for name in ("town", "hamlet", "village")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("line", ["speaks-for", "speaks-for town", 'speaks-for = ""', "speaks-for-x = town"])
def test_a_line_that_says_for_nobody_keeps_its_key_out(
    keyring: Keyring, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    key = keyring.publisher("town", known=True).public
    file = keyring.clients / "town.key"
    file.write_text(file.read_text() + line + "\n")
    assert not Keys(keyring.clients).callback("*", key)
    assert 'write speaks-for = "PATTERN"' in "".join(capsys.readouterr())
