"""Requests as they come to the door: read whole, within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import Receive, Scope

from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon.gateway.answers import Refused
from scalesim_daemon.gateway.upstream import REPLACED, Headers, end_to_end

METHODS = {
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/v1/embeddings": "POST",
    "/v1/models": "GET",
}
GENERATING = frozenset(("/v1/chat/completions", "/v1/completions"))
# A client that is still sending when it is refused may never read why.
MOST_DISCARDED_BYTES = 16 * MAX_MESSAGE_BYTES


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `target` is its path and query; `fields` are its body's, empty where that is no JSON object."""

    method: str
    path: str
    target: str
    headers: Headers
    body: bytes
    fields: dict[str, Any]

    def header(self, name: bytes) -> str | None:
        """Return a header's first value, None where it wasn't sent."""
        return next((value.decode("latin-1") for known, value in self.headers if known == name), None)

    @property
    def session(self) -> str | None:
        """The session that the engine takes it for: the body's goes before the header's."""
        session = self.fields.get("session_id")
        return session if isinstance(session, str) and session else self.header(b"x-session-id")

    @property
    def generates(self) -> bool:
        """Whether it asks for tokens, and so uses its agent's memory."""
        return self.path in GENERATING

    @property
    def model(self) -> str | None:
        """The model that it names."""
        model = self.fields.get("model")
        return model if isinstance(model, str) else None


async def read(scope: Scope, receive: Receive) -> Request:
    """Return the request once it is complete. Raises `Refused` for what can't be passed on, and `ClientGone`."""
    method, path = scope["method"], scope["path"]
    if path not in METHODS:
        served = ", ".join(METHODS)
        raise Refused(f"the gateway serves {served}, not {path}", 404, "invalid_request_error")
    if method != METHODS[path]:
        allow = (b"allow", METHODS[path].encode())
        raise Refused(f"{path} takes {METHODS[path]}, not {method}", 405, "invalid_request_error", (allow,))
    if method == "POST" and (b"sec-fetch-site", b"cross-site") in scope["headers"]:
        raise Refused(
            "a page of another site in a browser may call nothing here", 403, "invalid_request_error"
        )
    body = await _body(receive)
    query = scope["query_string"].decode("latin-1")
    headers = [pair for pair in end_to_end(scope["headers"]) if pair[0] not in REPLACED]
    return Request(method, path, f"{path}?{query}" if query else path, headers, body, _fields(body))


async def _body(receive: Receive) -> bytes:
    """Return a request's body, of which no more is kept than it may have."""
    body, size, more = bytearray(), 0, True
    while more and size <= MOST_DISCARDED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size <= MAX_MESSAGE_BYTES:
            body += chunk
    if size > MAX_MESSAGE_BYTES:
        text = (
            f"a request holds at most {MAX_MESSAGE_BYTES} bytes here: send longer ones to the engine itself"
        )
        raise Refused(text, 413, "invalid_request_error", ((b"connection", b"close"),))
    return bytes(body)


def _fields(body: bytes) -> dict[str, Any]:
    """Return a JSON object's fields. What is none is for the engine to refuse, in its words. Raises `Refused` for what
    is nested so deep that it could harm an engine."""
    try:
        fields = msgspec.json.decode(body)
    except RecursionError:
        raise Refused("the body is nested too deep", 400, "invalid_request_error") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return fields if isinstance(fields, dict) else {}
