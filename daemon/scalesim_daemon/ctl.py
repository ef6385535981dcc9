"""`scalesimctl`: ask a running daemon, and look at an engine before giving it to one.

Exit status: 0 all right, 1 the answer is no (not ready, not known, no vLLM), 2 wrong usage or nobody answers,
130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import quote

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console, RenderableType

from scalesim_daemon import ctl_views
from scalesim_daemon.api_models import (
    AgentDetail,
    AgentsPage,
    Answer,
    Engines,
    Estimators,
    Health,
    Problem,
    Ready,
    Report,
    Sources,
)
from scalesim_daemon.doctor import UnusableUrl, examine

NO = 1
UNANSWERED = 2
ASK_SECONDS = 10.0

app = typer.Typer(
    name="scalesimctl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask a running scalesimd what it knows and why it does what it does.",
)
Url = Annotated[str, typer.Option("--url", envvar="SCALESIM_URL", help="Where the daemon's API listens.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Model = TypeVar("Model", bound=Answer)
DEFAULT_URL = "http://127.0.0.1:8700"


@app.command()
def status(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Whether the daemon can do its work, its engines, its sources, and what its prefetches came to."""
    with _client(url) as client:
        health = _ask(client, "/health", Health)
        ready = _ask(client, "/ready", Ready)
        engines = _ask(client, "/v1/engines", Engines)
        sources = _ask(client, "/v1/sources", Sources)
        report = _ask(client, "/v1/report", Report)
    parts = {"health": health, "ready": ready, "engines": engines, "sources": sources, "report": report}
    plain = {name: part.model_dump(mode="json") for name, part in parts.items()}
    _show(plain, ctl_views.status(url, health, ready, engines, sources, report), as_json)
    if not ready.ready:
        raise typer.Exit(NO)


@app.command()
def agents(
    url: Url = DEFAULT_URL,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the nearest first.")] = 20,
    as_json: Json = False,
) -> None:
    """The agents, the next to call first."""
    with _client(url) as client:
        page = _ask(client, "/v1/agents", AgentsPage, limit=limit)
    _show(page.model_dump(mode="json"), ctl_views.agents(page), as_json)


@app.command()
def explain(
    agent: Annotated[str, typer.Argument(help="The agent, as SIMULATION/AGENT.")],
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Why one agent is as far as it is, where its memory is, and what was done about it."""
    simulation, separator, name = agent.partition("/")
    if not (simulation and separator and name):
        raise typer.BadParameter(f"{agent!r}: write SIMULATION/AGENT, as `scalesimctl agents` shows it")
    # An id may be "..", which clients take for a step up unless its dots are escaped.
    path = quote(agent, safe="/").replace(".", "%2E")
    with _client(url) as client:
        detail = _ask(client, f"/v1/agents/{path}", AgentDetail)
    _show(detail.model_dump(mode="json"), ctl_views.explanation(detail), as_json)


@app.command()
def estimators(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """How good each estimator was at foretelling the calls, and whether it is admitted."""
    with _client(url) as client:
        known = _ask(client, "/v1/estimators", Estimators)
    _show(known.model_dump(mode="json"), ctl_views.estimators(known), as_json)


@app.command()
def doctor(
    url: Annotated[str, typer.Argument(help="Where the engine listens, such as http://127.0.0.1:8000.")],
    as_json: Json = False,
) -> None:
    """What an engine lets the sidecar do, and the flag or variable for what is missing. Needs no daemon."""
    try:
        diagnosis = asyncio.run(examine(url))
    except UnusableUrl as error:
        raise typer.BadParameter(str(error)) from None
    _show(diagnosis.to_json(), ctl_views.diagnosis(diagnosis), as_json)
    if diagnosis.info is None:
        raise typer.Exit(NO if diagnosis.answered else UNANSWERED)


def _client(url: str) -> httpx.Client:
    try:
        # The daemon is on this host: a proxy that the environment names can't reach it.
        return httpx.Client(base_url=url, timeout=ASK_SECONDS, trust_env=False)
    except httpx.InvalidURL as error:
        raise typer.BadParameter(f"{url!r} is no URL: {error}", param_hint="--url") from None


def _ask(client: httpx.Client, path: str, model: type[Model], **params: int) -> Model:
    """Return a route's answer, or end with what the daemon, or the lack of one, says."""
    try:
        answer = client.get(path, params=params)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _fail(
            UNANSWERED,
            f"no daemon answers at {client.base_url}: {str(error) or type(error).__name__}",
            "start one with `scalesimd serve`, or say where it listens with --url or SCALESIM_URL",
        )
    try:
        return model.model_validate_json(answer.content)
    except ValidationError:
        pass
    try:
        _fail(NO, Problem.model_validate_json(answer.content).detail)
    except ValidationError:
        _fail(
            UNANSWERED,
            f"{client.base_url} is no scalesimd of this version ({path} answered {answer.status_code})",
            "say where the daemon listens with --url or SCALESIM_URL",
        )


def _show(plain: Any, view: RenderableType, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(plain, indent=2))
    else:
        Console().print(view, soft_wrap=True)


def _fail(code: int, problem: str, remedy: str | None = None) -> NoReturn:
    Console(stderr=True).print(ctl_views.failure(problem, remedy), soft_wrap=True)
    raise typer.Exit(code)
