"""What many commands have in common: the options by which a daemon is found, and those of what is printed."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from scalesim_daemon.ctl.client import DEFAULT_URL, INTERRUPTED, TOKEN_VARIABLE, Daemon, Failure, read_token
from scalesim_daemon.ctl.completion import complete_agent
from scalesim_daemon.ctl.formats import Format, Shown, show, show_again_and_again, tell

WATCH = "--watch"
WATCH_SECONDS = "2"
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")

Url = Annotated[str, typer.Option("--url", envvar="SCALESIM_URL", help="Where the daemon's API listens.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help=f"A file that holds the bearer token; without it {TOKEN_VARIABLE} is the token. On the command line a "
        "token would show to everybody on this host, and stay in the shell's history.",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the answer.")]
Watch = Annotated[
    float | None,
    typer.Option(
        WATCH,
        metavar="SECONDS",
        min=0.1,
        help=f"Ask again and again, every {WATCH_SECONDS} seconds where none are given.",
    ),
]
AgentArgument = Annotated[
    str,
    typer.Argument(metavar="AGENT", help="The agent, as SIMULATION/AGENT.", autocompletion=complete_agent),
]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]
Offset = Annotated[int, typer.Option(min=0, help="How many to leave out before.")]

# A daemon and the command's own options.
Ask = Callable[..., Coroutine[Any, Any, Shown]]


class Watching(TyperCommand):
    """A command whose `--watch` may stand without its seconds."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write the seconds of a bare `--watch` out, and go on as ever."""
        return super().parse_args(ctx, with_seconds(args))


def with_seconds(args: list[str]) -> list[str]:
    """Return the arguments, `WATCH_SECONDS` after a `--watch` that no number follows."""
    written: list[str] = []
    for position, argument in enumerate(args):
        if argument == "--":
            return written + args[position:]
        written.append(argument)
        following = args[position + 1] if position + 1 < len(args) else ""
        if argument == WATCH and not re.fullmatch(r"-?[\d.]+", following):
            written.append(WATCH_SECONDS)
    return written


def reading(ask: Ask) -> Callable[..., None]:
    """Make a command of what asks a daemon and changes nothing: it can be watched."""

    def run(
        url: Url = DEFAULT_URL,
        token_file: TokenFile = None,
        how: FormatOption = Format.TABLE,
        watch: Watch = None,
        **own: Any,
    ) -> None:
        async def main() -> None:
            async with Daemon(url, read_token(token_file)) as daemon:
                if watch is not None:
                    await show_again_and_again(lambda: ask(daemon, **own), how, watch)
                _end(await ask(daemon, **own), how)

        with ending():
            asyncio.run(main())

    return _with_options(run, ask)


def steering(ask: Ask) -> Callable[..., None]:
    """Make a command of what has a daemon do something."""

    def run(
        url: Url = DEFAULT_URL,
        token_file: TokenFile = None,
        how: FormatOption = Format.TABLE,
        **own: Any,
    ) -> None:
        async def main() -> None:
            async with Daemon(url, read_token(token_file)) as daemon:
                _end(await ask(daemon, **own), how)

        with ending():
            asyncio.run(main())

    return _with_options(run, ask)


@contextmanager
def ending() -> Iterator[None]:
    """End a command with its exit status where it fails or is interrupted."""
    try:
        yield
    except Failure as failure:
        tell(failure)
        raise typer.Exit(failure.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def duration(text: str | float) -> float:
    """Return the seconds of `90`, `90s`, `10m`, `1h30m` or `2d`. Raises `typer.BadParameter`."""
    if not re.fullmatch(f"(?:{DURATION.pattern})+", str(text)):
        raise typer.BadParameter(f"{text!r}: write a time as 90s, 10m, 1h30m or 2d")
    parts = DURATION.findall(str(text))
    try:
        return sum(timedelta(**{UNITS[unit or "s"]: float(amount)}).total_seconds() for amount, unit in parts)
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long") from None


def agent_key(text: str) -> str:
    """Return an agent's key. Raises `typer.BadParameter` where it is none."""
    simulation, separator, name = text.partition("/")
    if not (simulation and separator and name):
        raise typer.BadParameter(f"{text!r}: write SIMULATION/AGENT, as `scalesimctl agents` shows it")
    return text


def _end(shown: Shown, how: Format) -> None:
    show(shown, how)
    if shown.code:
        raise typer.Exit(shown.code)


def _with_options(run: Callable[..., None], ask: Ask) -> Callable[..., None]:
    """Give `run` the name, the text and the parameters of `ask` before its own: typer reads options off a function."""
    own = list(inspect.signature(ask, eval_str=True).parameters.values())[1:]
    common = inspect.signature(run, eval_str=True).parameters.values()
    parameters = own + [one for one in common if one.kind is not one.VAR_KEYWORD]
    run.__name__, run.__doc__ = ask.__name__, ask.__doc__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run
