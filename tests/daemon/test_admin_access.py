"""Who may ask what: every route for every kind of token, and what is refused at boot."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from scalesim_daemon.admin.access import Role, Tokens, read_tokens
from scalesim_daemon.api import build_api
from scalesim_daemon.cli import app
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError
from tests.daemon.live import daemon
from tests.daemon.still import ask

SECRETS = {role: f"{role}-token-0123456789" for role in Role}
TOKENS = Tokens({role: secret.encode() for role, secret in SECRETS.items()})
ASKERS = {"nobody": None, "stranger": "wrong-token-0123456789", **SECRETS}
EVERYBODY = set(ASKERS)
READERS = {"viewer", "admin"}
ADMINS = {"admin"}
PUBLISHERS = {"publisher", "admin"}
MAY = {
    "GET /": EVERYBODY,
    "GET /dashboard/{name:path}": EVERYBODY,
    "GET /docs": EVERYBODY,
    "GET /docs/oauth2-redirect": EVERYBODY,
    "GET /openapi.json": EVERYBODY,
    "GET /health": EVERYBODY,
    "GET /ready": EVERYBODY,
    "GET /metrics": READERS,
    "GET /v1/agents": READERS,
    "GET /v1/agents/{simulation}/{agent:any_id}": READERS,
    "GET /v1/engines": READERS,
    "GET /v1/estimators": READERS,
    "GET /v1/plan": READERS,
    "GET /v1/report": READERS,
    "GET /v1/history": READERS,
    "GET /v1/role": READERS,
    "GET /v1/sources": READERS,
    "GET /v1/config": READERS,
    "GET /v1/stream": READERS,
    "GET /v1/items": READERS,
    "GET /v1/decisions": READERS,
    "GET /v1/placement": READERS,
    "POST /v1/config/reload": ADMINS,
    "GET /v1/pins": READERS,
    "GET /v1/operations": READERS,
    "GET /v1/operations/{identity}": READERS,
    "DELETE /v1/operations/{identity}": ADMINS,
    "PUT /v1/pins/{simulation}/{agent:any_id}": ADMINS,
    "DELETE /v1/pins/{simulation}/{agent:any_id}": ADMINS,
    "POST /v1/pause": ADMINS,
    "POST /v1/resume": ADMINS,
    "POST /v1/observe": ADMINS,
    "POST /v1/prefetch": ADMINS,
    "POST /v1/evict": ADMINS,
    "POST /v1/events": PUBLISHERS,
    "POST /v1/update": PUBLISHERS,
}


def every_route(sidecar: Sidecar) -> set[str]:
    """Return all that the application answers to, as `METHOD path`. A route without methods has a name alone."""
    return {
        f"{method} {getattr(route, 'path', route)}"
        for route in build_api(sidecar).routes
        for method in (getattr(route, "methods", None) or {"ANY"}) - {"HEAD"}
    }


def headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@pytest.fixture
def guarded(sidecar: Sidecar) -> Sidecar:
    sidecar.tokens = TOKENS
    return sidecar


def test_the_matrix_names_every_route(sidecar: Sidecar) -> None:
    assert every_route(sidecar) == set(MAY)


@pytest.mark.parametrize("route", MAY)
def test_every_route_for_every_token(guarded: Sidecar, route: str) -> None:
    method, path = route.split(" ", 1)
    url = re.sub(r"\{[^}]*\}", "x", path)

    async def scene() -> dict[str, int]:
        answers = await ask(
            guarded,
            *(
                lambda client, token=token: client.request(method, url, headers=headers(token))
                for token in ASKERS.values()
            ),
        )
        return {asker: answer.status_code for asker, answer in zip(ASKERS, answers, strict=True)}

    statuses = asyncio.run(scene())
    for asker, status in statuses.items():
        if asker in MAY[route]:
            assert status not in (401, 403), asker
        else:
            assert status == (401 if asker in ("nobody", "stranger") else 403), asker


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("DELETE", "/dashboard/js/main.js"),
        ("GET", "/dashboard"),
        ("GET", "//v1/agents"),
        ("GET", "/dashboardv1/agents"),
    ],
)
def test_the_dashboards_files_are_all_that_is_open_beside_them(
    guarded: Sidecar, method: str, path: str
) -> None:
    (answer,) = asyncio.run(ask(guarded, lambda client: client.request(method, f"http://sidecar{path}")))
    assert answer.status_code == 401


def test_refusals_say_what_is_needed(guarded: Sidecar) -> None:
    nobody, stranger, basic, viewer, unknown = asyncio.run(
        ask(
            guarded,
            lambda client: client.get("/v1/agents"),
            lambda client: client.get("/v1/agents", headers=headers("wrong-token-0123456789")),
            lambda client: client.get(
                "/v1/agents", headers={"Authorization": f"Basic {SECRETS[Role.ADMIN]}"}
            ),
            lambda client: client.post("/v1/events", headers=headers(SECRETS[Role.VIEWER])),
            lambda client: client.get("/v1/no/such/route"),
        )
    )
    assert nobody.headers["www-authenticate"] == 'Bearer realm="scalesim"'
    assert stranger.headers["www-authenticate"] == 'Bearer realm="scalesim", error="invalid_token"'
    assert (basic.status_code, unknown.status_code) == (401, 401)
    assert viewer.json() == {"detail": "a viewer's token may not do that: it takes one of admin or publisher"}


def test_what_is_missing_is_told_to_viewers_alone(guarded: Sidecar) -> None:
    nobody, viewer = asyncio.run(
        ask(
            guarded,
            lambda client: client.get("/ready"),
            lambda client: client.get("/ready", headers=headers(SECRETS[Role.VIEWER])),
        )
    )
    assert (nobody.status_code, nobody.json()) == (503, {"ready": False, "reasons": []})
    assert viewer.status_code == 503 and viewer.json()["reasons"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 400),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8700"}, 400),
        ({"Origin": "http://localhost:8700"}, 400),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8700"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
def test_without_tokens_pages_of_other_sites_change_nothing(
    sidecar: Sidecar, sent: dict[str, str], status: int
) -> None:
    (answer,) = asyncio.run(ask(sidecar, lambda client: client.post("/v1/events", headers=sent)))
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8700", 200),
        ("localhost:8700", 200),
        ("[::1]:8700", 200),
        ("example.org:8700", 403),
        ("localhost.example.org", 403),
        ("[::", 403),
        ("", 403),
    ],
)
def test_without_tokens_a_name_that_somebody_else_gave_this_host_reads_nothing(
    guarded: Sidecar, host: str, status: int
) -> None:
    def asked(**more: str) -> int:
        sent = {"Host": host, **more}
        (answer,) = asyncio.run(ask(guarded, lambda client: client.get("/v1/agents", headers=sent)))
        return answer.status_code

    assert asked(**headers(SECRETS[Role.VIEWER])) == 200
    guarded.tokens = Tokens()
    assert asked() == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "//v1/agents"),
        ("GET", "/health/../v1/agents"),
        ("GET", "/health%2f..%2fv1/agents"),
        ("GET", "/v1/agents/"),
        ("GET", "/%76%31/agents"),
        ("GET", "/health/"),
        ("HEAD", "/v1/agents"),
        ("OPTIONS", "/v1/agents"),
        ("POST", "/health"),
    ],
)
def test_no_way_of_writing_a_path_or_a_method_opens_anything(
    guarded: Sidecar, method: str, path: str
) -> None:
    url = httpx.URL("http://127.0.0.1", raw_path=path.encode())
    overridden = {"X-HTTP-Method-Override": "GET", "X-Original-URL": "/health"}
    nobody, publisher = asyncio.run(
        ask(
            guarded,
            lambda client: client.request(method, url, headers=overridden),
            lambda client: client.request(method, url, headers=headers(SECRETS[Role.PUBLISHER])),
        )
    )
    assert (nobody.status_code, publisher.status_code) == (401, 403)


def test_tokens_come_from_files_or_themselves(tmp_path: Path) -> None:
    file = tmp_path / "admin"
    file.write_text(SECRETS[Role.ADMIN] + "\n")
    settings = load_settings(
        None, {"api": {"host": "0.0.0.0", "admin_token_file": file, "viewer_token": SECRETS[Role.VIEWER]}}
    )
    tokens = read_tokens(settings.api)
    assert tokens.role_of(f"Bearer {SECRETS[Role.ADMIN]}") is Role.ADMIN
    assert tokens.role_of(f"bearer {SECRETS[Role.VIEWER]}") is Role.VIEWER
    assert tokens.role_of(f"Bearer {SECRETS[Role.PUBLISHER]}") is None
    assert tokens.role_of("Bearer ") is None and tokens.role_of("Bearer ä") is None
    shown = f"{settings!r} {settings.model_dump_json()} {tokens!r}"
    assert SECRETS[Role.ADMIN] not in shown and SECRETS[Role.VIEWER] not in shown


def test_a_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALESIM_API__ADMIN_TOKEN", SECRETS[Role.ADMIN])
    monkeypatch.setenv("SCALESIM_API__HOST", "::")
    assert read_tokens(load_settings().api).role_of(f"Bearer {SECRETS[Role.ADMIN]}") is Role.ADMIN


@pytest.mark.parametrize(
    ("api", "message"),
    [
        ({"admin_token": "short"}, "api.admin_token: a token has 16 to 512"),
        ({"viewer_token": "with blanks in it, and more"}, "api.viewer_token: a token has"),
        ({"admin_token_file": "/no/such/file"}, "api.admin_token_file: /no/such/file: No such file"),
        (
            {"admin_token": "0123456789abcdef", "viewer_token": "0123456789abcdef"},
            "the token of another role",
        ),
        (
            {"admin_token": "0123456789abcdef", "admin_token_file": "/x"},
            "api.admin_token_file: admin_token is set",
        ),
        ({"host": "0.0.0.0"}, "no token is set: set api.admin_token_file"),
    ],
)
def test_what_is_no_token_is_refused_at_boot(api: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_tokens(load_settings(None, {"api": api}).api)
    assert message in str(refused.value)
    assert "0123456789abcdef" not in str(refused.value) and "blanks" not in str(refused.value)


def test_a_whole_daemon_asks_for_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        api = {"port": 0, "admin_token": SECRETS[Role.ADMIN], "publisher_token": SECRETS[Role.PUBLISHER]}
        async with daemon(tmp_path, redis={"enabled": False}, api=api) as (sidecar, client):
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/v1/agents")).status_code == 401
            opened = {
                "type": "stream.opened",
                "simulation": "s",
                "source": "s",
                "incarnation": 1,
                "clock": "step",
            }
            taken = await client.post(
                "/v1/events", params={"source": "s"}, json=opened, headers=headers(SECRETS[Role.PUBLISHER])
            )
            assert (taken.status_code, taken.json()["accepted"]) == (200, 1)
            assert SECRETS[Role.ADMIN] not in repr(sidecar)

    asyncio.run(scene())
    written = capsys.readouterr()
    assert not any(secret in written.out + written.err for secret in SECRETS.values())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"SCALESIM_API__HOST": "0.0.0.0"},
            "api.host: '0.0.0.0' is reachable from outside, and no token is set",
        ),
        ({"SCALESIM_API__ADMIN_TOKEN": "too-short"}, "api.admin_token: a token has 16 to 512"),
    ],
)
def test_the_command_refuses_to_start(variables: dict[str, str], message: str) -> None:
    result = CliRunner().invoke(app, ["serve"], env=variables)
    assert result.exit_code == 2 and message in result.output
    assert "too-short" not in result.output


def test_the_paper_s_front_end_needs_no_token_on_its_own_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def scene() -> None:
        api = {"port": 0, "admin_token": SECRETS[Role.ADMIN]}
        front_end = {"enabled": True, "port": port}
        async with daemon(tmp_path, redis={"enabled": False}, api=api, sscheduler=front_end) as (_, client):
            update = {"agent_data": {"7": 0}, "timestep_cnt": 0}
            assert (await client.post("/v1/update", json=update)).status_code == 401
            at = f"http://127.0.0.1:{port}"
            assert (await client.post(f"{at}/v1/update", json=update)).status_code == 200
            assert (await client.get(f"{at}/v1/agents")).status_code == 404
            page = await client.post(f"{at}/v1/update", json=update, headers={"Sec-Fetch-Site": "cross-site"})
            assert page.status_code == 403

    asyncio.run(scene())
