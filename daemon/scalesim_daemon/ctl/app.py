"""All commands of `scalesimctl`.

Exit status: 0 all right, 1 the answer is no (not ready, not known, refused, no engine, an operation that came to
nothing), 2 wrong usage or nobody answers, 130 interrupted.
"""

from __future__ import annotations

import typer

from scalesim_daemon.ctl import reading, steering
from scalesim_daemon.ctl.doctoring import doctor
from scalesim_daemon.ctl.events import events
from scalesim_daemon.ctl.options import Watching
from scalesim_daemon.ctl.top.command import top

ASK, STEER = "Ask", "Steer"
EPILOG = (
    "Exit status: 0 all right, 1 the answer is no, 2 wrong usage or nobody answers, 130 interrupted. SCALESIM_URL says "
    "where the daemon listens, SCALESIM_TOKEN is the bearer token where it asks for one."
)

app = typer.Typer(
    name="scalesimctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Ask a running scalesimd what it knows and why it does what it does, and steer it.",
    epilog=EPILOG,
)
config = typer.Typer(no_args_is_help=True, help="The daemon's configuration.")
app.add_typer(config, name="config", rich_help_panel=STEER)

for ask in (
    reading.status,
    reading.agents,
    reading.engines,
    reading.items,
    reading.explain,
    reading.plan,
    reading.decisions,
    reading.estimators,
    reading.pins,
    reading.operations,
):
    app.command(cls=Watching, rich_help_panel=ASK)(ask)
for follow in (events, top, doctor):
    app.command(rich_help_panel=ASK)(follow)
for steer in (
    steering.prefetch,
    steering.evict,
    steering.cancel,
    steering.pin,
    steering.unpin,
    steering.pause,
    steering.resume,
    steering.observe,
):
    app.command(rich_help_panel=STEER)(steer)
config.command("show", cls=Watching)(reading.show_config)
config.command("reload")(steering.reload_config)
