"""The dashboard's page and files, and what it asks beyond the API's other routes."""

from __future__ import annotations

import asyncio
from time import time
from typing import Annotated

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from scalesim_daemon import report_estimators
from scalesim_daemon.admin.access import Role
from scalesim_daemon.api_models import Answer
from scalesim_daemon.dashboard.files import PAGE, DashboardFiles
from scalesim_daemon.dashboard.history import SAMPLE_SECONDS, Sample
from scalesim_daemon.loop import Sidecar

Since = Annotated[float, Query(ge=0, allow_inf_nan=False)]


class RoleState(Answer):
    """What whoever asks may do. Without `tokens` everybody who reaches the API is an admin."""

    role: Role
    tokens: bool


class HistoryPage(Answer):
    """What was counted over the last hour, the oldest first, a sample every `every` seconds."""

    every: float
    samples: list[Sample]


async def keep_history(sidecar: Sidecar) -> None:
    """Take samples until cancelled."""
    while True:
        views = (driver.view for driver in sidecar.drivers.values())
        sidecar.history.note(views, report_estimators.order(sidecar.population), time())
        await asyncio.sleep(SAMPLE_SECONDS)


def add_dashboard(api: FastAPI, sidecar: Sidecar) -> None:
    """Give the API the page at `/`, its files, and what the page asks."""
    files = DashboardFiles()

    async def page(request: Request) -> Response:
        return await files.get_response(PAGE, request.scope)

    async def file(request: Request) -> Response:
        return await files.get_response(request.path_params["name"], request.scope)

    api.add_route("/", page, include_in_schema=False)
    api.add_route("/dashboard/{name:path}", file, include_in_schema=False)

    @api.get("/v1/role", tags=["operation"])
    async def role(request: Request) -> RoleState:
        """What whoever asks may do."""
        known = sidecar.tokens.role_of(request.headers.get("authorization"))
        return RoleState(role=known or Role.ADMIN, tokens=bool(sidecar.tokens))

    @api.get("/v1/history", tags=["reports"])
    async def history(since: Since = 0.0) -> HistoryPage:
        """What was counted over the last hour, as far as it is younger than `since`."""
        return HistoryPage(every=SAMPLE_SECONDS, samples=list(sidecar.history.since(since)))
