"""Who may ask what of the REST API: bearer tokens, each with one role.

An admin's token does everything. A viewer's reads and changes nothing. A publisher's brings events and reads nothing:
simulations run on other hosts, in many copies, and should be able neither to steer the daemon nor to see each other.
What no role is named for here is read by viewers and otherwise done by admins, so that a new route is never open.

With no token set everybody who reaches the API may do everything: then it listens on loopback alone, and the pages of
other sites in a browser on this host are kept out. Such a page may have given its own name to this host's address, and
is then no other site to the browser: by that name nothing is answered.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from scalesim_daemon.setting_sources import read_secret
from scalesim_daemon.setting_values import is_loopback
from scalesim_daemon.settings import ApiSettings, ConfigError

SHORTEST_TOKEN = 16
TOKEN = re.compile(rf"[A-Za-z0-9._~+/-]{{{SHORTEST_TOKEN},512}}=*")
READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Role(StrEnum):
    """What a token is for."""

    VIEWER = "viewer"
    PUBLISHER = "publisher"
    ADMIN = "admin"


# Supervisors and load balancers ask without a token; the description of the API is the same for every daemon.
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
# So are the dashboard's files: a page can't send a token for its own parts. What they show it asks for with one.
OPEN_UNDER = "/dashboard/"
PUBLISHING = frozenset({"/v1/events", "/v1/update"})


def allowed(method: str, path: str) -> frozenset[Role] | None:
    """Return the roles that may make a request, None where everybody may."""
    if method in READING and (path in OPEN or path.startswith(OPEN_UNDER)):
        return None
    if path in PUBLISHING:
        return frozenset({Role.PUBLISHER, Role.ADMIN})
    return frozenset({Role.VIEWER, Role.ADMIN} if method in READING else {Role.ADMIN})


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token of each role that has one; none shows in its repr."""

    by_role: Mapping[Role, bytes] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        """Whether any is set."""
        return bool(self.by_role)

    def role_of(self, authorization: str | None) -> Role | None:
        """Return the role of an `Authorization` header's token, None where it is nobody's. How long that takes tells
        nothing of the tokens."""
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = None
        for role, token in self.by_role.items():
            if hmac.compare_digest(token, given.strip().encode()):
                found = role
        return found


def read_tokens(settings: ApiSettings) -> Tokens:
    """Return the tokens that are set, those in files read. Raises `ConfigError`, which shows none."""
    given = {
        Role.VIEWER: (settings.viewer_token, settings.viewer_token_file),
        Role.PUBLISHER: (settings.publisher_token, settings.publisher_token_file),
        Role.ADMIN: (settings.admin_token, settings.admin_token_file),
    }
    found: dict[Role, bytes] = {}
    for role, (secret, file) in given.items():
        if secret is None and file is None:
            continue
        key = f"api.{role}_token" + ("_file" if file is not None else "")
        token = read_secret(key, file) if file is not None else secret.get_secret_value() if secret else ""
        if not TOKEN.fullmatch(token):
            raise ConfigError(
                f"{key}: a token has {SHORTEST_TOKEN} to 512 letters, digits and -._~+/: "
                "`openssl rand -hex 32` makes one"
            )
        if token.encode() in found.values():
            raise ConfigError(f"{key}: this is the token of another role, too: every role needs its own")
        found[role] = token.encode()
    return Tokens(found)


class Guard:
    """Lets requests through to the application, or answers 401 or 403 before anything of their body is read."""

    def __init__(self, app: ASGIApp, tokens: Callable[[], Tokens]) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        method, headers, tokens = scope["method"], Headers(scope=scope), self._tokens()
        if not tokens:
            host = headers.get("host")
            if host is not None and not is_loopback(_named(f"//{host}")):
                return _refuse(
                    403, "without tokens (api.admin_token) this answers as localhost, or by its address"
                )
            if method not in READING and from_elsewhere(headers):
                return _refuse(403, "a page of another site in a browser may change nothing here")
            return None
        roles = allowed(method, scope["path"])
        if roles is None:
            return None
        authorization = headers.get("authorization")
        role = tokens.role_of(authorization)
        if role is None:
            challenge = 'Bearer realm="scalesim"'
            if authorization is None:
                return _refuse(401, "say who you are: Authorization: Bearer TOKEN", challenge)
            return _refuse(401, "no role has this token", f'{challenge}, error="invalid_token"')
        if role not in roles:
            needed = " or ".join(sorted(roles))
            return _refuse(403, f"a {role}'s token may not do that: it takes one of {needed}")
        return None


def may_read(tokens: Tokens, authorization: str | None) -> bool:
    """Whether whoever asks may see what viewers see."""
    return not tokens or tokens.role_of(authorization) in (Role.VIEWER, Role.ADMIN)


def from_elsewhere(headers: Headers) -> bool:
    """Whether a browser sends this for a page that is not ours: it says so, or whose page it is."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and not is_loopback(_named(origin))


def _named(url: str) -> str:
    """Return the host that a URL names, nothing where it is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _refuse(status: int, why: str, challenge: str | None = None) -> JSONResponse:
    headers = {} if challenge is None else {"WWW-Authenticate": challenge}
    return JSONResponse({"detail": why}, status, headers)
