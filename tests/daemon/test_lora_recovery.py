"""The LoRA library after an end of its process: links resolve to complete content wherever it ended."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalesim_daemon import loras
from scalesim_daemon.dirlock import DirectoryInUse
from scalesim_daemon.loras import LoraError, LoraLibrary
from scalesim_daemon.settings import ConfigError, LoraSettings
from tests.daemon.lora_files import BYTES, CONFIG, make_lora, staged_copies, weights


def test_a_shutdown_removes_nothing_and_recovery_continues(library: LoraLibrary, tmp_path: Path) -> None:
    a, b = (library.link(name, make_lora(tmp_path / name, name.encode())) for name in "ab")
    library.stage("a")
    before = library.inventory()
    library.close()
    assert weights(a)[:1] == b"a"
    assert weights(b)[:1] == b"b"
    with pytest.raises(LoraError, match="call recover first"):
        library.stage("b")
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    found = again.recover()
    assert (found.links, found.repaired, found.broken, found.dropped) == (2, (), (), 0)
    assert again.inventory() == before
    again.unstage("a")
    assert a.resolve() == tmp_path / "a"
    again.close()


def test_no_other_daemon_has_the_directories_before_a_copy_that_is_being_made_is_done(
    library: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = library.link("a", make_lora(tmp_path / "a", b"a"))
    copying, on = Event(), Event()

    def fill(*_: object) -> None:
        copying.set()
        assert on.wait(10)
        raise OSError(errno.EIO, "no such luck")

    monkeypatch.setattr(loras, "fill", fill)
    other = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    with ThreadPoolExecutor() as pool:
        staging = pool.submit(library.stage, "a")
        assert copying.wait(10)
        closing = pool.submit(library.close)
        with suppress(TimeoutError):
            closing.result(0.05)
        with pytest.raises(DirectoryInUse):
            other.recover()
        on.set()
        assert isinstance(staging.exception(), OSError)
        closing.result(10)
    assert other.recover().links == 1 and weights(link)[:1] == b"a"
    other.close()


def test_links_that_dangle_return_to_the_original(library: LoraLibrary, tmp_path: Path) -> None:
    for name in "ab":
        library.link(name, make_lora(tmp_path / name, name.encode()))
        library.stage(name)
    library.close()
    shutil.rmtree(tmp_path / "staging")
    shutil.rmtree(tmp_path / "b")
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    found = again.recover()
    assert (found.links, found.repaired, found.broken, found.dropped) == (1, ("a",), ("b",), 0)
    assert weights(again.path("a"))[:1] == b"a"
    with pytest.raises(LoraError, match="not linked"):
        again.path("b")
    assert again.inventory()[1] == 2 * BYTES
    again.close()


def test_a_copy_with_other_content_is_not_trusted(library: LoraLibrary, tmp_path: Path) -> None:
    link = library.link("a", make_lora(tmp_path / "a", b"a"))
    library.stage("a")
    library.close()
    (link / "adapter_model.safetensors").write_bytes(b"\0" * BYTES)
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    assert again.recover().repaired == ("a",)
    assert weights(link)[:1] == b"a"
    assert staged_copies(tmp_path) == []
    again.close()


def test_an_unreadable_record_costs_nothing_else(library: LoraLibrary, tmp_path: Path) -> None:
    a, b = (library.link(name, make_lora(tmp_path / name, name.encode())) for name in "ab")
    library.stage("a")
    library.close()
    (tmp_path / "links" / ".originals" / f"{a.name}.json").write_text("{")
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    assert again.recover().links == 1
    assert weights(a)[:1] == b"a", "its copy stays: the link points to it"
    assert again.link("a", tmp_path / "a") == a
    again.unstage("a")
    assert weights(a)[:1] == b"a"
    assert weights(b)[:1] == b"b"
    again.close()


def test_one_daemon_per_directory(library: LoraLibrary, tmp_path: Path) -> None:
    with pytest.raises(DirectoryInUse):
        LoraLibrary(tmp_path / "links", tmp_path / "staging", BYTES).recover()
    both = LoraSettings(links_dir=tmp_path / "links", staging_dir=tmp_path / "staging")
    with pytest.raises(ConfigError, match="in use by another process"):
        LoraLibrary.open(both)
    # Other links may share the staging directory, and leave the first one's copies alone.
    link = library.link("alice", make_lora(tmp_path / "alice", b"a"))
    library.stage("alice")
    other = LoraLibrary.open(both.model_copy(update={"links_dir": tmp_path / "other"}))
    assert other.inventory()[0] == {}
    assert weights(link)[:1] == b"a"
    other.close()


# Crashes: an audit hook sees every file-system operation of the interpreter before it happens. A crash is an
# operation that doesn't happen, and none after it either, so that no cleanup code can run.


class Crash(BaseException):
    """The process ends here."""


class FileSystemWatch:
    """Calls `check` before every operation that changes files, and crashes at the `crash_at`-th."""

    CHANGES = frozenset(
        {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.truncate", "os.link"}
    )

    def __init__(self) -> None:
        self.check: Callable[[], None] | None = None
        self.crash_at: int | None = None
        self.operations = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.check is None or not (event in self.CHANGES or self._opens_to_write(event, arguments)):
            return
        check, self.check = self.check, None
        check()
        self.check = check
        if self.crash_at is not None and self.operations >= self.crash_at:
            raise Crash
        self.operations += 1

    @staticmethod
    def _opens_to_write(event: str, arguments: tuple[Any, ...]) -> bool:
        return event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))

    @contextmanager
    def during(self, check: Callable[[], None], crash_at: int | None) -> Iterator[None]:
        self.check, self.crash_at, self.operations = check, crash_at, 0
        try:
            yield
        finally:
            self.check = None


watch = FileSystemWatch()
sys.addaudithook(watch)

NAMES = "abc"
ACTIONS = st.sampled_from(["link", "stage", "unstage", "restart"])
STEPS = st.lists(st.tuples(ACTIONS, st.sampled_from(NAMES), st.none() | st.integers(0, 14)), max_size=12)


class Scene:
    """Three LoRAs of one size, a budget for two, and what must hold whenever anyone looks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.promised: set[Path] = set()
        for name in NAMES:
            make_lora(root / name, name.encode())
        self.library = self.new_library()
        self.library.recover()

    def new_library(self) -> LoraLibrary:
        return LoraLibrary(self.root / "links", self.root / "staging", 2 * BYTES)

    def check(self) -> None:
        links = {path for path in (self.root / "links").iterdir() if path.is_symlink()}
        assert self.promised <= links, "no link that was handed out goes away"
        for link in links:
            assert weights(link) == link.name[:1].encode() * (BYTES - len(CONFIG))
            assert (link / "adapter_config.json").read_bytes() == CONFIG
        staged = (path for path in (self.root / "staging").rglob("*") if path.is_file())
        assert sum(path.stat().st_size for path in staged) <= 2 * BYTES

    def do(self, action: str, name: str) -> None:
        match action:
            case "link":
                self.promised.add(self.library.link(name, self.root / name))
            case "stage":
                self.library.stage(name)
            case "unstage":
                self.library.unstage(name)
            case "restart":
                self.restart()

    def restart(self) -> None:
        self.library.close()
        self.library = self.new_library()
        self.library.recover()

    def step(self, action: str, name: str, crash_at: int | None) -> bool:
        """Do one thing; return whether it crashed."""
        try:
            with watch.during(self.check, crash_at):
                self.do(action, name)
        except LoraError:
            pass
        except Crash:
            self.check()
            self.restart()
            return True
        finally:
            self.check()
        return False


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_every_link_resolves_to_complete_content_at_every_moment(
    steps: list[tuple[str, str, int | None]],
) -> None:
    with tempfile.TemporaryDirectory() as root:
        scene = Scene(Path(root))
        for action, name, crash_at in steps:
            scene.step(action, name, crash_at)
        scene.restart()
        scene.check()
        used = {link.readlink() for link in (Path(root) / "links").iterdir() if link.is_symlink()}
        copies = {copy for part in (Path(root) / "staging").iterdir() for copy in part.iterdir()}
        assert copies <= used, "no copy outlives its link"
        for name in NAMES:
            scene.do("link", name)
            scene.do("unstage", name)
        scene.do("stage", "a")
        scene.do("stage", "b")
        assert scene.library.inventory()[1] == 0
        scene.library.close()


@pytest.mark.parametrize("action", ["link", "stage", "unstage", "restart"])
def test_a_crash_at_each_operation_of_each_action(tmp_path: Path, action: str) -> None:
    crashes = 0
    while True:
        root = tmp_path / str(crashes)
        root.mkdir()
        scene = Scene(root)
        if action != "link":
            scene.do("link", "a")
        if action in ("unstage", "restart"):
            scene.do("stage", "a")
        if action == "restart":
            copy = scene.library.path("a").resolve()
            shutil.copytree(copy, copy.with_name("unused"))
        crashed = scene.step(action, "a", crashes)
        scene.do("link", "a")
        scene.do("stage", "a")
        assert scene.library.inventory()[0]["a"][2]
        scene.library.close()
        if not crashed:
            break
        crashes += 1
    assert crashes >= 3
