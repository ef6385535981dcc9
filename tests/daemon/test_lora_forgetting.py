"""LoRAs whose names never come again: neither names nor links nor files of theirs pile up, and what is in use stays."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from scalesim_adapters.base import EngineError, MemoryKind
from scalesim_daemon import ledger, lora_forgetting, loras, view
from scalesim_daemon.ledger import Ledger
from scalesim_daemon.lora_forgetting import forget_unused
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.view import LoraPlaces
from tests.daemon.kept import names_kept
from tests.daemon.live import daemon, emulator, until
from tests.daemon.lora_files import BYTES, make_lora


def left(folder: Path) -> list[str]:
    """Return what lies in a library's directory, without what tells the content."""
    return sorted(path.name.removesuffix(".json")[:-13] for path in folder.iterdir() if path.name[0] != ".")


def test_the_longest_unused_go(library: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loras, "MOST_UNUSED", 2)
    names = ["bound", "had", "staged", *(f"gone{number}" for number in range(9))]
    links = {name: library.link(name, make_lora(tmp_path / name, name.encode()[:1])) for name in names}
    library.stage("staged")
    library.link("gone0", tmp_path / "gone0")
    assert library.crowded
    assert library.forget({"bound"}, {str(links["had"])}) == 7
    stays = ["bound", "gone0", "gone8", "had", "staged"]
    assert sorted(library.inventory()[0]) == left(tmp_path / "links") == stays
    assert left(tmp_path / "links" / ".originals") == stays
    assert len(names_kept(library, "gone")) == len(
        names_kept(library, "gone0") | names_kept(library, "gone8")
    )
    # Another start finds the same, and a name that comes again gets the link that it had.
    library.close()
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    assert again.recover().links == len(stays)
    assert again.link("gone3", tmp_path / "gone3") == links["gone3"]
    again.close()


def test_what_a_lora_was_before_it_changed_goes_once_no_engine_has_it(
    library: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loras, "MOST_UNUSED", 0)
    first = library.link("rosa", make_lora(tmp_path / "first", b"a"))
    second = library.link("rosa", make_lora(tmp_path / "second", b"b"))
    assert library.forget({"rosa"}, {str(first)}) == 0
    assert library.forget({"rosa"}, {str(second)}) == 1
    assert (first.is_symlink(), second.is_symlink(), library.path("rosa")) == (False, True, second)


def test_what_lost_its_original_goes_after_another_start_too(
    library: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loras, "MOST_UNUSED", 0)
    link = library.link("rosa", make_lora(tmp_path / "rosa", b"a"))
    shutil.rmtree(tmp_path / "rosa")
    library.close()
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    found = again.recover()
    assert (found.links, found.broken, again.inventory()[0]) == (0, ("rosa",), {})
    assert again.forget({"rosa"}, {str(link)}) == 0
    assert again.forget({"rosa"}, set()) == 1
    assert left(tmp_path / "links") == left(tmp_path / "links" / ".originals") == []
    again.close()


def test_a_daemon_forgets_what_neither_agents_nor_engines_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loras, "MOST_UNUSED", 1)
    monkeypatch.setattr(lora_forgetting, "FORGET_SECONDS", 0.02)

    async def scene() -> None:
        with ExitStack() as stack:
            engine = stack.enter_context(emulator(tmp_path))
            async with (
                httpx.AsyncClient(base_url=engine.url) as asked,
                daemon(tmp_path, engine.url, redis={"enabled": False}) as (sidecar, api),
            ):

                async def say(kind: str, name: str, **more: str) -> None:
                    event = {"type": kind, "agent": name, **more}
                    assert (await api.post("/v1/events", json=event)).json()["accepted"] == 1

                async def bind(name: str) -> None:
                    folder = make_lora(tmp_path / name, b"\0")
                    await say("memory.bound", name, lora=str(folder), lora_name=name)

                def known() -> set[str]:
                    return set(sidecar.library.inventory()[0])

                async def registered(*names: str) -> bool:
                    cards = (await asked.get("/v1/models")).json()["data"]
                    return set(names) == {card["id"] for card in cards if card["parent"] is not None}

                names = [f"gone{number}" for number in range(4)]
                for name in ("rosa", *names):
                    await bind(name)
                await until(lambda: registered("rosa", *names))
                # What an engine has stays: without a word of the agent's end its name isn't taken away.
                assert await forget_unused(sidecar) == 0
                for name in names:
                    await say("agent.released", name)
                await until(lambda: registered("rosa"))

                async def few() -> bool:
                    return len(known()) == 2

                await until(few)
                assert "rosa" in known() and set(left(tmp_path / "links")) == known()
                await bind("other")
                stack.close()
                with pytest.raises(EngineError):
                    await forget_unused(sidecar)

    asyncio.run(scene())


def test_an_engine_that_tells_no_places_is_taken_to_have_a_bounded_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view, "MOST_LORAS", 3)
    places = LoraPlaces()
    for number in range(9):
        places.used(str(number))
    assert list(places.host) == list(places.device) == ["6", "7", "8"]


def test_what_was_brought_and_never_used_is_kept_in_mind_for_a_bounded_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "MOST_BROUGHT", 3)
    counted = Ledger()

    def bring(number: int) -> None:
        counted.brought(Step(Action.LOAD, MemoryKind.LORA, f"gone{number}", 0, 1, 1.0, "due next"))

    for number in range(9):
        bring(number)
    assert names_kept(counted, "gone") == {"gone6", "gone7", "gone8"}
    bring(8)
    assert counted.reloads[MemoryKind.LORA] == 1
