"""How much a request may bring. What brings events reads its body within bounds itself; all else says little."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scalesim_daemon.admin.access import PUBLISHING

MOST_BYTES = 64 * 1024


class ShortBodies:
    """Answers 413 to what brings more than it may have to say, before it is read whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in PUBLISHING:
            await self._app(scope, receive, send)
            return
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MOST_BYTES:
                raise HTTPException(413, f"a request holds at most {MOST_BYTES} bytes here")
            return message

        await self._app(scope, bounded, send)
