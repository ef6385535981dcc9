"""The REST API over one sidecar: what it knows, what it does and why, and the HTTP door of the feed.

Handlers are coroutines on the sidecar's event loop, to which all of its state belongs. They don't wait while they read,
but for lists of all agents and items, which are read in turns with everything else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from time import monotonic
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client.exposition import choose_encoder
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import ClientDisconnect

from scalesim_client.events import MAX_ID_BYTES
from scalesim_daemon import report_agents, report_engines, report_estimators, report_items
from scalesim_daemon.admin.access import Guard, Tokens, may_read
from scalesim_daemon.admin.bodies import ShortBodies
from scalesim_daemon.admin.rates import Throttle
from scalesim_daemon.admin.routes import STATUS_OF as STEERING_STATUS_OF
from scalesim_daemon.admin.routes import add_config, add_operations, add_steering, add_stream
from scalesim_daemon.api_models import (
    AgentDetail,
    AgentsPage,
    Engines,
    Estimators,
    Health,
    Placement,
    PlanState,
    Problem,
    Ready,
    RefusedEvent,
    Report,
    Sources,
    Taken,
)
from scalesim_daemon.api_queries import AgentsQuery, DecisionsPage, DecisionsQuery, ItemsPage, ItemsQuery
from scalesim_daemon.dashboard.routes import add_dashboard
from scalesim_daemon.door import MalformedMessage, MessageTooLarge, check_verdict, events_in, read_body
from scalesim_daemon.feed import ANONYMOUS, Sampler
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.metrics import build_registry
from scalesim_daemon.paging import LARGEST_NUMBER, Limit
from scalesim_daemon.update_door import add_update
from scalesim_daemon.wire import Refused

DISTRIBUTION = "scalesim-sidecar"
STATUS_OF: dict[type[Exception], int] = {
    MalformedMessage: 400,
    report_agents.UnknownAgent: 404,
    MessageTooLarge: 413,
    # Whoever went away hears no answer; without one it would be an error of the server's.
    ClientDisconnect: 400,
    **STEERING_STATUS_OF,
}

Source = Annotated[str, Query(min_length=1, max_length=MAX_ID_BYTES)]
AgentKey = Annotated[str, Query(min_length=3, max_length=2 * MAX_ID_BYTES + 1)]
SequenceNumber = Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER)]


class AnyIdConvertor(PathConvertor):
    """The rest of a path, whatever is in it: an id may hold slashes and line ends."""

    regex = "(?s:.*)"


register_url_convertor("any_id", AnyIdConvertor())


def build_api(sidecar: Sidecar) -> FastAPI:
    """Return the ASGI application that shows this sidecar."""
    api = FastAPI(
        title="ScaleSim sidecar",
        version=version(DISTRIBUTION),
        description="What the sidecar knows of agents and engines, what it does, and why.",
        redoc_url=None,
    )
    _guard(api, lambda: sidecar.tokens)
    _add_operations(api, sidecar)
    _add_events(api, sidecar)
    add_update(api, sidecar)
    _add_reports(api, sidecar)
    add_steering(api, sidecar)
    add_operations(api, sidecar)
    add_config(api, sidecar)
    add_stream(api, sidecar)
    add_dashboard(api, sidecar)
    api.add_middleware(Throttle, per_second=sidecar.settings.api.requests_per_second)
    return api


def build_front_door(sidecar: Sidecar) -> FastAPI:
    """Return the application for the paper's front end, which has no token to send: like the feed it listens on
    loopback alone, takes what happened, and tells nothing."""
    api = FastAPI(title="ScaleSim sidecar: updates", openapi_url=None)
    _guard(api, Tokens)
    add_update(api, sidecar)
    return api


def _guard(api: FastAPI, tokens: Callable[[], Tokens]) -> None:
    for error, status in STATUS_OF.items():
        api.add_exception_handler(error, _answer_with(status))
    api.add_exception_handler(RequestValidationError, _say_what_is_wrong)
    api.add_middleware(ShortBodies)
    api.add_middleware(Guard, tokens=tokens)


def _answer_with(status: int) -> Any:
    async def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(Problem(detail=str(error)).model_dump(), status)

    return answer


async def _say_what_is_wrong(_: Request, error: Any) -> Response:
    """Name what is at fault and where, and not what was sent: that may be secret, or nothing that JSON can say."""
    problems = [{key: problem[key] for key in ("loc", "msg", "type")} for problem in error.errors()]
    return Response(json.dumps({"detail": problems}), 422, media_type="application/json")


def _add_operations(api: FastAPI, sidecar: Sidecar) -> None:
    registry = build_registry(sidecar)

    @api.get("/health", tags=["operation"], responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Whether the loop ticks: a supervisor may restart the daemon where it doesn't."""
        response.status_code = 200 if sidecar.alive else 503
        return Health(
            alive=sidecar.alive,
            tick_age=monotonic() - sidecar.ticked_at,
            cycles=sidecar.counts["cycles"],
            mode=sidecar.mode,
            version=api.version,
        )

    @api.get("/ready", tags=["operation"], responses={503: {"model": Ready}})
    async def ready(request: Request, response: Response) -> Ready:
        """Whether events can come in, the store is reachable and an engine answers. Where tokens are set, what is
        missing is named to viewers."""
        reasons = missing_parts(sidecar)
        response.status_code = 503 if reasons else 200
        told = may_read(sidecar.tokens, request.headers.get("authorization"))
        return Ready(ready=not reasons, reasons=reasons if told else [])

    @api.get("/metrics", tags=["operation"], response_class=Response)
    async def metrics(request: Request) -> Response:
        """Prometheus metrics, in the text format or in OpenMetrics."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})


def missing_parts(sidecar: Sidecar) -> list[str]:
    """Return what keeps the daemon from doing its work, nothing where it can."""
    reasons = []
    if not sidecar.alive:
        reasons.append("the loop has stopped ticking")
    if not sidecar.feed_address:
        reasons.append("the feed is not bound")
    if sidecar.mirror is not None and not sidecar.mirror.connected:
        reasons.append("the store is not reachable")
    if not sidecar.drivers:
        reasons.append("no engine is configured: start with --engine vllm=URL")
    elif not any(driver.view.reachable for driver in sidecar.drivers.values()):
        reasons.extend(
            f"engine {name} does not answer: {driver.view.error}" for name, driver in sidecar.drivers.items()
        )
    return reasons


def _add_events(api: FastAPI, sidecar: Sidecar) -> None:
    sampler = Sampler()

    @api.post("/v1/events", tags=["events"], openapi_extra=_EVENTS_BODY, responses=_problems(400, 413))
    async def take_events(request: Request, source: Source = ANONYMOUS, seq: SequenceNumber = None) -> Taken:
        """Take events: a message as on the feed, `[ts, [event, ...]]`, or one bare event; JSON or msgpack."""
        try:
            raws = events_in(await read_body(request.stream()))
        except (MessageTooLarge, MalformedMessage) as error:
            sidecar.gate.counts["malformed"] += 1
            sampler.refused(source, [Refused("?", str(error))])
            raise
        verdict = sidecar.admit(source, seq, raws)
        sampler.refused(source, verdict.refused)
        check_verdict(verdict)
        return Taken(
            accepted=verdict.accepted,
            refused=[RefusedEvent.model_validate(refused) for refused in verdict.refused],
            resync=verdict.resync,
        )


def _add_reports(api: FastAPI, sidecar: Sidecar) -> None:
    @api.get("/v1/agents", tags=["reports"])
    async def agents(query: Annotated[AgentsQuery, Query()]) -> AgentsPage:
        """The agents, the next to call first. Sorted by key, those `after` the last of a page are the next page, in
        which none is missing and none is told again, whatever changes meanwhile."""
        return await report_agents.agents_page(sidecar, query)

    @api.get("/v1/agents/{simulation}/{agent:any_id}", tags=["reports"], responses=_problems(404))
    async def agent(simulation: str, agent: str) -> AgentDetail:
        """One agent: how far it is and why, where its memory is, and what was done about it."""
        return report_agents.agent_detail(sidecar, f"{simulation}/{agent}")

    @api.get("/v1/placement", tags=["reports"], responses=_problems(404))
    async def placement(agent: AgentKey) -> Placement:
        """The engine that an agent (`simulation/agent`) lives on, for who sends requests without the gateway."""
        return report_agents.placement(sidecar, agent)

    @api.get("/v1/items", tags=["reports"])
    async def items(query: Annotated[ItemsQuery, Query()]) -> ItemsPage:
        """Memory items on each engine: prefixes of agents, and LoRAs, the next to be used first. `after` as for agents,
        where items of one engine are asked for."""
        return await report_items.items_page(sidecar, query)

    @api.get("/v1/decisions", tags=["reports"])
    async def decisions(query: Annotated[DecisionsQuery, Query()]) -> DecisionsPage:
        """What was done, the latest first, with the reason of each step and its result."""
        return report_items.decisions_page(sidecar, query)

    @api.get("/v1/engines", tags=["reports"])
    async def engines() -> Engines:
        """All engines: what they hold, what they let us do, and what would let us do more."""
        return report_engines.engines(sidecar)

    @api.get("/v1/plan", tags=["reports"])
    async def plan(limit: Limit = 100) -> PlanState:
        """What is to be done on each engine, with the reason of each step, and what is being done."""
        return report_engines.plan(sidecar, limit)

    @api.get("/v1/estimators", tags=["reports"])
    async def estimators() -> Estimators:
        """How good each stream's estimators were, and which of them have a say."""
        return report_estimators.estimators(sidecar.population)

    @api.get("/v1/report", tags=["reports"])
    async def report() -> Report:
        """What the prefetches came to, and how good the estimates were."""
        return report_engines.report(sidecar)

    @api.get("/v1/sources", tags=["reports"])
    async def sources() -> Sources:
        """The streams of events, and what was ignored of them."""
        return report_engines.sources(sidecar)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


_EVENT = {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}
_MESSAGE = {
    "oneOf": [
        {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "prefixItems": [{"type": "number"}, {"type": "array", "maxItems": 1000, "items": _EVENT}],
            "items": {},
        },
        _EVENT,
    ]
}
_EVENTS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _MESSAGE},
            "application/msgpack": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
