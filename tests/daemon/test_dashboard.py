"""The dashboard as it is served: its page and files, who may have them, where they are from, and the last hour."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import FirstTokens, Pressure
from scalesim_daemon.admin.access import Role, Tokens
from scalesim_daemon.dashboard import history
from scalesim_daemon.dashboard.files import HEADERS, TYPES
from scalesim_daemon.dashboard.history import History
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.view import EngineView
from scalesim_estimators import Figures
from tests.daemon.api_calls import get
from tests.daemon.live import daemon, emulator, until
from tests.daemon.still import add_engine, ask
from tests.dashboard.vendor import VENDORED, pinned

ROOT = Path(__file__).parents[2]
ASSETS = VENDORED.parent
OWN = [path for path in ASSETS.rglob("*") if path.is_file() and VENDORED not in path.parents]
ADMIN = "admin-token-0123456789"
VIEWER = "viewer-token-0123456789"


class Page(HTMLParser):
    """What a page names, and what would run without being named."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.named += [str(given[name]) for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def fetch(sidecar: Sidecar, *asked: tuple[str, str, dict[str, str]]) -> list[httpx.Response]:
    def question(method: str, path: str, headers: dict[str, str]) -> Callable[[httpx.AsyncClient], Any]:
        return lambda client: client.request(method, path, headers=headers)

    return asyncio.run(ask(sidecar, *(question(*one) for one in asked)))


def test_the_page_and_all_its_files_are_served_without_a_token(sidecar: Sidecar) -> None:
    sidecar.tokens = Tokens({Role.ADMIN: ADMIN.encode()})
    paths = ["/", *(f"/dashboard/{path.relative_to(ASSETS)}" for path in ASSETS.rglob("*") if path.is_file())]
    assert len(paths) > 30
    for path, answer in zip(paths, fetch(sidecar, *(("GET", path, {}) for path in paths)), strict=True):
        assert answer.status_code == 200, path
        wanted = TYPES.get(Path(path).suffix, "text/plain; charset=utf-8") if path != "/" else TYPES[".html"]
        assert answer.headers["content-type"] == wanted, path
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path


def test_what_has_not_changed_is_not_sent_again(sidecar: Sidecar) -> None:
    first, head = fetch(sidecar, ("GET", "/", {}), ("HEAD", "/", {}))
    assert (head.status_code, head.content) == (200, b"")
    (again,) = fetch(sidecar, ("GET", "/", {"If-None-Match": first.headers["etag"]}))
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "name",
    ["nothing.js", "", "js", "../files.py", "..%2Ffiles.py", "js/%2E%2E/%2E%2E/files.py", "%00", "x" * 9999],
)
def test_nothing_else_is_served(sidecar: Sidecar, name: str) -> None:
    (answer,) = fetch(sidecar, ("GET", f"/dashboard/{name}", {}))
    assert answer.status_code == 404
    sidecar.tokens = Tokens({Role.ADMIN: ADMIN.encode()})
    (posted,) = fetch(sidecar, ("POST", "/dashboard/js/main.js", {}))
    assert posted.status_code == 401


def test_the_page_runs_and_names_only_what_is_there() -> None:
    page = Page()
    page.feed((ASSETS / "index.html").read_text())
    assert page.inline == []
    assert page.named and all(name.startswith("dashboard/") for name in page.named)
    missing = [name for name in page.named if not (ASSETS / name.removeprefix("dashboard/")).is_file()]
    assert missing == []


def test_every_import_of_a_script_is_there() -> None:
    imports = [
        (path, name)
        for path in OWN
        if path.suffix == ".js"
        for name in re.findall(r'\b(?:from|import) "([^"]+)"', path.read_text())
    ]
    assert len(imports) > 50
    missing = [f"{path.name}: {name}" for path, name in imports if not (path.parent / name).is_file()]
    assert missing == []


def test_no_file_names_another_place() -> None:
    for path in OWN:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|wss?:|[\"'(]//", text) or path.suffix == ".json", path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), (
            path.name
        )


def test_what_is_from_npm_is_pinned_with_its_license() -> None:
    taken = {path for package in pinned() for path in package.files.values()}
    there = {str(path.relative_to(VENDORED)) for path in VENDORED.rglob("*") if path.is_file()}
    assert there == taken | {"vendored.json"}
    for package in pinned():
        (license_file,) = (path for path in package.files.values() if path.endswith("LICENSE"))
        first = "Apache License" if package.license == "Apache-2.0" else "MIT"
        assert first in (VENDORED / license_file).read_text()
        assert package.integrity.startswith("sha512-") and package.note


def test_a_wheel_has_all_of_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "daemon", source / "daemon", ignore=ignored)
    for name in ("client", "estimators", "adapters"):
        (source / name).mkdir()
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        packed = set(content.namelist())
    wanted = {str(path.relative_to(ROOT / "daemon")) for path in ASSETS.rglob("*") if path.is_file()}
    assert wanted and wanted <= packed


def test_whoever_asks_is_told_what_they_may(sidecar: Sidecar) -> None:
    assert get(sidecar, "/v1/role").json() == {"role": "admin", "tokens": False}
    sidecar.tokens = Tokens({Role.ADMIN: ADMIN.encode(), Role.VIEWER: VIEWER.encode()})
    asked = [("GET", "/v1/role", {"Authorization": f"Bearer {token}"}) for token in (ADMIN, VIEWER, "x" * 16)]
    admin, viewer, stranger = fetch(sidecar, *asked)
    assert (admin.json()["role"], viewer.json()["role"]) == ("admin", "viewer")
    assert stranger.status_code == 401


def told(view: EngineView, count: int, seconds: float) -> None:
    view.measured(Pressure(0, 0, count, FirstTokens(count, seconds)), 0, 0.0)


def test_first_tokens_are_those_of_this_daemons_time(sidecar: Sidecar) -> None:
    known, view = History(), add_engine(sidecar).view
    known.note([view], Figures(), 1.0)
    told(view, 100, 50.0)
    known.note([view], Figures(), 2.0)
    told(view, 103, 53.5)
    known.note([view], Figures(), 3.0)
    told(view, 2, 1.0)
    known.note([view], Figures(), 4.0)
    samples = list(known.since(0.0))
    assert [one.first_tokens for one in samples] == [None, 0, 3, 5]
    assert [one.first_token_seconds for one in samples] == [None, 0.0, 3.5, 4.5]
    assert [one.at for one in known.since(2.0)] == [3.0, 4.0]


def test_the_history_is_bounded_and_sums_over_engines(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    known = History()
    views = [add_engine(sidecar, name).view for name in ("one", "two")]
    for view in views:
        view.ledger.called(100, 60)
        view.ledger.loaded("sim/a", 8)
        view.ledger.invoked("sim/a", 8)
    for at in range(5):
        known.note(views, Figures(), float(at))
    samples = list(known.since(-1.0))
    assert [one.at for one in samples] == [2.0, 3.0, 4.0]
    assert (samples[0].prefix_tokens, samples[0].found_tokens) == (200, 120)
    assert (samples[0].prefetches, samples[0].prefetches_used, samples[0].prefetched_tokens) == (2, 2, 16)


def test_a_whole_daemon_tells_the_first_tokens_of_its_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesim_daemon.dashboard.routes.SAMPLE_SECONDS", 0.05)

    async def scene() -> None:
        with emulator(tmp_path) as engine:
            async with daemon(tmp_path, engine.url, redis={"enabled": False}) as (_, api):

                async def heard(count: int) -> bool:
                    samples = (await api.get("/v1/history")).json()["samples"]
                    return bool(samples) and (samples[-1]["first_tokens"] or -1) >= count

                await until(lambda: heard(-1))
                async with httpx.AsyncClient(base_url=engine.url) as client:

                    async def called() -> bool:
                        body = {"model": "base", "prompt": [1, 2, 3], "max_tokens": 2}
                        assert (await client.post("/v1/completions", json=body)).status_code == 200
                        return await heard(2)

                    await until(called)
                samples = (await api.get("/v1/history", params={"since": 1.0})).json()["samples"]
                assert samples[-1]["first_token_seconds"] > 0
                assert (await api.get("/v1/history", params={"since": "nan"})).status_code == 422

    asyncio.run(scene())
