"""Where an engine tells which LoRA is where, that is taken; else the shadow of its bookkeeping is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from scalesim_adapters.base import (
    Capability,
    EngineAdapter,
    EngineInfo,
    Inventory,
    Item,
    LoraItem,
    LoraPlaces,
    MemoryKind,
    Outcome,
    Rejected,
    Tier,
)
from scalesim_daemon.acts import Acts
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.population import Population
from scalesim_daemon.view import EngineView
from tests.daemon.lora_files import make_lora

PLACES = LoraPlaces(("x", "y"), ("z", "x", "y"), frozenset({"x"}))


class Engine:
    """Keeps what it was asked to load, and tells what it is told to tell."""

    def __init__(self, places: LoraPlaces | None) -> None:
        self.loaded: list[tuple[Item, Tier]] = []
        self.places = places
        self.released: Item | None = None

    async def load(self, item: Item, tier: Tier, *, deadline: float) -> Outcome:
        self.loaded.append((item, tier))
        return Outcome(0.0)

    async def inventory(self) -> Inventory:
        return Inventory({"lora": "/somewhere"}, self.places)


def test_what_is_told_replaces_the_shadow_and_the_shadow_goes_on_from_there() -> None:
    view = EngineView("engine", quiet_share=0.0)
    view.loras.device_places, view.loras.host_places = 2, 3
    for name in "abc":
        view.loras.used(name)
    view.told(Inventory({"x": "/x"}, PLACES, asleep=True))
    assert (list(view.loras.device), list(view.loras.host)) == (["x", "y"], ["z", "x", "y"])
    assert (view.loras.registered, view.loras.exact, view.asleep) == ({"x": "/x"}, True, True)
    view.loras.used("a")
    assert (list(view.loras.device), list(view.loras.host)) == (["y", "a"], ["x", "y", "a"])
    view.told(Inventory({"x": "/x"}))
    assert list(view.loras.device) == ["y", "a"]
    assert (view.loras.exact, view.asleep) == (False, False)


@pytest.mark.parametrize(
    ("action", "places", "tier", "requests", "device"),
    [
        (Action.REGISTER, PLACES, Tier.HOST, 0, ["x", "y"]),
        (Action.LOAD, PLACES, Tier.DEVICE, 0, ["x", "y"]),
        (Action.REGISTER, None, Tier.DEVICE, 0, ["lora"]),
        (Action.LOAD, None, Tier.DEVICE, 1, ["lora"]),
    ],
)
def test_a_new_name_takes_no_slot_and_a_move_no_request_where_places_are_told(
    action: Action, places: LoraPlaces | None, tier: Tier, requests: int, device: list[str], tmp_path: Path
) -> None:
    engine, view = Engine(places), EngineView("engine", quiet_share=0.0)
    view.told(Inventory({}, places and LoraPlaces((), ())))
    lora = Capability.LOAD | (Capability.DEMOTE if places else Capability.NONE)
    view.info = EngineInfo("vllm", "0", "1", ("base",), {MemoryKind.LORA: lora})
    library = LoraLibrary(tmp_path / "links", tmp_path / "staging", 1 << 20)
    library.recover()
    library.link("lora", make_lora(tmp_path / "lora", b"x"))
    acts = Acts(cast(EngineAdapter, cast(Any, engine)), view, Population(), library)
    asyncio.run(acts.perform(Step(action, MemoryKind.LORA, "lora", 0, 1, 1.0, "a test")))
    assert [asked for _, asked in engine.loaded] == [tier]
    assert view.requests_started == requests
    assert list(view.loras.device) == device
    library.close()


def test_a_lora_that_changed_gets_its_name_back_where_the_engine_does_not_take_it(tmp_path: Path) -> None:
    class Refusing(Engine):
        async def release(self, item: Item, *, deadline: float) -> Outcome:
            self.released = item
            return Outcome(0.0)

        async def load(self, item: Item, tier: Tier, *, deadline: float) -> Outcome:
            await super().load(item, tier, deadline=deadline)
            if len(self.loaded) == 1:
                raise Rejected("no such rank")
            return Outcome(0.0)

    engine, view = Refusing(None), EngineView("engine", quiet_share=0.0)
    library = LoraLibrary(tmp_path / "links", tmp_path / "staging", 1 << 20)
    library.recover()
    old = library.link("lora", make_lora(tmp_path / "old", b"x"))
    new = library.link("lora", make_lora(tmp_path / "new", b"y"))
    view.told(Inventory({"lora": str(old)}))
    acts = Acts(cast(EngineAdapter, cast(Any, engine)), view, Population(), library)
    with pytest.raises(Rejected, match="no such rank"):
        asyncio.run(acts.perform(Step(Action.REGISTER, MemoryKind.LORA, "lora", 0, 1, 1.0, "a test")))
    assert engine.released == LoraItem("lora", old)
    assert [item for item, _ in engine.loaded] == [LoraItem("lora", new), LoraItem("lora", old)]
    library.close()
