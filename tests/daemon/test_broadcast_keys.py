"""A broadcast that other hosts reach: refused without keys, heard by plug-ins whose key is known and by nobody else."""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
import zmq

from scalesim_adapters.dues import TOPIC, DueKeys, DueListener
from scalesim_adapters.sglang.plugin import read_keys
from scalesim_adapters.vllm.plugin.options import read_options
from scalesim_client import Publisher
from scalesim_client.curve import make_keys
from scalesim_daemon.app import running
from scalesim_daemon.broadcast import Broadcast
from scalesim_daemon.population import Population
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError
from tests.daemon.keyring import Keyring
from tests.daemon.live import WITHIN, daemon, overrides, until

needs_curve = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq was built without CURVE")


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


@pytest.mark.parametrize(
    "bind", ["tcp://0.0.0.0:5601", "tcp://*:5601", "tcp://[::]:5601", "tcp://a-host:5601"]
)
def test_a_broadcast_that_other_hosts_reach_is_refused_without_keys(bind: str) -> None:
    with pytest.raises(
        ConfigError, match=r"broadcast\.bind: .* is reachable from outside.*set broadcast\.curve"
    ):
        load_settings(None, {"broadcast": {"bind": bind}})
    assert load_settings(None, {"broadcast": {"bind": bind, "insecure_no_keys": True}}).broadcast.bind == bind
    curve = {"server_key_file": "/etc/scalesim/dues.key_secret", "clients_dir": "/etc/scalesim/engines"}
    assert load_settings(None, {"broadcast": {"bind": bind, "curve": curve}}).broadcast.bind == bind


@needs_curve
def test_keys_that_cannot_be_read_stop_the_start(tmp_path: Path, keyring: Keyring) -> None:
    keyring.own.unlink()

    async def scene() -> None:
        given = overrides(tmp_path, broadcast=keyring.door(), redis={"enabled": False})
        async with running(load_settings(None, given)):
            pass

    with pytest.raises(ConfigError, match=r"broadcast\.curve\.server_key_file: .*feed\.key_secret"):
        asyncio.run(scene())


@needs_curve
def test_a_plugin_whose_key_is_known_hears_and_nobody_else(
    tmp_path: Path,
    keyring: Keyring,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scalesim_adapters.dues.KNOCK_AGAIN_SECONDS", 0.1)
    files = {name: str(keyring.make(name, known=name == "engine")) for name in ("engine", "stranger")}

    async def scene() -> None:
        async with daemon(tmp_path, broadcast=keyring.door(), redis={"enabled": False}) as (sidecar, _):
            assert sidecar.broadcast is not None

            def listening(keys: str | None) -> DueListener:
                """As vLLM is told: by its additional configuration."""
                named = {} if keys is None else {"keys": keys, "daemon_key": str(keyring.server)}
                told = {"dues": sidecar.broadcast.address, "silence_seconds": 1.0, **named}
                return read_options({"scalesim": told}).listener()

            with (
                Publisher("village", address=sidecar.feed_address) as publisher,
                closing(listening(files["engine"])) as known,
                closing(listening(files["stranger"])) as stranger,
                closing(listening(None)) as keyless,
            ):
                publisher.step(0.0)
                publisher.activity("a", until=5.0)
                others = (stranger, keyless)

                async def heard() -> bool:
                    return known.table.seconds("village/a") == 5.0

                async def refused() -> bool:
                    return caplog.text.count("ends the handshake") == 2

                await until(heard)
                await until(refused)
                assert all(listener.table.stale(monotonic()) for listener in others)
                keyring.admit("stranger")

                async def admitted() -> bool:
                    return stranger.table.seconds("village/a") == 5.0

                await until(admitted)
                assert keyless.table.stale(monotonic())

    with caplog.at_level(logging.WARNING, "scalesim_adapters"):
        asyncio.run(scene())
    logged = capsys.readouterr().err
    assert logged.count("its key is not known") == 1 and "if it may hear dues" in logged


def test_sglang_is_told_its_keys_by_the_environment(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert read_keys() is None
    secret = keyring.make("engine", known=False)
    monkeypatch.setenv("SCALESIM_DUES_KEYS", str(secret))
    with pytest.raises(ValueError, match="two files"):
        read_keys()
    monkeypatch.setenv("SCALESIM_DUES_DAEMON_KEY", str(keyring.server))
    keys = read_keys()
    assert keys is not None and keys.server.decode() in keyring.server.read_text()
    assert keys.secret.decode() in secret.read_text() and keys.secret != keys.public
    # A daemon that is started with the same environment knows them for another's.
    load_settings()


@pytest.mark.parametrize("spoilt", ["public", "missing", "no key"])
def test_keys_that_are_none_are_said_at_once(tmp_path: Path, spoilt: str) -> None:
    public, secret = make_keys(tmp_path, "engine")
    files = {"public": public, "missing": tmp_path / "nowhere", "no key": tmp_path / "bad"}
    (tmp_path / "bad").write_text('public-key = "short"\nsecret-key = "shorter"\n')
    with pytest.raises(ValueError, match=r"secret key|nowhere|with these keys"):
        DueListener("tcp://127.0.0.1:9", keys=DueKeys.load(str(files[spoilt]), str(public))).close()
    assert secret.exists()


def test_who_subscribes_to_ever_more_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesim_daemon.broadcast.SUBSCRIPTIONS_A_CYCLE", 10)
    broadcast = Broadcast(f"ipc://{tmp_path}/dues", Population())
    with zmq.Context() as context, context.socket(zmq.XSUB) as hog:
        hog.connect(broadcast.address)
        for number in range(300):
            hog.send(b"\x01topic %d" % number)
        hog.send(b"\x01" + TOPIC)
        deadline, cycles = monotonic() + WITHIN, 0
        while not hog.poll(5):
            assert monotonic() < deadline
            broadcast.publish(frozenset(), 0.0)
            cycles += 1
        assert cycles > 300 / 10
        assert broadcast._topics == {TOPIC}
    broadcast.close()
