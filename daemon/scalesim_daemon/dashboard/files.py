"""The dashboard's files as browsers get them: of a known type, asked for again only when they have changed, and with a
policy under which a page runs nothing and reaches nothing but what this daemon serves."""

from __future__ import annotations

import os
from pathlib import PurePath

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PACKAGE = "scalesim_daemon.dashboard"
PAGE = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
PLAIN = "text/plain; charset=utf-8"
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class DashboardFiles(StaticFiles):
    """The files in this package's `assets`, by their path there."""

    def __init__(self) -> None:
        super().__init__(packages=[(PACKAGE, "assets")])

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return the file, or that it is as it was."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        if response.status_code != 304:
            response.headers["Content-Type"] = TYPES.get(PurePath(full_path).suffix, PLAIN)
        return response
