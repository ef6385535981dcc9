"""Commands by which operators steer a daemon: its mode, pins, prefetches and evictions, and its configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.admin.models import ModeState, OperationState, PinState, Reloaded
from scalesim_daemon.ctl.client import NO, Daemon, Refused, in_path
from scalesim_daemon.ctl.completion import complete_agent
from scalesim_daemon.ctl.formats import Shown, tell
from scalesim_daemon.ctl.options import AgentArgument, agent_key, duration, steering
from scalesim_daemon.ctl.views import steering as views
from scalesim_daemon.ctl.waiting import all_over, came_to_something, naming_what_goes_on, order

Keys = Annotated[
    list[str],
    typer.Argument(
        metavar="AGENT|LORA",
        help="Agents' prefixes by SIMULATION/AGENT, and LoRAs by their names.",
        autocompletion=complete_agent,
    ),
]
AreLoras = Annotated[bool, typer.Option("--lora", help="All of them are LoRAs, also those with a slash.")]
OnEngine = Annotated[
    str | None, typer.Option("--engine", help="On which engine, where more than one comes into question.")
]
Within = Annotated[
    float,
    typer.Option(
        parser=duration,
        metavar="TIME",
        show_default="60s",
        help="After this, such as 90s or 10m, it is given up.",
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Don't wait until it is over.")]
WITHIN_SECONDS = 60.0
LEASE_SECONDS = 3600.0


@steering
async def pause(daemon: Daemon) -> Shown:
    """Do nothing from now on but listen: nothing is planned, prefetched or evicted."""
    return await _switch(daemon, "pause")


@steering
async def resume(daemon: Daemon) -> Shown:
    """Act again."""
    return await _switch(daemon, "resume")


@steering
async def observe(daemon: Daemon) -> Shown:
    """Plan and show what would be done, and do none of it."""
    return await _switch(daemon, "observe")


@steering
async def pin(
    daemon: Daemon,
    agent: AgentArgument,
    seconds: Annotated[
        float,
        typer.Option(
            "--for",
            parser=duration,
            metavar="TIME",
            show_default="1h",
            help="How long, such as 90s, 10m, 1h30m or 2d.",
        ),
    ] = LEASE_SECONDS,
) -> Shown:
    """Keep an agent's memory where it is needed, for a time; a second pin takes the first one's place."""
    path = f"/v1/pins/{in_path(agent_key(agent))}"
    state = await daemon.ask(path, PinState, method="PUT", body={"seconds": seconds})
    return Shown(state.model_dump(mode="json"), views.pin(state))


@steering
async def unpin(daemon: Daemon, agent: AgentArgument) -> Shown:
    """End a pin; none is needed."""
    state = await daemon.ask(f"/v1/pins/{in_path(agent_key(agent))}", PinState, method="DELETE")
    return Shown(state.model_dump(mode="json"), views.pin(state))


@steering
async def prefetch(
    daemon: Daemon,
    keys: Keys,
    loras: AreLoras = False,
    engine: OnEngine = None,
    within: Within = WITHIN_SECONDS,
    no_wait: NoWait = False,
) -> Shown:
    """Bring agents' prefixes or LoRAs to the device before all others, and wait until they are there."""
    return await _order(daemon, "prefetch", keys, loras, engine, within, no_wait)


@steering
async def evict(
    daemon: Daemon,
    keys: Keys,
    loras: AreLoras = False,
    engine: OnEngine = None,
    within: Within = WITHIN_SECONDS,
    no_wait: NoWait = False,
) -> Shown:
    """Let an engine drop agents' prefixes or LoRAs, where it can be told to, and wait until they are gone."""
    return await _order(daemon, "evict", keys, loras, engine, within, no_wait)


@steering
async def cancel(
    daemon: Daemon,
    identities: Annotated[list[str], typer.Argument(metavar="OPERATION", help="Operations, by their ids.")],
) -> Shown:
    """Give prefetches or evictions up that are not over."""
    paths = [f"/v1/operations/{in_path(one)}" for one in identities]
    return _shown([await daemon.ask(path, OperationState, method="DELETE") for path in paths])


@steering
async def reload_config(daemon: Daemon) -> Shown:
    """Read the configuration again, as SIGHUP does: what holds now, and what needs a restart."""
    found = await daemon.ask("/v1/config/reload", Reloaded, method="POST")
    return Shown(found.model_dump(mode="json"), views.reloaded(found))


async def _switch(daemon: Daemon, word: str) -> Shown:
    state = await daemon.ask(f"/v1/{word}", ModeState, method="POST")
    return Shown(state.model_dump(mode="json"), views.mode(state))


async def _order(
    daemon: Daemon, what: str, keys: list[str], loras: bool, engine: str | None, within: float, no_wait: bool
) -> Shown:
    """Ask for each item; what is refused is told, and doesn't keep the others from being done."""
    started: list[OperationState] = []
    code = 0
    with naming_what_goes_on(started):
        for key in keys:
            kind = MemoryKind.LORA if loras or "/" not in key else MemoryKind.PREFIX_KV
            try:
                started.append(await order(daemon, what, kind, key, engine, within))
            except Refused as refused:
                tell(refused)
                code = max(code, refused.code)
    if not started:
        raise typer.Exit(code)
    over = started if no_wait else await all_over(daemon, started)
    well = no_wait or all(map(came_to_something, over))
    return _shown(over, code or (0 if well else NO))


def _shown(operations: list[OperationState], code: int = 0) -> Shown:
    plain = {"operations": [one.model_dump(mode="json") for one in operations]}
    return Shown(plain, views.operations(operations), code)
