"""`scalesimd replay`.

Exit status: 0 all was sent, 1 the file is damaged (what came before was sent) or a request failed, 2 wrong usage, no
recording, or nobody takes it, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from scalesim_daemon.recording.format import BadRecording, read_header, read_records
from scalesim_daemon.recording.replay import Tally, replay
from scalesim_daemon.recording.targets import ApiTarget, EngineTarget, FeedTarget, Unreachable

NO = 1
FAILED = 2
INTERRUPTED = 130
SHOWN = 5
FEED = "tcp://127.0.0.1:5600"


def send_again(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `scalesimd record` wrote.")],
    speed: Annotated[
        float,
        typer.Option(help="Times the recorded pace; 0 sends as fast as it is taken."),
    ] = 1.0,
    to: Annotated[
        str,
        typer.Option(
            help="A daemon's feed, as tcp://host:port or ipc://path, or its API, as http://host:port."
        ),
    ] = FEED,
    engine: Annotated[
        str | None, typer.Option(help="URL of an engine or a gateway: the recorded requests go there too.")
    ] = None,
) -> None:
    """Send a recording to a daemon, as it came in."""
    if not (math.isfinite(speed) and speed >= 0):
        raise typer.BadParameter("write a finite number that is not negative", param_hint="--speed")
    tally = Tally()
    code = 0
    try:
        with file.open("rb") as opened:
            refused, failed = asyncio.run(_replay(opened, file.stat().st_size, speed, to, engine, tally))
        _tell(refused, "not taken")
        _tell(failed, "failed")
        code = NO if failed else 0
    except OSError as error:
        code = _fail(FAILED, f"{file}: {error.strerror}")
    except Unreachable as error:
        code = _fail(FAILED, str(error))
    except BadRecording as error:
        code = _fail(NO if error.offset else FAILED, f"{file}: {error}")
    except KeyboardInterrupt:
        code = _fail(INTERRUPTED, "interrupted")
    if tally.messages or tally.requests or not code:
        typer.echo(_summary(tally, engine))
    if code:
        raise typer.Exit(code)


async def _replay(
    file: BinaryIO, size: int, speed: float, to: str, engine: str | None, tally: Tally
) -> tuple[list[str], list[str]]:
    """Return what the daemon did not take, and which requests failed."""
    header, offset = read_header(file)
    target = ApiTarget(to) if to.startswith(("http://", "https://")) else FeedTarget(to)
    async with AsyncExitStack() as stack:
        requests = None if engine is None else await stack.enter_async_context(EngineTarget(engine))
        with _progress(size) as read:
            await replay(
                read_records(file, offset),
                offset=offset,
                content=header.content,
                speed=speed,
                target=target,
                engine=requests,
                tally=tally,
                read=read,
            )
    return target.refused, [] if requests is None else requests.failed


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far it is; yields what is to be told the offset that was reached."""
    console = Console(stderr=True)
    columns = (TextColumn("replay"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=size or None)
        yield lambda offset: progress.update(task, completed=offset)


def _summary(tally: Tally, engine: str | None) -> str:
    text = (
        f"{tally.messages} messages with {tally.events} events of {len(tally.sources)} sources "
        f"in {tally.seconds:.1f} s"
    )
    if tally.requests:
        text += f"; {tally.requests} requests" + ("" if engine else ", not sent: name an --engine")
    if tally.end is None:
        text += "; the recording has no end: the daemon still recorded, or crashed"
    if tally.end == "full":
        text += "; the recording ends where its file was full"
    return text


def _tell(problems: list[str], what: str) -> None:
    for problem in problems[:SHOWN]:
        typer.echo(f"scalesimd: {what}: {problem}", err=True)
    if len(problems) > SHOWN:
        typer.echo(f"scalesimd: {what}: {len(problems) - SHOWN} more", err=True)


def _fail(code: int, problem: str) -> int:
    typer.echo(f"scalesimd: {problem}", err=True)
    return code
