"""The daemon at the other end: questions with a token, and what is said where no answer comes, or none that helps."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from scalesim_daemon.api_models import Answer, Problem
from scalesim_daemon.setting_values import is_loopback, redacted

NO = 1
FAILED = 2
INTERRUPTED = 130

DEFAULT_URL = "http://127.0.0.1:8700"
TOKEN_VARIABLE = "SCALESIM_TOKEN"  # nosec B105  # a name
ASK_SECONDS = 10.0
# The stream says something every 15 s at least.
SILENCE_SECONDS = 45.0

START = "start one with `scalesimd serve`, or say where it listens with --url or SCALESIM_URL"
SAY_WHERE = "say where the daemon listens with --url or SCALESIM_URL"
OTHER_PROXY = "name one that speaks HTTP, or set NO_PROXY=* to use none"
SAY_WHO = (
    f"name a file that holds a token with --token-file, or set {TOKEN_VARIABLE}: an admin's does everything, "
    "a viewer's reads (in the daemon's settings api.admin_token_file and api.viewer_token_file)"
)
OTHER_TOKEN = (
    f"compare --token-file or {TOKEN_VARIABLE} with the daemon's settings (api.admin_token_file, "
    "api.viewer_token_file); it reads them at its start and on SIGHUP"
)
MORE_RIGHTS = f"name the admin's token with --token-file or {TOKEN_VARIABLE}"

Model = TypeVar("Model", bound=Answer)


class Failure(Exception):
    """A command can't do what it was asked for. `code` is its exit status, `remedy` what to do about it."""

    def __init__(self, code: int, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem
        self.remedy = remedy


class Refused(Failure):
    """The daemon answers that it won't do this one thing."""


class Message(NamedTuple):
    """One message of the live stream."""

    event: str
    data: Any


class _Invalid(BaseModel):
    """What FastAPI answers where a value is none that may be."""

    class Detail(BaseModel):
        """One value at fault."""

        loc: list[str | int]
        msg: str

    detail: list[Detail]


class Daemon:
    """One daemon's API. All methods raise `Failure`: `Refused` where the daemon refuses, with `NO`, or `FAILED` for a
    value that is none; else `FAILED`, where nothing that is a daemon answers. `url` is as it may be shown."""

    def __init__(self, url: str, token: str | None, seconds: float = ASK_SECONDS) -> None:
        self._token = token
        self._seconds = seconds
        try:
            base = httpx.URL(url)
        except httpx.InvalidURL:
            base = httpx.URL()
        if base.scheme not in ("http", "https") or not base.host:
            # What it is isn't said: it may hold a password, and where that stands can't be told.
            raise Failure(FAILED, "the daemon's URL is none: write http://HOST:PORT", SAY_WHERE)
        try:
            self._http = httpx.AsyncClient(
                base_url=base,
                headers={} if token is None else {"Authorization": f"Bearer {token}"},
                timeout=seconds,
                # A proxy that the environment names can't reach what listens on this host alone.
                trust_env=not is_loopback(base.host),
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            problem = f"the proxy that the environment names is of no use: {error}"
            raise Failure(FAILED, problem, OTHER_PROXY) from None
        self.url = redacted(url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(
        self,
        path: str,
        model: type[Model],
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Model:
        """Return a route's answer. Parameters that are None are not sent."""
        given = {name: value for name, value in params.items() if value is not None}
        try:
            answer = await self._http.request(method, path, params=given, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unanswered(error)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError:
            raise self._refusal(path, answer) from None

    async def follow(self) -> AsyncIterator[Message]:
        """Yield what the daemon's stream says until the daemon ends it."""
        timeout = httpx.Timeout(self._seconds, read=SILENCE_SECONDS)
        path, event = "/v1/stream", ""
        try:
            async with self._http.stream("GET", path, timeout=timeout) as answer:
                if "text/event-stream" not in answer.headers.get("content-type", ""):
                    await answer.aread()
                    raise self._refusal(path, answer)
                async for line in _lines(answer.aiter_text()):
                    name, _, value = line.partition(": ")
                    if name == "event":
                        event = value
                    elif name == "data":
                        yield Message(event, json.loads(value))
        except httpx.HTTPError as error:
            self._unanswered(error)
        except ValueError as error:
            raise self._stranger(f"{path}: {error}") from None

    def _unanswered(self, error: Exception) -> NoReturn:
        why = str(error) or type(error).__name__
        raise Failure(FAILED, f"no daemon answers at {self.url}: {why}", START) from None

    def _refusal(self, path: str, answer: httpx.Response) -> Failure:
        if (wrong := _wrong_values(answer)) is not None:
            return Refused(FAILED, wrong)
        try:
            why = Problem.model_validate_json(answer.content).detail
        except ValidationError:
            return self._stranger(f"{path} answered {answer.status_code}")
        match answer.status_code:
            case 401 if self._token is None:
                return Refused(NO, f"the daemon at {self.url} asks who you are", SAY_WHO)
            case 401:
                return Refused(NO, f"the daemon at {self.url} doesn't know this token", OTHER_TOKEN)
            case 403:
                return Refused(NO, why, MORE_RIGHTS)
        return Refused(NO, why)

    def _stranger(self, why: str) -> Failure:
        return Failure(FAILED, f"{self.url} is no scalesimd of this version ({why})", SAY_WHERE)


def in_path(identity: str) -> str:
    """Return an id as part of a path. It may be "..", which clients take for a step up unless its dots are escaped."""
    return quote(identity, safe="/").replace(".", "%2E")


def read_token(file: Path | None) -> str | None:
    """Return the token that the file holds, else the environment's, None where there is neither. Raises `Failure`."""
    if file is None:
        where, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "").strip()
    else:
        try:
            where, token = str(file), file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Failure(FAILED, f"{file}: {error.strerror}", SAY_WHO) from None
        except UnicodeDecodeError:
            raise Failure(FAILED, f"{file} is no text", SAY_WHO) from None
    sendable = token.isascii() and token.isprintable()
    if not sendable or (file is not None and not token):
        raise Failure(FAILED, f"{where} holds no token", SAY_WHO)
    return token or None


async def _lines(texts: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield lines that end with a line feed: other characters that end lines may stand in ids."""
    begun: list[str] = []
    async for text in texts:
        end, *starts = text.split("\n")
        begun.append(end)
        for start in starts:
            yield "".join(begun)
            begun = [start]


def _wrong_values(answer: httpx.Response) -> str | None:
    try:
        wrong = _Invalid.model_validate_json(answer.content).detail
    except ValidationError:
        return None
    return "; ".join(f"{one.loc[-1]}: {one.msg}" for one in wrong)
