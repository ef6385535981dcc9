"""Publishers of all languages before a feed that asks for keys: they read the same files and are heard by their key."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from scalesim_client.curve import make_keys
from tests.client.speakers import ROOT, built, speaking
from tests.daemon.keyring import Keyring
from tests.daemon.live import daemon, until

# The first test of a language builds it.
pytestmark = [pytest.mark.publishers, pytest.mark.timeout(180)]
every_language = pytest.mark.parametrize("language", ["python", "node", "c", "rust"])


@every_language
def test_a_known_key_is_heard_and_another_one_as_soon_as_it_is_known(language: str, tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    secrets = {name: keyring.make(name, known=name == "friend") for name in ("friend", "stranger")}

    async def scene() -> None:
        async with daemon(tmp_path, feed=keyring.door(), redis={"enabled": False}) as (sidecar, _):
            address = sidecar.feed_address
            with (tmp_path / "complaints").open("wb") as complaints:
                async with (
                    speaking(language, address, "friend", keys=(secrets["friend"], keyring.server)) as friend,
                    speaking(
                        language,
                        address,
                        "stranger",
                        keys=(secrets["stranger"], keyring.server),
                        complaints=complaints,
                    ) as stranger,
                ):
                    friend.say("agent.activity_started agent=Ada for=3")
                    await friend.flush()
                    stranger.say("agent.activity_started agent=Bob for=3")

                    async def refused() -> bool:
                        return "ends the handshake" in (tmp_path / "complaints").read_text()

                    await until(refused)
                    assert set(sidecar.gate.streams()) == {"friend"}
                    keyring.admit("stranger")
                    await stranger.flush()
                    await until(_known(sidecar.population.agents, {"friend/Ada", "stranger/Bob"}))

    asyncio.run(scene())
    complaints = (tmp_path / "complaints").read_text()
    assert complaints.count("ends the handshake") == 1
    assert _secret(secrets["stranger"]) not in complaints


@every_language
def test_a_key_that_may_not_speak_for_a_source_is_told_so(language: str, tmp_path: Path) -> None:
    keyring = Keyring(tmp_path)
    keys = (keyring.make("town", known=False), keyring.server)
    keyring.admit("town", "town")

    async def scene() -> None:
        async with daemon(tmp_path, feed=keyring.door(), redis={"enabled": False}) as (sidecar, _):
            with (tmp_path / "complaints").open("wb") as complaints:
                address = sidecar.feed_address
                async with speaking(language, address, "village", keys=keys, complaints=complaints):

                    async def told() -> bool:
                        said = (tmp_path / "complaints").read_text()
                        return "this key may not speak for 'village'" in said

                    await until(told)
            assert not sidecar.gate.streams()

    asyncio.run(scene())


@every_language
@pytest.mark.parametrize("spoilt", ["public", "missing", "short", "of no such alphabet", "too large"])
def test_what_is_no_key_is_refused_at_once(language: str, tmp_path: Path, spoilt: str) -> None:
    server, secret = make_keys(tmp_path, "village")
    text = secret.read_text()
    others = {"short": "x" * 39, "of no such alphabet": "x" * 39 + "~", "too large": "#" * 40}
    if spoilt in others:
        secret.write_text(text.replace(_secret(secret), others[spoilt]))
    own = {"public": server, "missing": tmp_path / "nowhere"}.get(spoilt, secret)
    command = [*built(language).say, "say", "tcp://127.0.0.1:9", "village", "30", str(own), str(server)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=15)
    assert done.returncode == 1 and done.stderr
    assert _secret(secret) not in done.stderr.decode()


def _known(agents: dict[str, object], names: set[str]) -> object:
    async def known() -> bool:
        return set(agents) == names

    return known


def _secret(file: Path) -> str:
    return file.read_text().rpartition('secret-key = "')[2].strip().strip('"')
