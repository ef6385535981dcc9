"""LoRAs lie under the roots that the operator names: no path, link or file leads out of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from scalesim_client import Publisher
from scalesim_daemon.loras import LoraError, LoraLibrary
from scalesim_daemon.setting_sources import load_settings
from tests.daemon.live import daemon, until
from tests.daemon.lora_files import BYTES, CONFIG, make_lora, staged_copies, weights


@pytest.fixture
def rooted(tmp_path: Path) -> Iterator[LoraLibrary]:
    """A library of LoRAs under `loras`, which is itself a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "loras").symlink_to(tmp_path / "disk")
    library = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES, [tmp_path / "loras"])
    library.recover()
    yield library
    library.close()


def test_a_lora_under_a_root_is_taken(rooted: LoraLibrary, tmp_path: Path) -> None:
    make_lora(tmp_path / "loras" / "team" / "alice", b"a")
    (tmp_path / "loras" / "newest").symlink_to("team/alice")
    for path in ("team/alice", "newest", "team/../team/alice"):
        assert weights(rooted.link("alice", tmp_path / "loras" / path))[:1] == b"a"
    rooted.stage("alice")
    assert len(staged_copies(tmp_path)) == 1


@pytest.mark.parametrize(
    "path", ["loras/../outside", "outside", "loras/out", "disk2", "loras/out/../outside"]
)
def test_what_lies_outside_is_refused_unread(rooted: LoraLibrary, tmp_path: Path, path: str) -> None:
    make_lora(tmp_path / "outside", b"o")
    make_lora(tmp_path / "disk2", b"o")
    (tmp_path / "loras" / "out").symlink_to(tmp_path / "outside")
    with pytest.raises(LoraError, match=r"outside loras\.roots .*: move it there, or add its root"):
        rooted.link("mallory", tmp_path / path)
    assert rooted.inventory()[0] == {}
    assert not [link for link in (tmp_path / "links").iterdir() if link.is_symlink()]


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json", "notes.txt"])
def test_no_file_leads_out(rooted: LoraLibrary, tmp_path: Path, file: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 10)
    folder = make_lora(tmp_path / "loras" / "mallory", b"m")
    (folder / file).unlink(missing_ok=True)
    (folder / file).symlink_to(secret)
    with pytest.raises(LoraError, match=r"secret is outside loras\.roots"):
        rooted.link("mallory", folder)


def test_a_file_that_leads_out_by_the_time_it_is_staged_is_not_copied(
    rooted: LoraLibrary, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 10)
    folder = make_lora(tmp_path / "loras" / "alice", b"a")
    rooted.link("alice", folder)
    (folder / "extra").symlink_to(tmp_path / "secret")
    with pytest.raises(LoraError, match="outside"):
        rooted.stage("alice")
    assert staged_copies(tmp_path) == []


@pytest.mark.parametrize("exchanged", ["directory", "file", "pipe"])
@pytest.mark.parametrize("step", ["link", "stage"])
def test_what_is_exchanged_after_it_was_looked_at_is_not_read(
    rooted: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: str, step: str
) -> None:
    outside, folder = make_lora(tmp_path / "outside", b"o"), make_lora(tmp_path / "loras" / "alice", b"a")
    if step == "stage":
        rooted.link("alice", folder)
    look = rooted._allowed
    weights_file = folder / "adapter_model.safetensors"

    def look_and_exchange(name: str, original: Path) -> Path:
        found = look(name, original)
        if exchanged == "directory":
            folder.rename(tmp_path / "loras" / "away")
            folder.symlink_to(outside)
        else:
            weights_file.unlink()
            if exchanged == "pipe":
                os.mkfifo(weights_file)
            else:
                weights_file.symlink_to(outside / weights_file.name)
        return found

    monkeypatch.setattr(rooted, "_allowed", look_and_exchange)
    # A pipe is no file of a LoRA: it isn't even opened.
    refused = LoraError if exchanged == "pipe" else PermissionError
    with pytest.raises(refused, match=r"none of|changed since|no file below the roots"):
        rooted.link("alice", folder) if step == "link" else rooted.stage("alice")
    assert staged_copies(tmp_path) == []


def test_a_file_that_grows_while_it_is_copied_takes_no_more_room(
    rooted: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_lora(tmp_path / "loras" / "alice", b"a")
    rooted.link("alice", folder)
    reading, taken = rooted._reading, []

    def read_and_grow(path: Path) -> BinaryIO:
        if path.parent == folder and path.suffix == ".safetensors":
            with path.open("ab") as file:
                file.write(b"more" * BYTES)
        else:
            taken.extend(copy.stat().st_size for copy in (tmp_path / "staging").rglob("*.safetensors"))
        return reading(path)

    monkeypatch.setattr(rooted, "_reading", read_and_grow)
    rooted.stage("alice")
    assert set(taken) == {BYTES - len(CONFIG)}
    assert set(weights(rooted.path("alice"))) == {ord("a")}


@pytest.mark.parametrize("path", ["/tmp/a\0b", "loop"])
def test_a_path_that_leads_nowhere_is_refused(rooted: LoraLibrary, tmp_path: Path, path: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(LoraError, match="leads nowhere"):
        rooted.link("lost", tmp_path / path)


def test_links_made_before_there_were_roots_are_no_longer_used(tmp_path: Path) -> None:
    folders = [make_lora(tmp_path / place / "alice", b"a") for place in ("outside", "loras")]
    free = LoraLibrary(tmp_path / "links", tmp_path / "staging", BYTES)
    free.recover()
    link = free.link("alice", folders[0])
    free.stage("alice")
    free.close()
    rooted = LoraLibrary(tmp_path / "links", tmp_path / "staging", BYTES, [tmp_path / "loras"])
    assert rooted.recover().links == 0
    # An engine may have loaded from it: it leads to the original until it means something else, and its copy is gone.
    assert link.readlink() == folders[0] and rooted.inventory() == ({}, BYTES)
    assert rooted.link("alice", folders[1]) == link
    assert link.readlink() == folders[1]
    rooted.close()


@pytest.mark.parametrize(
    ("given", "anywhere"),
    [
        ({}, True),
        ({"loras": {"roots": ["/models"]}}, False),
        ({"feed": {"bind": "tcp://0.0.0.0:5600", "insecure_no_keys": True}}, False),
        ({"api": {"host": "0.0.0.0", "admin_token": "a" * 32}}, False),
        ({"feed": {"subscribe": [{"endpoint": "tcp://10.0.0.7:5610"}]}}, False),
        ({"feed": {"bind": "tcp://[::1]:5600", "subscribe": [{"endpoint": "ipc:///tmp/x"}]}}, True),
    ],
)
def test_loras_may_lie_anywhere_only_while_other_hosts_bring_no_events(
    given: dict[str, object], anywhere: bool
) -> None:
    assert (load_settings(None, given).lora_roots is None) is anywhere


def test_an_agent_s_account_says_why_its_lora_is_not_taken(tmp_path: Path) -> None:
    outside = make_lora(tmp_path / "outside", b"o")

    async def scene() -> None:
        folders = {"links_dir": str(tmp_path / "links"), "staging_dir": str(tmp_path / "staging")}
        loras = {**folders, "roots": [str(tmp_path / "loras")]}
        async with daemon(tmp_path, loras=loras, redis={"enabled": False}) as (sidecar, api):
            with Publisher("village", address=sidecar.feed_address) as publisher:
                publisher.bind("mallory", lora=str(outside), lora_name="mallory")

                async def told() -> bool:
                    answer = await api.get("/v1/agents/village/mallory")
                    return answer.status_code == 200 and "is outside loras.roots" in answer.json()["why"]

                await until(told)

    asyncio.run(scene())
