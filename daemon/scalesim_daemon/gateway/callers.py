"""Who calls: the agent of a request, as far as it tells. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from scalesim_client.tags import agent_key
from scalesim_daemon import sscheduler
from scalesim_daemon.gateway.answers import Refused
from scalesim_daemon.gateway.requests import Request
from scalesim_daemon.settings import GatewaySettings, SschedulerSettings

FIELD = re.compile(r"\{([^{}]+)\}")
# The name of the source under which a simulation's calls are noted has to be short enough, too.
MOST_SIMULATION_BYTES = 200


def agent_of(
    request: Request, settings: GatewaySettings, paper: SschedulerSettings | None = None
) -> str | None:
    """Return the key `<simulation>/<agent>` of a request's agent, None where nothing names one.

    It is looked for in the header X-Agent-Id, percent-encoded as `request_tags` has it, then, for simulations made for
    the `paper`'s front end, in `agent_id` of the body, else in its `user` and `session_id`, in the header X-Session-ID,
    and by the settings' template. An id is the agent's alone or the whole key; a header X-Simulation says to which
    simulation it belongs. Raises `Refused` where a header that is meant for us names what can't be; of other fields
    such an id names nobody.
    """
    given = request.header(b"x-simulation")
    simulation = None if given is None else unquote(given)
    told = request.header(b"x-agent-id")
    try:
        if simulation is not None:
            _key(simulation, "a", settings.simulation)
        if told is not None:
            return _key(simulation, unquote(told), settings.simulation)
    except ValueError as error:
        raise Refused(f"X-Agent-Id, X-Simulation: {error}", 400, "invalid_request_error") from error
    papers = sscheduler.agent_of(request.fields) if paper is not None and paper.enabled else None
    if paper is not None and papers is not None:
        return agent_key(paper.simulation, papers)
    for name in _ids(request, settings.agent):
        try:
            return _key(simulation, name, settings.simulation)
        except ValueError:
            continue
    return None


def _ids(request: Request, template: str | None) -> Iterator[str]:
    for field in ("user", "session_id"):
        value = request.fields.get(field)
        if isinstance(value, str):
            yield value
    session = request.header(b"x-session-id")
    if session is not None:
        yield unquote(session)
    filled = None if template is None else fill(template, request.fields)
    if filled is not None:
        yield filled


def _key(simulation: str | None, name: str, default: str) -> str:
    """Raises `ValueError` for what can't be a key."""
    if simulation is None:
        simulation, slash, agent = name.partition("/")
        if not slash:
            simulation, agent = default, name
    else:
        agent = name.removeprefix(f"{simulation}/")
    if len(simulation.encode()) > MOST_SIMULATION_BYTES:
        raise ValueError(f"simulation must be at most {MOST_SIMULATION_BYTES} UTF-8 bytes long")
    return agent_key(simulation, agent)


def fill(template: str, fields: dict[str, Any]) -> str | None:
    """Return the template with each `{path}` replaced by what the body has there (`{metadata.agent}`), None where it
    lacks one or has neither text nor a whole number."""
    missing = False

    def found(match: re.Match[str]) -> str:
        nonlocal missing
        value: Any = fields
        for part in match[1].split("."):
            value = value.get(part) if isinstance(value, dict) else None
        missing |= isinstance(value, bool) or not isinstance(value, str | int)
        return str(value)

    text = FIELD.sub(found, template)
    return None if missing else text
