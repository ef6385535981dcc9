"""The routes by which operators steer the daemon."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from scalesim_daemon.admin import asking
from scalesim_daemon.admin.models import (
    ConfigState,
    Lease,
    ModeState,
    OperationsPage,
    OperationState,
    Order,
    Pin,
    PinsPage,
    PinState,
    Reloaded,
)
from scalesim_daemon.admin.operations import Operation, TooManyOperations
from scalesim_daemon.admin.reload import NotReadable, config, reload
from scalesim_daemon.admin.steering import Steering, TooMany
from scalesim_daemon.admin.stream import EventStream, NotRunning, TooManyClients
from scalesim_daemon.api_models import Problem
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.paging import Limit, Offset
from scalesim_daemon.settings import ConfigError, RunMode

STATUS_OF: dict[type[Exception], int] = {
    asking.UnknownItem: 404,
    asking.NotNow: 409,
    NotReadable: 409,
    ConfigError: 422,
    TooMany: 429,
    TooManyOperations: 429,
    TooManyClients: 429,
    NotRunning: 503,
    asking.NotHere: 501,
}


def add_steering(api: FastAPI, sidecar: Sidecar) -> None:
    """Give the API the routes that set the mode and pins."""
    steering = Steering(sidecar)

    async def switch(mode: RunMode) -> ModeState:
        before = sidecar.mode
        not_kept = await steering.set_mode(mode)
        return ModeState(mode=mode, before=before, not_kept=not_kept)

    @api.post("/v1/pause", tags=["steering"])
    async def pause() -> ModeState:
        """Do nothing from now on but listen: nothing is planned, prefetched or evicted."""
        return await switch(RunMode.PAUSED)

    @api.post("/v1/resume", tags=["steering"])
    async def resume() -> ModeState:
        """Act again."""
        return await switch(RunMode.ACTIVE)

    @api.post("/v1/observe", tags=["steering"])
    async def observe() -> ModeState:
        """Plan and show what would be done, and do none of it."""
        return await switch(RunMode.OBSERVE)

    @api.get("/v1/pins", tags=["steering"])
    async def pins(offset: Offset = 0, limit: Limit = 100) -> PinsPage:
        """The pins that hold."""
        held = sorted(sidecar.pinned())
        shown = [Pin(key=key, until=sidecar.pins[key]) for key in held[offset : offset + limit]]
        return PinsPage(total=len(held), offset=offset, limit=limit, pins=shown)

    @api.put("/v1/pins/{simulation}/{agent:any_id}", tags=["steering"], responses=_problems(400, 404, 429))
    async def pin(simulation: str, agent: str, lease: Lease) -> PinState:
        """Keep an agent's memory where it is needed, until the lease ends; a second pin takes the first one's place."""
        key = f"{simulation}/{agent}"
        until, not_kept = await steering.pin(key, lease.seconds)
        return PinState(key=key, until=until, not_kept=not_kept)

    @api.delete("/v1/pins/{simulation}/{agent:any_id}", tags=["steering"])
    async def unpin(simulation: str, agent: str) -> PinState:
        """End a pin; none is needed."""
        key = f"{simulation}/{agent}"
        return PinState(key=key, until=None, not_kept=await steering.unpin(key))


def add_operations(api: FastAPI, sidecar: Sidecar) -> None:
    """Give the API the routes that move one item, and tell what became of that."""

    def accepted(operation: Operation, response: Response) -> OperationState:
        response.headers["location"] = f"/v1/operations/{operation.id}"
        return OperationState.model_validate(operation)

    @api.post(
        "/v1/prefetch", status_code=202, tags=["steering"], responses=_problems(400, 404, 409, 429, 501)
    )
    async def prefetch(order: Order, response: Response) -> OperationState:
        """Bring an item to the device before all others, as soon as there is room and the engine is quiet."""
        return accepted(asking.prefetch(sidecar, order), response)

    @api.post("/v1/evict", status_code=202, tags=["steering"], responses=_problems(400, 404, 409, 429, 501))
    async def evict(order: Order, response: Response) -> OperationState:
        """Let an engine drop an item, where it can be told to, as soon as it is quiet and nobody uses the item. What is
        due soon is prefetched again."""
        return accepted(asking.evict(sidecar, order), response)

    @api.get("/v1/operations", tags=["steering"])
    async def operations(offset: Offset = 0, limit: Limit = 100) -> OperationsPage:
        """The operations, the latest first."""
        known = sidecar.operations.all()
        shown = [OperationState.model_validate(one) for one in known[offset : offset + limit]]
        return OperationsPage(total=len(known), offset=offset, limit=limit, operations=shown)

    @api.get("/v1/operations/{identity}", tags=["steering"], responses=_problems(404))
    async def operation(identity: str) -> OperationState:
        """How far an operation is."""
        return OperationState.model_validate(asking.find(sidecar, identity))

    @api.delete("/v1/operations/{identity}", tags=["steering"], responses=_problems(404))
    async def cancel(identity: str) -> OperationState:
        """Give an operation up."""
        return OperationState.model_validate(asking.cancel(sidecar, identity))


def add_config(api: FastAPI, sidecar: Sidecar) -> None:
    """Give the API the routes that show the configuration and read it again."""

    @api.get("/v1/config", tags=["configuration"])
    async def show_config() -> ConfigState:
        """The settings that hold."""
        return config(sidecar)

    @api.post("/v1/config/reload", tags=["configuration"], responses=_problems(409, 422))
    async def reload_config() -> Reloaded:
        """Read the configuration again, as SIGHUP does. What is wrong is named by its key, and then nothing changes."""
        return reload(sidecar)


def add_stream(api: FastAPI, sidecar: Sidecar) -> None:
    """Give the API the route that tells what changes."""
    spoken: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
    }

    @api.get(
        "/v1/stream",
        tags=["reports"],
        response_class=StreamingResponse,
        responses={**spoken, **_problems(429, 503)},
    )
    async def stream() -> EventStream:
        """What changes, as server-sent events: a `snapshot` (mode, clocks, agents), then `mode`, `clocks`, `agents`
        (`changed`, `gone`) and `decisions`, at most four times a second. Whoever reads too slowly skips, and hears a
        `snapshot` again."""
        if sidecar.hub is None:
            raise NotRunning("the daemon is not running: nothing changes")
        sidecar.hub.check_room()
        return EventStream(sidecar.hub)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}
