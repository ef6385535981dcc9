"""Where agents live: pure, and the keeper over engines that stand still."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from time import time

from hypothesis import given
from hypothesis import strategies as st

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.fleet.placement import GONE_SECONDS, Host, Placement, choose
from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.fleet.shared import Shared
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action
from scalesim_daemon.settings import FleetSettings, RunMode
from tests.daemon.fleet_rig import member, store
from tests.daemon.live import until
from tests.daemon.lora_files import make_lora
from tests.daemon.still import BLOCK, INFO, add_engine, open_stream, say, still_sidecar, stored
from tests.daemon.stores import client

NOBODY_STORE = "redis://127.0.0.1:9"
NAMES = ("one", "two", "three")
# One that answers isn't gone.
states = st.sampled_from(({"alive": True}, {"alive": False}, {"alive": False, "gone": True}))
models = st.one_of(st.none(), st.frozensets(st.sampled_from(("base", "other"))))
hosts = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(
        lambda state, models, room: Host(**state, models=models, room=room),
        states,
        models,
        st.sampled_from((0, 100, 1000)),
    ),
)
loads = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 50))


@given(st.sampled_from((None, "base", "other", "base:lora")), st.sampled_from((None, *NAMES)), hosts, loads)
def test_an_agent_lives_on_what_can_have_it_and_stays(
    model: str | None, home: str | None, engines: dict[str, Host], load: dict[str, int]
) -> None:
    chosen = choose(model, home, engines, load)
    able = {name for name, host in engines.items() if host.alive and host.serves(model)}
    if home in engines and not engines[home].gone and engines[home].serves(model):
        assert chosen == home
    elif not able:
        assert chosen is None
    else:
        assert chosen in able
        assert choose(model, chosen, engines, load) == chosen or engines[chosen].gone


def test_agents_spread_by_room() -> None:
    placement = Placement()
    placement.look({"small": Host(True, room=100), "large": Host(True, room=300)}, 0.0)
    for number in range(40):
        agent = f"s/{number}"
        engine = placement.place(agent, None)
        assert engine is not None
        placement.moved(agent, engine)
    assert placement.load == Counter(small=10, large=30)
    assert [placement.place(f"s/{number}", None) for number in range(40)] == [None] * 40


def placed(placement: Placement, *agents: str, spread: bool = False) -> None:
    """Let agents live where they are placed."""
    for agent in agents:
        engine = placement.place(agent, None, spread=spread)
        if engine is not None:
            placement.moved(agent, engine)


def test_an_engine_that_joins_late_is_given_the_farthest_until_it_is_about_as_full() -> None:
    placement = Placement()
    one, both = {"one": Host(True)}, {"one": Host(True), "two": Host(True)}
    seconds = {f"s/{number}": float(number) for number in range(10)}
    placement.look(one, 0.0)
    assert placement.movable(seconds.__getitem__) == []
    placed(placement, *seconds)
    placement.look(both, 1.0)
    farthest = placement.movable(seconds.__getitem__)
    assert farthest == sorted(seconds, key=seconds.__getitem__, reverse=True)
    placed(placement, *farthest, spread=True)
    assert placement.load == Counter(one=6, two=4)
    assert {agent for agent, home in placement.homes.items() if home == "two"} == set(farthest[:4])
    placed(placement, *farthest, spread=True)
    assert placement.load == Counter(one=6, two=4), "to and fro nobody goes"
    # One that wasn't gone, or has agents already, doesn't join.
    for wall, hosts in enumerate(
        ({**both, "two": Host(False)}, both, {**both, "two": Host(True, room=5)}), 2
    ):
        placement.look(hosts, float(wall))
        assert placement.movable(seconds.__getitem__) == []


@given(hosts, loads, st.sampled_from(NAMES))
def test_who_leaves_a_crowded_home_makes_none(
    engines: dict[str, Host], load: dict[str, int], home: str
) -> None:
    load = {**load, home: max(1, load.get(home, 0))}
    chosen = choose(None, home, engines, load, spread=True)
    if home in engines and not engines[home].gone and chosen != home:
        assert chosen is not None and engines[chosen].alive
        after = {**load, home: load[home] - 1, chosen: load.get(chosen, 0) + 1}
        assert choose(None, chosen, engines, after, spread=True) == chosen


def test_an_engine_is_gone_after_whoever_takes_it_over_would_have(tmp_path: Path) -> None:
    for lease, seconds in ((5.0, GONE_SECONDS), (60.0, 120.0)):
        sidecar = still_sidecar(tmp_path, population=SharedPopulation())
        sidecar.settings = sidecar.settings.model_copy(update={"fleet": FleetSettings(lease_seconds=lease)})
        assert isinstance(sidecar.population, SharedPopulation)
        Shared(sidecar, sidecar.population, NOBODY_STORE)
        placement = sidecar.homes.placement
        placement.moved("a", "one")
        placement.look({}, 0.0)
        assert placement.look({}, seconds - 0.1) == []
        assert placement.look({}, seconds) == ["a"]
        sidecar.library.close()


def test_an_agent_of_a_lora_by_sglangs_name_is_served_where_its_base_is(sidecar: Sidecar) -> None:
    """As the gateway and the homes have it, so have the announced calls."""
    for name in ("one", "two"):
        add_engine(sidecar, name)
    open_stream(sidecar)
    say(sidecar, {"type": "memory.bound", "agent": "a", "model": "base:lora"})
    say(sidecar, {"type": "invocation.started", "agent": "a"})
    sidecar.cycle()
    assert [driver.view.announced for driver in sidecar.drivers.values()] == [1, 1]


def test_agents_move_with_their_calls_but_not_to_and_fro() -> None:
    placement = Placement()
    placement.look({"one": Host(True), "two": Host(True)}, 0.0)
    placement.moved("s/a", "one")
    assert placement.call_seen("s/a", "two"), "nothing speaks for a home that no call was seen at"
    placement.moved("s/a", "two")
    placement.prove("s/a")
    assert not placement.worth_telling("s/a", "two")
    for _ in range(5):
        assert not placement.call_seen("s/a", "one")
        assert placement.worth_telling("s/a", "two")
        assert not placement.call_seen("s/a", "two")
    assert not placement.call_seen("s/a", "one")
    assert placement.call_seen("s/a", "one")


def test_a_hiccup_moves_nobody_and_a_dead_engine_everybody() -> None:
    placement = Placement()
    both = {"one": Host(True), "two": Host(True)}
    placement.look(both, 0.0)
    for agent in ("a", "b"):
        placement.moved(agent, "one")
    assert placement.look({**both, "one": Host(False)}, 1.0) == []
    assert placement.place("a", None) is None
    assert placement.place("new", None) == "two"
    assert placement.look(both, 2.0) == []
    assert placement.look({"two": Host(True)}, 3.0) == []
    homeless = placement.look({"two": Host(True)}, 3.0 + GONE_SECONDS)
    assert sorted(homeless) == ["a", "b"]
    for agent in homeless:
        assert placement.place(agent, None) == "two"
        placement.moved(agent, "two")
    assert placement.look(both, 4.0 + GONE_SECONDS) == []
    assert placement.homes == {"a": "two", "b": "two"}


def test_who_finds_no_engine_waits_for_one() -> None:
    placement = Placement()
    assert placement.place("a", "base") is None
    assert placement.look({"one": Host(True, frozenset({"other"}))}, 0.0) == ["a"]
    assert placement.place("a", "base") is None
    assert placement.look({"one": Host(True, frozenset({"base"}))}, 0.0) == ["a"]
    assert placement.place("a", "base") == "one"
    placement.moved("a", "one")
    assert placement.look({}, 0.0) == []


def test_two_engines_share_the_agents_and_calls_move_them(sidecar: Sidecar) -> None:
    """A prefix is brought to its agent's home alone, before any call, and both know who calls where."""
    views = {name: add_engine(sidecar, name).view for name in ("one", "two")}
    open_stream(sidecar)
    for agent in ("a", "b"):
        say(sidecar, {"type": "memory.bound", "agent": agent, "token_ids": list(range(2 * BLOCK))})
        say(sidecar, {"type": "agent.activity_started", "agent": agent, "until": 9.0})
    sidecar.cycle()
    homes = {agent: sidecar.home_of(f"sim/{agent}") for agent in ("a", "b")}
    assert set(homes.values()) == {"one", "two"}
    for agent, home in homes.items():
        for name in views:
            assert sidecar.at_home(name, f"sim/{agent}") is (name == home)
            planned = {step.key for step in sidecar.plans[name].blocks}
            assert (f"sim/{agent}" in planned) is (name == home)
    other = {"one": "two", "two": "one"}[str(homes["a"])]
    views[other].happened(stored("sim/a", 1))
    sidecar.cycle()
    assert sidecar.home_of("sim/a") == other


def test_one_engine_alone_is_everybodys_home(sidecar: Sidecar) -> None:
    add_engine(sidecar)
    open_stream(sidecar)
    say(sidecar, {"type": "agent.activity_started", "agent": "a", "until": 9.0})
    sidecar.cycle()
    assert sidecar.at_home("one", "sim/a") and sidecar.home_of("sim/a") == "one"
    assert not sidecar.homes.placement.homes


def test_our_own_loads_prove_no_home(sidecar: Sidecar) -> None:
    """An agent that is called elsewhere moves there, however often its prefix is brought to where it isn't called."""
    views = {name: add_engine(sidecar, name).view for name in ("one", "two")}
    open_stream(sidecar)
    say(sidecar, {"type": "agent.activity_started", "agent": "a", "until": 9.0})
    sidecar.cycle()
    home = str(sidecar.home_of("sim/a"))
    other = {"one": "two", "two": "one"}[home]
    views[home].ours = "sim/a", math.inf
    views[home].happened(stored("sim/a", 1))
    sidecar.cycle()
    assert not sidecar.homes.placement.proven("sim/a")
    views[other].happened(stored("sim/a", 1))
    sidecar.cycle()
    assert sidecar.home_of("sim/a") == other


def test_a_session_that_is_no_agent_has_no_home(sidecar: Sidecar) -> None:
    views = {name: add_engine(sidecar, name).view for name in ("one", "two")}
    open_stream(sidecar)
    sidecar.cycle()
    views["one"].happened(stored("a stranger", 1))
    sidecar.cycle()
    assert not sidecar.homes.placement.homes and not sidecar.homes.placement.load


def test_what_another_daemon_has_decided_is_not_asked_again(tmp_path: Path) -> None:
    population = SharedPopulation()
    sidecar = still_sidecar(tmp_path, population=population)
    sidecar.shared = sidecar.homes.shared = Shared(sidecar, population, NOBODY_STORE)
    add_engine(sidecar, "one")
    open_stream(sidecar)
    say(sidecar, {"type": "agent.activity_started", "agent": "a", "until": 9.0})
    sidecar.cycle()
    assert sidecar.home_of("sim/a") is None
    assert sidecar.homes.undecided == {"sim/a"}
    sidecar.homes.placement.moved("sim/a", "one")
    sidecar.cycle()
    assert not sidecar.homes.undecided
    sidecar.library.close()


def test_a_lora_is_near_wherever_its_agent_may_call_and_then_where_it_does(
    sidecar: Sidecar, tmp_path: Path
) -> None:
    """Requests that carry no session show nobody where they go: then each engine needs the LoRA."""

    async def scene() -> None:
        sidecar.mode = RunMode.OBSERVE
        views = {name: add_engine(sidecar, name).view for name in ("one", "two")}
        link = sidecar.library.link("x", make_lora(tmp_path / "x", b"x"))
        for view in views.values():
            view.loras.registered["x"] = str(link)
        open_stream(sidecar)
        bound = {"type": "memory.bound", "agent": "a", "lora": str(tmp_path / "x"), "lora_name": "x"}
        say(sidecar, bound, {"type": "agent.activity_started", "agent": "a", "until": 9.0})

        def loading() -> set[str]:
            sidecar.cycle()
            return {
                name
                for name, plan in sidecar.plans.items()
                if any(step.action is Action.LOAD for step in plan.loras)
            }

        assert loading() == {"one", "two"}
        views["two"].happened(stored("sim/a", 1))
        assert loading() == {"two"}
        staging = {
            name: [step.key for step in plan.loras if step.action is Action.STAGE]
            for name, plan in sidecar.plans.items()
        }
        assert staging == {"one": ["x"], "two": ["x"]}, "its files are for both"
        sidecar.operations.start(Action.LOAD, MemoryKind.LORA, "x", "one", time(), 60.0)
        assert loading() == {"one", "two"}, "an operator wants it there"

    asyncio.run(scene())


def test_agents_of_an_ended_simulation_have_no_home(tmp_path: Path) -> None:
    async def scene() -> None:
        async with store() as redis, client(redis.url) as asked:
            await asked.hset("ss:{gone}:placed", "a", "one")
            await asked.zadd("ss:simulations", {"gone": time()})
            async with member(tmp_path, "a", redis.url) as (sidecar, _):
                assert sidecar.shared is not None
                shared = sidecar.shared

                async def read() -> bool:
                    return shared.knows("gone")

                await until(read)
                assert not sidecar.homes.placement.homes

    asyncio.run(scene())


def test_a_call_that_may_have_gone_anywhere_moves_nobody(sidecar: Sidecar) -> None:
    slots = replace(INFO, prompt_slots=2)
    for name in ("one", "two"):
        add_engine(sidecar, name, slots)
    open_stream(sidecar)
    agents = [f"a{number}" for number in range(4)]
    for agent in agents:
        say(sidecar, {"type": "agent.activity_started", "agent": agent, "until": 9.0})
    sidecar.cycle()
    homes = dict(sidecar.homes.placement.homes)
    assert Counter(homes.values()) == Counter(one=2, two=2)
    for agent in agents:
        for kind in ("invocation.started", "invocation.finished"):
            say(sidecar, {"type": kind, "agent": agent})
            sidecar.cycle()
    sidecar.cycle()
    assert sidecar.homes.placement.homes == homes
