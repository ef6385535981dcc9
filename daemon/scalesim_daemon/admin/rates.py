"""How often one other host may ask: what the API answers is taken from the loop that all else runs on.

This host is trusted with that, as with all that loopback allows; a proxy on it limits whom it lets through itself.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from scalesim_daemon.setting_values import is_loopback

BURST_SECONDS = 2.0
MOST_HOSTS = 10_000
# A supervisor that got no answer would end the daemon.
ALWAYS = frozenset({"/health", "/ready"})


class Rates:
    """Who may ask now: `per_second` requests on average, and at once what two seconds allow. Pure."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._paid_until: OrderedDict[str, float] = OrderedDict()

    def allows(self, host: str, now: float) -> bool:
        """Count a request of a host at `now`, in seconds of any clock; return whether it may be answered."""
        paid_until = max(self._paid_until.pop(host, now), now)
        allowed = paid_until - now < BURST_SECONDS
        self._paid_until[host] = paid_until + self._interval if allowed else paid_until
        if len(self._paid_until) > MOST_HOSTS:
            self._paid_until.popitem(last=False)
        return allowed


class Throttle:
    """Answers 429 to hosts that ask more often than they may, before anything else is done for them."""

    def __init__(self, app: ASGIApp, per_second: float) -> None:
        self._app = app
        self._rates = Rates(per_second)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        host = (scope.get("client") or ("",))[0]
        free = scope["type"] != "http" or scope["path"] in ALWAYS or not host or is_loopback(host)
        if free or self._rates.allows(host, monotonic()):
            await self._app(scope, receive, send)
            return
        why = {
            "detail": f"{host} asks too often: send several events in one message, or raise api.requests_per_second"
        }
        await JSONResponse(why, 429, {"Retry-After": "1"})(scope, receive, send)
