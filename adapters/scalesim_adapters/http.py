"""HTTP calls to one engine server; every failure becomes one of the adapter contract's errors."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio
import httpx
import msgspec

from scalesim_adapters.base import (
    Busy,
    CapacityExceeded,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    NotFound,
    ProtocolMismatch,
    Rejected,
    Revoked,
    Unsupported,
)

# Both engines' servers close a connection that was idle for 5 s: ours has to be given up before.
LIMITS = httpx.Limits(keepalive_expiry=2.0)

Result = TypeVar("Result")

UNHEARD_SECONDS = 2.0
"""How long what was sent may stay unacknowledged until the kernel gives the connection up."""
# What a network has not taken yet must not arrive later, when another daemon drives the engine: the kernel would send
# it again for minutes, also after the connection was closed here (tcp(7): TCP_USER_TIMEOUT; socket(7): SO_LINGER).
OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNHEARD_SECONDS * 1000)),
)

may_send: ContextVar[Callable[[], bool] | None] = ContextVar("may_send", default=None)
"""Asked, where it is set, at the last moment before a request leaves; where it says no, `Revoked` is raised instead."""

fence: ContextVar[int | None] = ContextVar("fence", default=None)
"""The fencing token that a task acts under, where it has one: it stands in its requests' ids, as `t` and the number."""


def read_json(content: bytes) -> Any:
    """Return an answer's JSON. Raises `ValueError` for what is none, is nested too deep, or has text without a form in
    UTF-8, which would fail wherever it is passed on."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error


@asynccontextmanager
async def within(deadline: float, what: str) -> AsyncIterator[None]:
    """Raise `DeadlineExceeded` where the block isn't done after `deadline` seconds."""
    try:
        async with asyncio.timeout(deadline):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"{what} did not answer within {deadline:g} s") from error


async def cancelled_by_anyio(work: Coroutine[Any, Any, Result]) -> Result:
    """Await the work in a task of its own, to which a cancellation comes by anyio.

    From that alone httpcore shields what it must not leave half done: cancelled by asyncio while it gives a connection
    back, that is in use for ever (encode/httpcore#830, #1115). The answer that has come by then is lost all the same.
    """
    scope = anyio.CancelScope()

    async def within_scope() -> Result:
        with scope:
            return await work
        raise asyncio.CancelledError

    task = asyncio.create_task(within_scope())
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        scope.cancel()
        # Whoever is cancelled again doesn't wait for the end; the task comes to it.
        await asyncio.shield(asyncio.gather(task, return_exceptions=True))
        raise
    return task.result()


class Http:
    """Calls to one server, each with a deadline in seconds. A cancelled call resets its connection, and what of it the
    server doesn't have yet never comes."""

    def __init__(
        self, url: str, name: str, api_key: str | None, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        transport = transport or httpx.AsyncHTTPTransport(limits=LIMITS, socket_options=OPTIONS)
        self._client = httpx.AsyncClient(  # nosec B113  # every call has a deadline of its own
            base_url=url, headers=headers, timeout=None, transport=transport
        )
        self._name = name

    async def json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, deadline: float
    ) -> Any:
        """Return the answer's JSON."""
        answer = await self.send(method, path, body, deadline=deadline)
        try:
            return read_json(answer.content)
        except ValueError as error:
            raise ProtocolMismatch(
                f"{path} answered something that is not JSON: {answer.text[:200]!r}"
            ) from error

    async def text(self, path: str, *, deadline: float) -> str:
        """Return the text of a GET."""
        return (await self.send("GET", path, deadline=deadline)).text

    async def status(self, path: str, *, deadline: float) -> int:
        """Return the status of a GET, whatever it is."""
        return (await self._exchange("GET", path, None, deadline)).status_code

    async def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, deadline: float
    ) -> httpx.Response:
        """Return a good answer, or raise the `EngineError` that a bad one means."""
        answer = await self._exchange(method, path, body, deadline)
        if answer.is_success:
            return answer
        raise _error(path, answer)

    async def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline: float
    ) -> httpx.Response:
        token = fence.get()
        under = "" if token is None else f"t{token}-"
        headers = {"x-request-id": f"scalesim-{self._name}-{under}{secrets.token_hex(8)}"}
        async with within(deadline, path):
            try:
                return await cancelled_by_anyio(self._request(method, path, body, headers))
            except httpx.HTTPError as error:
                raise EngineUnavailable(f"{path}: {str(error) or type(error).__name__}") from error

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> httpx.Response:
        extensions = {} if may_send.get() is None else {"trace": _check_permission}
        try:
            return await self._client.request(method, path, json=body, headers=headers, extensions=extensions)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            if method != "GET":
                raise
            # A server that was held up closes idle connections just when they are used again.
            return await self._client.request(method, path, json=body, headers=headers)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _check_permission(event: str, _: Mapping[str, Any]) -> None:
    """Hold a request back. A process may have stood still since it began: while it waited for a connection, or
    between the request's parts."""
    asked = may_send.get()
    parts = ("http11.send_request_headers.started", "http11.send_request_body.started")
    if event in parts and asked is not None and not asked():
        raise Revoked("this daemon no longer drives the engine")


def _error(path: str, answer: httpx.Response) -> EngineError:
    """Map an answer to an error. Engines' own errors carry a message; a route that isn't there carries
    none."""
    message = _message(answer)
    text = f"{path}: {message or answer.text[:200]} ({answer.status_code})"
    match answer.status_code:
        case 404 if message is None:
            return Unsupported(f"{path} is not served ({answer.status_code})")
        case 404:
            return NotFound(text)
        case 409:
            return Busy(text)
        case 429 | 503:
            return CapacityExceeded(text)
        case 405 | 501:
            return Unsupported(text)
        case status if status >= 500:
            return EngineUnavailable(text)
        case _:
            return Rejected(text)


def _message(answer: httpx.Response) -> str | None:
    """Of an answer as vLLM gives it (`error.message`) or as SGLang does (that, `message` or `error_message`)."""
    try:
        body = read_json(answer.content)
        if isinstance(body.get("error"), dict):
            body = body["error"]
        return next(
            (body[key] for key in ("message", "error_message") if isinstance(body.get(key), str)), None
        )
    except (ValueError, AttributeError):
        return None
