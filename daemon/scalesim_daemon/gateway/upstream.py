"""One request to one engine, and its answer as it comes: status, headers and bytes, nothing kept.

By aiohttp: every chunk passes the parser, which is written in C there and in Python in httpx.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from scalesim_daemon.gateway.answers import Refused

Headers = list[tuple[bytes, bytes]]

# RFC 9110, 7.6.1: they concern one connection.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# The host is the engine's, the length is told anew, and what is expected has been answered at the door.
REPLACED = frozenset((b"host", b"content-length", b"expect"))
ADDED_BY_AIOHTTP = ("accept", "accept-encoding", "user-agent", "content-type")
# Both engines' servers close a connection that was idle for 5 s: ours has to be given up before.
IDLE_SECONDS = 2.0
CONNECT_SECONDS = 5.0


class EngineGone(Exception):
    """The engine can't be reached, or broke its answer off; the text says which. `asked` tells whether it may have seen
    the request."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error) or type(error).__name__)
        self.asked = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that are meant for the other end."""
    pairs = [(name.lower(), value) for name, value in headers]
    named = {
        part.strip().lower() for name, value in pairs if name == b"connection" for part in value.split(b",")
    }
    return [(name, value) for name, value in pairs if name not in HOP_BY_HOP and name not in named]


class Answer:
    """An engine's answer whose body is still coming."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = end_to_end(answer.raw_headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises `EngineGone` where it breaks off."""
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, ConnectionError) as error:
            raise EngineGone(error) from error


class Upstream:
    """Connections to all engines; to be made on the loop that uses it."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=ADDED_BY_AIOHTTP,
        )

    @asynccontextmanager
    async def ask(self, method: str, url: str, headers: Headers, body: bytes) -> AsyncIterator[Answer]:
        """Send a request and yield its answer. Raises `EngineGone` where there is none.

        To leave the block before the answer's end closes the connection, which cancels the work in the engine.
        """
        sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        where = URL(url, encoded=True)
        if any(name == b"authorization" for name, _ in headers):
            # Who says who it is to the engine is believed before what stands in the settings.
            where = where.with_user(None)
        try:
            answer = await self._session.request(
                method, where, headers=sent, data=body or None, allow_redirects=False
            )
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise EngineGone(error) from error
        except ValueError as error:
            # Control characters, which end headers early for some who read them.
            raise Refused(f"a header can't be passed on: {error}", 400, "invalid_request_error") from error
        try:
            yield Answer(answer)
        finally:
            # Harmless where all of it was read: then the connection has gone back to the pool.
            answer.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
