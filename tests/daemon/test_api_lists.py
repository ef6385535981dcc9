"""Lists by the API: filtered, sorted and paged; items, decisions, and the budgets that engines share."""

from __future__ import annotations

from time import time
from typing import Any

import pytest

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.blocks import BlockTree
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.records import Record
from tests.daemon.api_calls import get
from tests.daemon.still import add_engine, open_stream, say, stored, tokens


@pytest.fixture
def peopled(sidecar: Sidecar) -> Sidecar:
    """Five agents of two simulations; `sim/a0` to `a2` have a prefix, of which `a1`'s is on the device, and share a
    LoRA in a slot."""
    view = add_engine(sidecar).view
    open_stream(sidecar)
    for number in range(3):
        agent = f"a{number}"
        say(
            sidecar,
            {
                "type": "memory.bound",
                "agent": agent,
                "token_ids": tokens(9 * number, 2),
                "lora": "/l",
                "lora_name": "ell",
            },
            {"type": "agent.activity_started", "agent": agent, "until": 10.0 - number},
        )
        memory = sidecar.population.agents[f"sim/{agent}"].memory
        assert memory is not None
        view.bound(f"sim/{agent}", memory)
    view.happened(stored("sim/a1", 2, first=9))
    assert isinstance(view.tree, BlockTree)
    view.tree.declare("sim/a1", (None, None), tokens(9, 2))
    view.loras.used("ell")
    open_stream(sidecar, "other")
    say(sidecar, {"type": "agent.registered", "agent": "far"}, simulation="other")
    say(sidecar, {"type": "invocation.started", "agent": "busy"}, simulation="other")
    sidecar.pins["sim/a2"] = time() + 60
    return sidecar


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, ["sim/a2", "sim/a1", "sim/a0", "other/busy", "other/far"]),
        ({"descending": True}, ["other/busy", "other/far", "sim/a0", "sim/a1", "sim/a2"]),
        ({"sort": "key"}, ["other/busy", "other/far", "sim/a0", "sim/a1", "sim/a2"]),
        ({"sort": "key", "descending": True, "limit": 2}, ["sim/a2", "sim/a1"]),
        ({"sort": "resident", "descending": True, "limit": 1}, ["sim/a1"]),
        ({"sort": "confidence", "limit": 2}, ["other/busy", "other/far"]),
        ({"simulation": "other"}, ["other/busy", "other/far"]),
        ({"text": "a1"}, ["sim/a1"]),
        ({"pinned": True}, ["sim/a2"]),
        ({"pinned": False, "simulation": "sim"}, ["sim/a1", "sim/a0"]),
        ({"in_flight": True}, ["other/busy"]),
        ({"engine": "one"}, ["sim/a2", "sim/a1", "sim/a0"]),
        ({"engine": "two"}, []),
        ({"tier": "device", "limit": 1}, ["sim/a2"]),
        ({"tier": "storage"}, []),
    ],
)
def test_agents_are_filtered_and_sorted(peopled: Sidecar, params: dict[str, Any], found: list[str]) -> None:
    page = get(peopled, "/v1/agents", **params).json()
    assert [agent["key"] for agent in page["agents"]] == found
    assert page["total"] == len(found) or "limit" in params


@pytest.mark.parametrize("params", [{"sort": "age"}, {"tier": "moon"}, {"pinned": "maybe"}, {"limit": 1001}])
def test_what_can_not_be_asked_is_refused(peopled: Sidecar, params: dict[str, Any]) -> None:
    assert get(peopled, "/v1/agents", **params).status_code == 422


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, ["ell", "sim/a2", "sim/a1", "sim/a0"]),
        ({"kind": "lora"}, ["ell"]),
        ({"kind": "prefix_kv", "sort": "key"}, ["sim/a0", "sim/a1", "sim/a2"]),
        ({"sort": "key", "descending": True, "limit": 1, "offset": 1}, ["sim/a1"]),
        ({"residency": "resident"}, ["sim/a1"]),
        ({"residency": "absent", "kind": "lora"}, ["ell"]),
        ({"residency": "absent", "text": "a0"}, ["sim/a0"]),
        ({"tier": "host"}, ["ell"]),
        ({"engine": "two"}, []),
    ],
)
def test_items_are_filtered_and_sorted(peopled: Sidecar, params: dict[str, Any], found: list[str]) -> None:
    page = get(peopled, "/v1/items", **params).json()
    assert [item["item"] for item in page["items"]] == found


def test_an_item_says_who_uses_it(peopled: Sidecar) -> None:
    lora, prefix = get(peopled, "/v1/items", limit=2).json()["items"]
    assert (lora["agents"], lora["seconds"], lora["tiers"]) == (3, 8.0, ["device", "host"])
    assert (prefix["agents"], prefix["blocks"], prefix["resident_blocks"]) == (1, 2, 0)


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, [3, 2, 1, 0]),
        ({"limit": 2, "offset": 1}, [2, 1]),
        ({"engine": "two"}, [3]),
        ({"action": "touch"}, [1]),
        ({"kind": "lora"}, [2]),
        ({"key": "sim/b"}, [1, 0]),
        ({"result": "failed"}, [2]),
    ],
)
def test_decisions_are_filtered_the_latest_first(
    sidecar: Sidecar, params: dict[str, Any], found: list[int]
) -> None:
    load = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 1, 1.0, "due next", ("sim/b",))
    touch = Step(Action.TOUCH, MemoryKind.PREFIX_KV, "sim/b", 0, 1, 1.0, "near")
    lora = Step(Action.LOAD, MemoryKind.LORA, "ell", 0, 1, 1.0, "near")
    for at, (engine, step, result) in enumerate(
        [("one", load, "done"), ("one", touch, "done"), ("one", lora, "failed: no"), ("two", load, "done")]
    ):
        if (engine, at) == ("two", 3):
            step = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/c", 0, 1, 1.0, "due next")
        sidecar.record(Record(float(at), engine, step, result, 0.1, 0))
    page = get(sidecar, "/v1/decisions", **params).json()
    assert [decision["at"] for decision in page["decisions"]] == found


def test_engines_share_budgets(sidecar: Sidecar) -> None:
    add_engine(sidecar).view.model_bytes = 7
    answer = get(sidecar, "/v1/engines").json()
    staging = sidecar.settings.loras.staging_bytes
    assert answer["budgets"] == {"staging": staging, "staging_free": staging, "models": None}
    assert answer["engines"][0]["model_bytes"] == 7


def test_ten_thousand_agents_are_listed(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    open_stream(sidecar)
    for number in range(10_000):
        say(sidecar, {"type": "memory.bound", "agent": f"a{number}", "token_ids": tokens(number, 2)})
        memory = sidecar.population.agents[f"sim/a{number}"].memory
        assert memory is not None
        view.bound(f"sim/a{number}", memory)
    assert get(sidecar, "/v1/items", tier="device").json()["total"] == 0
    last = get(sidecar, "/v1/agents", sort="resident", descending=True, offset=9_999).json()
    assert (last["total"], len(last["agents"])) == (10_000, 1)
