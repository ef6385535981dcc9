"""Tags that tell an engine, a gateway and the daemon which agent a request belongs to.

vLLM takes the session from the body's `session_id`, else from the header `X-Session-ID`, and names it in its
KV events; `priority` counts under `--scheduling-policy priority` alone (smaller is served earlier).
"""

from __future__ import annotations

from typing import Any, TypedDict
from urllib.parse import quote

from scalesim_client.events import check_id

_PRINTABLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


class RequestTags(TypedDict):
    """Keyword arguments for the `create` methods of the `openai` package."""

    extra_body: dict[str, Any]
    extra_headers: dict[str, str]


def agent_key(simulation: str, agent: str) -> str:
    """Return `<simulation>/<agent>`, the agent's name everywhere; raises `ValueError` for names that can't
    be."""
    check_id("simulation", simulation)
    check_id("agent", agent)
    if "/" in simulation:
        raise ValueError("simulation must not contain '/'")
    return f"{simulation}/{agent}"


def extra_body(simulation: str, agent: str, *, priority: int | None = None) -> dict[str, Any]:
    """Return the fields to add to a request's JSON body; raises `ValueError` for names that can't be."""
    body: dict[str, Any] = {"session_id": agent_key(simulation, agent)}
    if priority is not None:
        body["priority"] = priority
    return body


def extra_headers(simulation: str, agent: str) -> dict[str, str]:
    """Return the headers to add to a request; raises `ValueError` for names that can't be.

    What isn't printable ASCII, and `%`, is percent-encoded UTF-8, as headers carry no more: such a name's
    session is plain in the body alone.
    """
    key = quote(agent_key(simulation, agent), safe=_PRINTABLE)
    return {"X-Session-ID": key, "X-Agent-Id": key}


def request_tags(simulation: str, agent: str, *, priority: int | None = None) -> RequestTags:
    """Return both, to be passed on as `client.completions.create(..., **request_tags(simulation, agent))`."""
    return {
        "extra_body": extra_body(simulation, agent, priority=priority),
        "extra_headers": extra_headers(simulation, agent),
    }
