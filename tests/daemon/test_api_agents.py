"""Agents by the API: their list by distance, and all that explains one of them."""

import asyncio
from dataclasses import replace
from time import time

import httpx
import pytest

from scalesim_adapters.base import Inventory, LoraPlaces, MemoryKind
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.records import Record
from scalesim_daemon.view import EngineView
from tests.daemon.api_calls import STEP, escaped, get
from tests.daemon.still import add_engine, ask, open_stream, say, stored, tokens


def test_agents_come_by_distance_page_by_page(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    for number in range(5):
        say(sidecar, {"type": "agent.activity_started", "agent": f"a{number}", "until": 10.0 - number})
    say(sidecar, {"type": "agent.registered", "agent": "far"})
    page = get(sidecar, "/v1/agents", limit=2, offset=1).json()
    assert (page["total"], page["offset"], page["limit"]) == (6, 1, 2)
    assert [agent["key"] for agent in page["agents"]] == ["sim/a3", "sim/a2"]
    last = get(sidecar, "/v1/agents", offset=5).json()["agents"]
    assert [(agent["key"], agent["distance"]) for agent in last] == [("sim/far", None)]
    assert get(sidecar, "/v1/agents", offset=2**62).json()["agents"] == []


def test_agents_that_only_a_path_names_are_listed(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    say(
        sidecar,
        {"type": "path.declared", "nodes": ["a", "b"]},
        {"type": "agent.activated", "agent": "a"},
    )
    assert "sim/b" in [agent["key"] for agent in get(sidecar, "/v1/agents").json()["agents"]]
    assert get(sidecar, "/v1/agents/sim/b").json()["why"].startswith("path")


def test_an_agent_is_explained(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    open_stream(sidecar)
    say(
        sidecar,
        {"type": "step.advanced", "now": 1.0},
        {"type": "memory.bound", "agent": "a", "token_ids": tokens(0, 3), "lora": "/l", "lora_name": "ell"},
        {"type": "agent.activity_started", "agent": "a", "for": 4.0},
    )
    bind(sidecar, "sim/a", view)
    view.happened(replace(stored("sim/a", 2), lora_name="ell"))
    view.loras.used("ell")
    sidecar.pins["sim/a"] = time() + 60
    other = Step(Action.TOUCH, MemoryKind.PREFIX_KV, "sim/c", 0, 1, 1.0, "not about a")
    for step in (other, STEP):
        sidecar.decisions.append(Record(1.0, "one", step, "done", 0.5, 8))
    answer = get(sidecar, "/v1/agents/sim/a").json()
    assert (answer["distance"], answer["due"], answer["unit"]) == (4.0, 5.0, "step")
    assert answer["clock"] == {"kind": "step", "now": 1.0, "pace": 1.0}
    assert answer["why"].startswith("activity") and "due at 5, the clock shows 1" in answer["why"]
    assert answer["items"] == ["lora:ell", "prefix_kv"]
    assert answer["engines"] == {"one": {"blocks": 3, "resident_blocks": 2}}
    assert answer["pinned_until"] == sidecar.pins["sim/a"]
    prefix, lora = answer["places"]
    assert (prefix["residency"], prefix["tiers"], prefix["resident_blocks"]) == ("resident", ["device"], 2)
    assert (lora["item"], lora["registered"], lora["tiers"]) == ("ell", False, ["device", "host"])
    assert [(found["result"], found["step"]["reason"]) for found in answer["decisions"]] == [
        ("done", "due next")
    ]
    victim = get(sidecar, "/v1/agents/sim/b")
    assert victim.status_code == 404


def test_what_is_not_known_is_shown_as_unknown(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    open_stream(sidecar)
    say(sidecar, {"type": "memory.bound", "agent": "a", "token_ids": tokens(0, 3)})
    bind(sidecar, "sim/a", view)
    view.unreachable("connection refused")
    (place,) = get(sidecar, "/v1/agents/sim/a").json()["places"]
    assert place["residency"] == "unknown"


@pytest.mark.parametrize(
    ("registered", "exact", "residency"),
    [(False, False, "absent"), (True, False, "unknown"), (True, True, "resident")],
)
def test_where_a_lora_is_is_known_where_the_engine_tells(
    sidecar: Sidecar, registered: bool, exact: bool, residency: str
) -> None:
    loras = add_engine(sidecar).view.loras
    open_stream(sidecar)
    say(sidecar, {"type": "memory.bound", "agent": "a", "lora": "/l", "lora_name": "ell"})
    names = {"ell": "/l"} if registered else {}
    loras.told(Inventory(names, lora_places=LoraPlaces(("ell",), ("ell",), frozenset()) if exact else None))
    loras.used("ell")
    (place,) = get(sidecar, "/v1/agents/sim/a").json()["places"]
    assert (place["residency"], place["registered"]) == (residency, registered)
    assert place["tiers"] == ["device", "host"]


def test_an_overdue_agent_counts_as_far_and_says_so(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    say(
        sidecar,
        {"type": "agent.activity_started", "agent": "a", "for": 1.0},
        {"type": "step.advanced", "now": 50.0},
        {"type": "step.advanced", "now": 51.0},
    )
    answer = get(sidecar, "/v1/agents/sim/a").json()
    assert answer["distance"] is None and answer["seconds"] is None
    assert answer["why"].startswith("overdue") and "did not call" in answer["why"]


def test_an_agent_known_from_its_requests_alone_is_shown(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    assert view.tree is not None
    view.tree.declare("quiet/one", (None, None), tokens(0, 2))
    answer = get(sidecar, "/v1/agents/quiet/one").json()
    assert answer["items"] == ["prefix_kv"]
    assert answer["why"].startswith("no invocation is foreseen")


@pytest.mark.parametrize(
    "path", ["sim/nobody", "sim/", "sim/..", "%00/%ff", "sim/a/b/c", "sim/" + "x" * 3000]
)
def test_an_unknown_agent_is_named(sidecar: Sidecar, path: str) -> None:
    answer = get(sidecar, f"/v1/agents/{path.replace('..', '%2E%2E')}")
    assert answer.status_code == 404
    assert "is not known" in answer.json()["detail"]


def test_agents_with_odd_ids_are_found(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    for odd in ("..", "a/b", "/", "ä ö?#&=%2F", "\u202e", "{x}", "a\nb", "\n"):
        say(sidecar, {"type": "agent.woken", "agent": odd})
        url = httpx.URL("/v1/agents/sim/", raw_path=b"/v1/agents/sim/" + escaped(odd))
        answer = asyncio.run(ask(sidecar, lambda client, url=url: client.get(url)))[0]
        assert answer.status_code == 200, odd
        assert answer.json()["key"] == f"sim/{odd}"


def bind(sidecar: Sidecar, key: str, view: EngineView) -> None:
    """Tell a view what the loop would tell it."""
    memory = sidecar.population.agents[key].memory
    assert memory is not None
    view.bound(key, memory)
