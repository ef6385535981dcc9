"""Links of the LoRA library: one for each name and content, inside its directory."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from scalesim_daemon.loras import LoraError, LoraLibrary
from tests.daemon.lora_files import BYTES, make_lora, staged_copies, weights


def test_a_link_is_stable_and_tells_its_content(library: LoraLibrary, tmp_path: Path) -> None:
    first = library.link("alice", make_lora(tmp_path / "alice", b"a"))
    assert first.parent == tmp_path / "links"
    assert first.name.startswith("alice-")
    assert len(first.name) == len("alice-") + 12
    assert first.readlink() == tmp_path / "alice"
    assert library.path("alice") == first == library.link("alice", tmp_path / "alice")
    # The same content elsewhere is the same link; it moves to what was bound last.
    assert library.link("alice", make_lora(tmp_path / "moved", b"a")) == first
    assert first.readlink() == tmp_path / "moved"
    changed = library.link("alice", make_lora(tmp_path / "retrained", b"b"))
    assert changed != first
    assert weights(first)[:1] == b"a"
    assert weights(changed)[:1] == b"b"
    assert library.path("alice") == changed


def test_new_content_in_place_gives_a_new_link(library: LoraLibrary, tmp_path: Path) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    first = library.link("alice", original)
    (original / "adapter_config.json").write_bytes(b'{"r": 16}')
    assert library.link("alice", original) != first


@pytest.mark.parametrize(
    "name", ["../../etc", "..", ".work", "/etc/passwd", "a/b", "é" * 120, "a" * 256, "\0", " ", "-x"]
)
def test_no_name_leaves_the_directory(library: LoraLibrary, tmp_path: Path, name: str) -> None:
    original = make_lora(tmp_path / "lora", b"a")
    link = library.link(name, original)
    assert link.parent == tmp_path / "links"
    assert Path(os.path.normpath(link)) == link
    assert link.is_symlink()
    assert link.name[0].isalnum() or link.name[0] in "_-~"
    library.stage(name)
    assert staged_copies(tmp_path) == [link.name]
    assert link.resolve() != original
    library.unstage(name)
    assert link.resolve() == original


def test_names_that_look_alike_have_different_links(library: LoraLibrary, tmp_path: Path) -> None:
    original = make_lora(tmp_path / "lora", b"a")
    names = ["a/b", "a_b", "a:b", "a b", "a" * 100, "a" * 101]
    assert len({library.link(name, original) for name in names}) == len(names)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_what_is_no_lora_is_refused(library: LoraLibrary, tmp_path: Path, missing: str) -> None:
    original = make_lora(tmp_path / "lora", b"a")
    (original / missing).unlink()
    with pytest.raises(LoraError, match=rf"is no LoRA: no.* {re.escape(missing)}"):
        library.link("alice", original)
    with pytest.raises(LoraError, match="is no LoRA"):
        library.link("alice", tmp_path / "nowhere")
    with pytest.raises(LoraError, match="not linked"):
        library.stage("alice")
    assert library.inventory() == ({}, 2 * BYTES)


def test_our_own_copies_are_no_originals(library: LoraLibrary, tmp_path: Path) -> None:
    link = library.link("alice", make_lora(tmp_path / "alice", b"a"))
    library.stage("alice")
    with pytest.raises(LoraError, match="one of this daemon's own copies"):
        library.link("bob", link)
