"""`scalesimctl doctor`: what an engine lets the sidecar do."""

from __future__ import annotations

import asyncio

import typer

from scalesim_daemon.ctl.client import FAILED, NO
from scalesim_daemon.ctl.formats import Format, Shown, show
from scalesim_daemon.ctl.options import FormatOption, ending
from scalesim_daemon.ctl.views.doctor import diagnosis
from scalesim_daemon.doctor import UnusableUrl, examine
from scalesim_daemon.engine_options import ApiKeyFile, EngineUrl
from scalesim_daemon.settings import ConfigError


def doctor(
    engine: EngineUrl,
    api_key_file: ApiKeyFile = None,
    how: FormatOption = Format.TABLE,
) -> None:
    """What an engine lets the sidecar do, and the flag or variable for what is missing. Needs no daemon."""
    try:
        with ending():
            found = asyncio.run(examine(engine, api_key_file))
    except (UnusableUrl, ConfigError) as error:
        raise typer.BadParameter(str(error)) from None
    show(Shown(found.to_json(), diagnosis(found)), how)
    if found.info is None:
        raise typer.Exit(NO if found.answered else FAILED)
