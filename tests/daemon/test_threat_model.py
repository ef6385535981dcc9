"""Claims of docs/threat-model.md that no other module holds."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import re
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from scalesim_client.events import MAX_ID_BYTES, MAX_NESTING
from scalesim_daemon.admin import access
from scalesim_daemon.admin.access import Role, Tokens, allowed
from scalesim_daemon.api import build_api
from scalesim_daemon.app import _doors
from scalesim_daemon.connections import MOST_HEADER_BYTES
from scalesim_daemon.feed import LONGEST_REASON, Sampler
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ApiSettings, ConfigError, Settings
from scalesim_daemon.wire import Refused
from tests.daemon.api_calls import post
from tests.daemon.gateway_rig import beside, front
from tests.daemon.live import daemon, emulator
from tests.docs.blocks import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PINNED = re.compile(r"^[A-Za-z0-9][^ ;\n]*(?:==| @ )", re.MULTILINE)
TOKENS = Tokens({role: f"{role}-0123456789abcdef".encode() for role in Role})


def test_gateway_and_front_end_listen_on_loopback_alone() -> None:
    given = {
        "gateway": {"enabled": True, "port": 0},
        "engines": [{"kind": "vllm", "url": "http://127.0.0.1:9"}],
        "sscheduler": {"enabled": True},
        "api": {"host": "0.0.0.0", "port": 0, "admin_token": "0123456789abcdef"},
    }
    with ExitStack() as stack:
        doors = _doors(stack, load_settings(None, given))
        assert {name: door.getsockname()[0] for name, door in doors.items()} == {
            "api": "0.0.0.0",
            "gateway": "127.0.0.1",
            "sscheduler": "127.0.0.1",
        }
    with pytest.raises(ConfigError, match=r"gateway\.host: '0\.0\.0\.0' is reachable from outside"):
        load_settings(None, {"gateway": {"host": "0.0.0.0"}})
    with pytest.raises(ConfigError, match=r"unknown key sscheduler\.host"):
        load_settings(None, {"sscheduler": {"host": "0.0.0.0"}})


def test_in_a_fleet_loras_lie_below_roots_alone() -> None:
    """Other daemons hear events that other hosts bring, and tell of their LoRAs."""
    fleet = {"fleet": {"enabled": True}, "redis": {"url": "redis://a"}}
    assert load_settings(None, fleet).lora_roots == ()


def test_every_token_is_compared_whole_whatever_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare_digest(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return hmac_compares(known, given)

    hmac_compares = hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", compare_digest)
    for given in ("x", *(token.decode() for token in TOKENS.by_role.values())):
        compared.clear()
        TOKENS.role_of(f"Bearer {given}")
        assert compared == list(TOKENS.by_role.values())


def test_a_route_that_no_role_is_named_for_is_the_admins() -> None:
    assert allowed("POST", "/v1/new") == allowed("PATCH", "/v1/agents") == {Role.ADMIN}
    assert allowed("DELETE", "/health") == {Role.ADMIN}
    assert allowed("GET", "/v1/new") == {Role.VIEWER, Role.ADMIN}


def test_wrong_tokens_count_against_the_limit(sidecar: Sidecar) -> None:
    async def scene() -> list[int]:
        transport = httpx.ASGITransport(app=build_api(sidecar), client=("10.0.0.9", 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            guess = {"Authorization": "Bearer wrong-0123456789abcdef"}
            return [(await client.get("/v1/report", headers=guess)).status_code for _ in range(3)]

    sidecar.settings = Settings(api=ApiSettings(requests_per_second=0.01))
    sidecar.tokens = TOKENS
    assert asyncio.run(scene()) == [401, 429, 429]


def test_nothing_that_comes_in_is_unpacked(sidecar: Sidecar) -> None:
    body = gzip.compress(json.dumps({"type": "agent.woken", "agent": "a"}).encode())
    answer = post(sidecar, body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
    assert answer.status_code == 400 and not sidecar.population.agents


@pytest.mark.parametrize("much", [0, 1])
def test_an_id_and_its_messages_end_where_they_may(sidecar: Sidecar, much: int) -> None:
    nested: object = 0
    for _ in range(MAX_NESTING - 2 + much):
        nested = [nested]
    events = [
        {"type": "agent.woken", "agent": "é" * (MAX_ID_BYTES // 2) + "x" * much},
        {"type": "memory.bound", "agent": "a", "messages": [{"role": "user", "content": nested}]},
    ]
    statuses = [post(sidecar, json.dumps([0, [event]])).status_code for event in events]
    assert statuses == ([400, 400] if much else [200, 200])


def test_headers_are_as_long_as_they_may_be_and_no_longer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path, redis={"enabled": False}) as (_, client):
            for much, status in ((MOST_HEADER_BYTES - 1000, 200), (MOST_HEADER_BYTES, 400)):
                answer = await client.get("/health", headers={"X-Much": "x" * much})
                assert answer.status_code == status

    asyncio.run(scene())


def test_what_is_said_of_a_bad_event_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    Sampler().refused("s" * 5000, [Refused("t" * 64, "r" * 5000)])
    assert 0 < len("".join(capsys.readouterr())) < LONGEST_REASON + 500


def test_nothing_that_is_said_of_an_agent_makes_the_gateway_refuse_its_calls(tmp_path: Path) -> None:
    opened = {
        "type": "stream.opened",
        "simulation": "town",
        "source": "town",
        "incarnation": 9,
        "clock": "step",
    }
    rumours: list[list[dict[str, object]]] = [
        [{"type": "memory.bound", "agent": "a", "lora": "/nowhere", "lora_name": "base"}],
        [{"type": "memory.bound", "agent": "a", "model": "no such model", "cache_salt": "\n"}],
        [{"type": "invocation.started", "agent": "a"}] * 500,
        [{"type": "agent.released", "agent": "a"}, {"type": "stream.closed"}],
    ]

    async def scene() -> None:
        with emulator(tmp_path) as engine:
            sidecar = beside(tmp_path, engine.url)
            async with front(sidecar) as client:
                (driver,) = sidecar.drivers.values()
                driver.view.probed(await driver.adapter.probe())
                for rumour in rumours:
                    sidecar.admit("town", None, [opened, *rumour])
                    call = {"model": "base", "prompt": "hello", "max_tokens": 1, "user": "town/a"}
                    assert (await client.post("/v1/completions", json=call)).status_code == 200
                assert sidecar.counts["calls_held"] == 0

    asyncio.run(scene())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_everything_is_pinned_by_hash(lock: Path) -> None:
    pins = re.split(r"\n(?=[^\s#])", lock.read_text())
    assert [pin for pin in pins if PINNED.match(pin) and "--hash=sha256:" not in pin] == []
    assert sum(bool(PINNED.match(pin)) for pin in pins) > 0
