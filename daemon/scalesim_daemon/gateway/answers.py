"""What the gateway says itself, in OpenAI's form of an error. All else is the engine's, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Sequence

from starlette.types import Send


class Refused(Exception):
    """A request that gets an error from us: its `status`, and OpenAI's name for the `kind` of error."""

    def __init__(
        self, message: str, status: int, kind: str, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers = headers


def unreachable(failures: Sequence[str]) -> Refused:
    """Return what is said where no engine answered; `failures` name each that was asked, and why it did not."""
    remedy = "start it, or correct engines in the settings; `scalesimctl status` shows which are up"
    return Refused(f"no engine answered: {'; '.join(failures)}: {remedy}", 502, "server_error")


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with the error, as OpenAI's clients read it."""
    error = {"message": str(refused), "type": refused.kind, "param": None, "code": refused.status}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *refused.headers,
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
