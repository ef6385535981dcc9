"""What a simulation that knows the sidecar would have added to its request, added for one that doesn't. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from secrets import token_hex

from scalesim_client.tags import extra_body
from scalesim_daemon.gateway.requests import Request

REQUEST_ID = b"x-request-id"


def tagged(request: Request, agent: str) -> Request:
    """Return the request with its agent's `session_id` and a request id, where it has none: what the caller set stays.

    A field is put in front of the body's own, whose bytes stay as they are. No priority is added: vLLM takes a request
    without one as 0, ahead of all that the sidecar sends.
    """
    headers, body = request.headers, request.body
    if request.header(REQUEST_ID) is None:
        headers = [*headers, (REQUEST_ID, f"gateway-{token_hex(8)}".encode())]
    if request.fields and "session_id" not in request.fields and request.session is None:
        tags = json.dumps(extra_body(*agent.split("/", 1))).encode()
        body = tags[:-1] + b"," + body[body.index(b"{") + 1 :]
    return replace(request, headers=headers, body=body)
