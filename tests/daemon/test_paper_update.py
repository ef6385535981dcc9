"""The paper's own front end: what it tells is what the daemon shows; what can't be is refused whole, by its field."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon import update_door
from scalesim_daemon.app import running
from scalesim_daemon.gate import Admitted, Said
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError, SschedulerSettings
from scalesim_daemon.sscheduler import LARGEST, BadUpdate, Update, agent_of, lora_name, read_update
from tests.daemon.live import daemon, overrides
from tests.daemon.still import ask, say, still_sidecar
from tests.daemon.test_api_nonsense import ANYTHING

AGENTS = st.sampled_from(["7", "0", "a b", "ä/..", "\x00", "x" * 256])
DISTANCES = st.integers(0, 100) | st.sampled_from([0, 2.5, 1e-300, LARGEST])
SNAPSHOTS = st.tuples(
    st.dictionaries(AGENTS, DISTANCES, max_size=5), st.sampled_from(["both", "one", "other"])
)
STEPS = st.integers(0, 50) | st.just(LARGEST)


def update(step: Any, distances: dict[str, Any], parts: str = "both") -> dict[str, Any]:
    buckets: dict[str, list[str]] = {}
    for agent, distance in distances.items():
        buckets.setdefault(
            format(distance, ".1f") if distance % 1 == 0.5 else str(math.ceil(distance)), []
        ).append(agent)
    said: dict[str, Any] = {"timestep_cnt": step}
    if parts != "other":
        said["agent_data"] = distances
    if parts != "one":
        said["timestep_data"] = buckets
    return said


def posting(body: Any, **params: str) -> Callable[[httpx.AsyncClient], Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda client: client.post("/v1/update", content=content, params=params)


def tell(sidecar: Sidecar, *bodies: Any, **params: str) -> list[httpx.Response]:
    return asyncio.run(ask(sidecar, *(posting(body, **params) for body in bodies)))


def show(client: httpx.AsyncClient) -> Any:
    return client.get("/v1/agents", params={"limit": 1000})


def distances_in(answer: httpx.Response) -> dict[str, float | None]:
    return {agent["key"].partition("/")[2]: agent["distance"] for agent in answer.json()["agents"]}


def shown(sidecar: Sidecar) -> dict[str, float | None]:
    return distances_in(asyncio.run(ask(sidecar, show))[0])


def near(sidecar: Sidecar) -> dict[str, float | None]:
    return {agent: distance for agent, distance in shown(sidecar).items() if distance is not None}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(st.tuples(STEPS, SNAPSHOTS), min_size=1, max_size=6))
def test_the_daemon_shows_the_distances_that_it_was_told_and_who_is_absent_is_far(
    tmp_path: Path, told: list[tuple[int, tuple[dict[str, float], str]]]
) -> None:
    sidecar = still_sidecar(tmp_path)
    try:
        asks = [(posting(update(step, *snapshot)), show) for step, snapshot in told]
        answers = asyncio.run(ask(sidecar, *(one for pair in asks for one in pair)))
    finally:
        sidecar.library.close()
    ever: set[str] = set()
    for (step, (distances, _)), taken, seen in zip(told, answers[::2], answers[1::2], strict=True):
        assert (taken.status_code, taken.json()) == (200, {"step": step, "agents": len(distances)})
        ever |= distances.keys()
        expected = {agent: math.ceil(distances[agent]) if agent in distances else None for agent in ever}
        assert distances_in(seen) == expected


def test_it_speaks_as_one_source_on_a_clock_of_steps(sidecar: Sidecar) -> None:
    tell(sidecar, update(0, {"7": 1}), update(1, {"7": 0}))
    agent = asyncio.run(ask(sidecar, lambda client: client.get("/v1/agents/sscheduler/7")))[0].json()
    assert (agent["distance"], agent["unit"]) == (0.0, "step")
    assert agent["clock"]["now"] == 1.0
    (source,) = sidecar.gate.streams()
    assert source == "sscheduler/sscheduler"


def test_a_step_that_comes_again_replaces_what_was_said_of_it(sidecar: Sidecar) -> None:
    tell(sidecar, update(3, {"7": 1, "8": 2}), update(3, {"8": 5}))
    assert near(sidecar) == {"8": 5}


def test_steps_that_start_anew_leave_nothing_of_the_run_before(sidecar: Sidecar) -> None:
    tell(sidecar, update(900, {"7": 90, "8": 2}), update(0, {"8": 1}))
    assert near(sidecar) == {"8": 1}


def test_two_simulations_are_told_apart_by_name(sidecar: Sidecar) -> None:
    tell(sidecar, update(3, {"7": 1}), simulation="one")
    tell(sidecar, update(9, {"7": 4}), simulation="two")
    assert sidecar.population.board.agents() == {"one/7", "two/7"}
    (refused,) = tell(sidecar, update(3, {"7": 1}), simulation="a/b")
    assert refused.status_code == 422 and "simulation" in refused.text


def test_where_another_has_taken_the_source_over_it_is_opened_anew(sidecar: Sidecar) -> None:
    tell(sidecar, update(3, {"7": 1}))
    opened = {"type": "stream.opened", "simulation": "sscheduler", "source": "s", "clock": "step"}
    sidecar.admit("sscheduler/sscheduler", 0, [{**opened, "incarnation": 5}], peer=b"other")
    (answer,) = tell(sidecar, update(4, {"8": 2}))
    assert answer.status_code == 200
    assert shown(sidecar) == {"8": 2}


def test_more_agents_than_a_message_holds_are_one_update(sidecar: Sidecar) -> None:
    distances = {str(agent): agent % 7 for agent in range(2500)}
    (answer,) = tell(sidecar, update(1, distances))
    assert answer.json() == {"step": 1, "agents": 2500}
    assert len(sidecar.population.board) == 2500


def test_who_comes_nearer_as_the_clock_advances_is_said_nothing_of(sidecar: Sidecar) -> None:
    tell(sidecar, update(1, {"7": 4, "8": 2}))
    said = sidecar.gate.counts["events"]
    tell(sidecar, update(2, {"7": 3, "8": 1}))
    assert sidecar.gate.counts["events"] == said + 1
    assert near(sidecar) == {"7": 3, "8": 1}


def test_each_agents_lora_is_bound_once_under_its_name(tmp_path: Path) -> None:
    sidecar = still_sidecar(tmp_path)
    sidecar.settings = sidecar.settings.model_copy(
        update={"sscheduler": SschedulerSettings(loras="/models/loras/lora{agent_id}")}
    )
    try:
        tell(sidecar, update(1, {"7": 1}), update(2, {"7": 0, "8": 3}))
        memory = sidecar.population.agents["sscheduler/8"].memory
        assert memory is not None and (memory.lora, memory.lora_name) == ("/models/loras/lora8", "lora8")
        changes = sidecar.population.take_changes()
        assert (changes.bound, changes.bound_again) == (["sscheduler/7", "sscheduler/8"], [])
        say_text = {"type": "memory.bound", "agent": "9", "text": "who I am"}
        sidecar.admit("sscheduler/sscheduler", None, [say_text])
        (refused,) = tell(sidecar, update(3, {"9": 0, "../7": 1}))
        assert refused.status_code == 422 and refused.json()["detail"][0]["loc"] == [
            "body",
            "agent_data",
            "../7",
        ]
        assert near(sidecar) == {"7": 0, "8": 3}
        (too_long,) = tell(sidecar, update(3, {"9": 0, "x" * 254: 1}))
        assert too_long.status_code == 422 and near(sidecar) == {"7": 0, "8": 3}
        tell(sidecar, update(3, {"9": 0}))
        kept = sidecar.population.agents["sscheduler/9"].memory
        assert kept is not None and kept.text == "who I am"
    finally:
        sidecar.library.close()


BUCKET = "timestep_data"
REFUSED: list[tuple[bytes, list[Any], str]] = [
    (b"", [], "malformed JSON"),
    (b"[1]", [], "map"),
    (b"{", [], "malformed JSON"),
    (b"[" * 100_000, [], "malformed JSON"),
    (b'{"agent_data": {}}', ["timestep_cnt"], "number"),
    (b'{"agent_data": {}, "timestep_cnt": "3"}', ["timestep_cnt"], "number"),
    (b'{"agent_data": {}, "timestep_cnt": true}', ["timestep_cnt"], "number"),
    (b'{"agent_data": {}, "timestep_cnt": -1}', ["timestep_cnt"], "from 0 to 2"),
    (b'{"agent_data": {}, "timestep_cnt": 2.5}', ["timestep_cnt"], "whole"),
    (b'{"agent_data": {}, "timestep_cnt": 1' + b"0" * 400 + b"}", ["timestep_cnt"], "2**52"),
    (b'{"agent_data": {}, "timestep_cnt": -1' + b"0" * 400 + b"}", ["timestep_cnt"], "2**52"),
    (b'{"timestep_cnt": 1}', ["agent_data"], "neither"),
    (b'{"agent_data": [7], "timestep_cnt": 1}', ["agent_data"], "map"),
    (b'{"agent_data": {"7": "near"}, "timestep_cnt": 1}', ["agent_data", "7"], "number"),
    (b'{"agent_data": {"7": null}, "timestep_cnt": 1}', ["agent_data", "7"], "number"),
    (b'{"agent_data": {"7": -0.5}, "timestep_cnt": 1}', ["agent_data", "7"], "from 0 to 2"),
    (b'{"agent_data": {"7": NaN}, "timestep_cnt": 1}', [], "NaN is not JSON"),
    (b'{"agent_data": {"7": 1e400}, "timestep_cnt": 1}', ["agent_data", "7"], "2**52"),
    (b'{"agent_data": {"": 1}, "timestep_cnt": 1}', ["agent_data", ""], "1 to 256"),
    (b'{"agent_data": {"\\ud800": 1}, "timestep_cnt": 1}', ["agent_data", "\\ud800"], "UTF-8"),
    (b'{"agent_data": {"7": 1, "7": 2}, "timestep_cnt": 1}', ["7"], "twice"),
    (b'{"timestep_data": [7], "timestep_cnt": 1}', [BUCKET], "map"),
    (b'{"timestep_data": {"soon": [7]}, "timestep_cnt": 1}', [BUCKET, "soon"], "number"),
    (b'{"timestep_data": {"nan": [7]}, "timestep_cnt": 1}', [BUCKET, "nan"], "number"),
    (b'{"timestep_data": {"-1": [7]}, "timestep_cnt": 1}', [BUCKET, "-1"], "from 0 to 2"),
    (b'{"timestep_data": {"1": 7}, "timestep_cnt": 1}', [BUCKET, "1"], "list"),
    (b'{"timestep_data": {"1": [[7]]}, "timestep_cnt": 1}', [BUCKET, "1", 0], "named"),
    (b'{"timestep_data": {"1": [7], "2": [8, "7"]}, "timestep_cnt": 1}', [BUCKET, "2", 1], "distance 1"),
    (
        b'{"agent_data": {"7": 1}, "timestep_data": {"2": [7]}, "timestep_cnt": 1}',
        ["agent_data", "7"],
        "but 2",
    ),
    (
        json.dumps({"timestep_cnt": 1, "agent_data": dict.fromkeys(range(100_001), 0)}).encode(),
        ["agent_data"],
        "100000",
    ),
    (b'{"agent_data": {"7": 1}, "timestep_data": {}, "timestep_cnt": 1}', ["agent_data", "7"], "but far"),
    (b'{"agent_data": {}, "timestep_data": {"0": ["7"]}, "timestep_cnt": 1}', ["agent_data", "7"], "is far"),
]


@pytest.mark.parametrize(("body", "field", "why"), REFUSED)
def test_what_cant_be_is_refused_by_its_field(body: bytes, field: list[Any], why: str) -> None:
    with pytest.raises(BadUpdate) as caught:
        read_update(body)
    assert list(caught.value.field) == field
    assert why in caught.value.reason


def test_to_find_what_is_said_twice_takes_no_longer_than_to_read_it() -> None:
    names = [*map(str, range(200_000)), "199999"]
    body = ",".join(f'"{name}":1' for name in names)
    began = time.process_time()
    with pytest.raises(BadUpdate, match="199999: is said twice"):
        read_update(f'{{"agent_data": {{{body}}}, "timestep_cnt": 1}}'.encode())
    assert time.process_time() - began < 10.0


def test_nothing_holds_of_what_is_refused(sidecar: Sidecar) -> None:
    taken, *refused, seen = asyncio.run(
        ask(sidecar, posting(update(1, {"kept": 4})), *(posting(body) for body, _, _ in REFUSED), show)
    )
    assert taken.status_code == 200
    assert {answer.status_code for answer in refused} == {422}
    located = [answer.json()["detail"][0]["loc"] for answer in refused]
    assert located == [["body", *field] for _, field, _ in REFUSED]
    assert sidecar.gate.counts["malformed"] == len(REFUSED)
    assert distances_in(seen) == {"kept": 4}


def test_an_update_beyond_the_limit_of_a_message_is_refused(sidecar: Sidecar) -> None:
    (answer,) = tell(sidecar, b" " * (MAX_MESSAGE_BYTES + 1))
    assert answer.status_code == 413


NONSENSE = ANYTHING | st.fixed_dictionaries(
    {"timestep_cnt": STEPS | ANYTHING},
    optional={
        "agent_data": st.dictionaries(st.text(max_size=4), DISTANCES | ANYTHING, max_size=3) | ANYTHING,
        "timestep_data": st.dictionaries(st.text("0123.-e", max_size=3), ANYTHING, max_size=3) | ANYTHING,
    },
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(NONSENSE, min_size=10, max_size=20))
def test_nonsense_is_taken_or_refused_by_its_field(sidecar: Sidecar, said: list[Any]) -> None:
    for body, answer in zip(said, tell(sidecar, *said), strict=True):
        assert answer.status_code in (200, 422)
        if answer.status_code == 422:
            (detail,) = answer.json()["detail"]
            assert detail["loc"][0] == "body" and detail["msg"]
            assert not isinstance(body, dict) or len(detail["loc"]) > 1


@pytest.mark.parametrize(
    ("body", "agent"),
    [
        ({"agent_id": 7, "model": "base"}, "7"),
        ({"agent_id": "rosa"}, "rosa"),
        ({"agent_id": True}, None),
        ({"agent_id": ""}, None),
        ({"agent_id": "\ud800"}, None),
        ({"agent_id": [7]}, None),
        ({"agent_id": "x" * 257}, None),
        ({}, None),
    ],
)
def test_a_request_names_its_agent_as_agent_id(body: dict[str, Any], agent: str | None) -> None:
    assert agent_of(body) == agent


def test_an_agents_lora_has_its_name() -> None:
    assert lora_name("7") == "lora7"


def test_the_switch_opens_the_port_that_the_front_end_posts_to(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def scene() -> None:
        async with daemon(tmp_path, sscheduler={"enabled": True, "port": port}) as (_, api):
            body = {"agent_data": {"7": 0}, "timestep_data": {0: ["7"]}, "timestep_cnt": 0}
            # As the front end posts, with its library and its time limit.
            answer = await asyncio.to_thread(
                requests.post, f"http://localhost:{port}/v1/update", json=body, timeout=2
            )
            assert answer.status_code == 200
            assert (await api.get("/v1/agents/sscheduler/7")).json()["distance"] == 0.0
            # There it can do no more: it has no token to send.
            more = await asyncio.to_thread(requests.post, f"http://localhost:{port}/v1/pause", timeout=2)
            assert more.status_code == 404
            # Both ports are one door.
            await api.post("/v1/update", json={"agent_data": {}, "timestep_cnt": 1})
            assert (await api.get("/v1/agents/sscheduler/7")).json()["distance"] is None

    asyncio.run(scene())


def test_a_port_that_is_taken_stops_the_start_with_its_key(tmp_path: Path) -> None:
    async def start(port: int) -> None:
        settings = load_settings(None, overrides(tmp_path, sscheduler={"enabled": True, "port": port}))
        async with running(settings):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"sscheduler.port: {port}"):
            asyncio.run(start(port))


def test_events_of_others_may_share_the_source(sidecar: Sidecar) -> None:
    tell(sidecar, update(3, {"7": 0, "8": 1}))
    called = {"type": "invocation.started", "agent": "7"}
    sidecar.admit("sscheduler/sscheduler", None, [called])
    assert near(sidecar) == {"8": 1}
    say(sidecar, {"type": "agent.woken", "agent": "7"}, simulation="sscheduler/sscheduler")
    assert near(sidecar) == {"7": 0, "8": 1}


def test_of_a_large_update_others_have_their_turn_between_some_hundred_agents(tmp_path: Path) -> None:
    sidecar, turns, taken = still_sidecar(tmp_path), 0, list[tuple[int, int]]()
    apply = sidecar.population.apply

    def noted(admitted: Sequence[Admitted], wall: float) -> None:
        taken.append((turns, sum(len(item.events) for item in admitted if isinstance(item, Said))))
        apply(admitted, wall)

    async def play() -> None:
        nonlocal turns
        asked = asyncio.create_task(
            ask(
                sidecar,
                posting(update(0, {f"a{number}": number for number in range(2000)})),
                posting(update(1, {f"a{number}": number for number in range(1000, 2000)})),
            )
        )
        while not asked.done():
            turns += 1
            await asyncio.sleep(0)
        assert [answer.status_code for answer in await asked] == [200, 200]

    with patch.object(sidecar.population, "apply", noted):
        asyncio.run(play())
    large = [(turn, events) for turn, events in taken if events > 1]
    assert (
        sum(events for _, events in large) == 2000 + 1000 + 1000 and max(events for _, events in large) <= 500
    )
    assert len({turn for turn, _ in large}) == len(large), "no two of them in one turn of the loop"
    assert near(sidecar) == {f"a{number}": number for number in range(1000, 2000)}


def test_updates_that_come_at_once_are_taken_one_after_the_other(tmp_path: Path) -> None:
    sidecar = still_sidecar(tmp_path)
    first = posting(update(1, {f"a{number}": 5 for number in range(900)}))
    second = posting(update(2, {f"a{number}": 7 for number in range(450, 900)}))

    async def together(client: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(first(client), second(client))
        assert [answer.status_code for answer in answers] == [200, 200]

    def read(body: bytes) -> Update:
        found = read_update(body)
        time.sleep(0.2 if found.step == 1 else 0.0)
        return found

    with patch.object(update_door, "read_update", read):
        asyncio.run(ask(sidecar, together))
    assert near(sidecar) == {f"a{number}": 7 for number in range(450, 900)}, "in the order in which they came"
