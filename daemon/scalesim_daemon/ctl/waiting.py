"""Operations from the order to the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.admin.models import OperationState
from scalesim_daemon.admin.operations import State
from scalesim_daemon.ctl.client import Daemon, Failure
from scalesim_daemon.ctl.formats import error_console
from scalesim_daemon.ctl.views.steering import operation_words
from scalesim_daemon.ctl.views.texts import line

POLL_SECONDS = 0.2


async def order(
    daemon: Daemon, what: str, kind: MemoryKind, key: str, engine: str | None, within: float
) -> OperationState:
    """Ask to `prefetch` or to `evict` an item within so many seconds."""
    body = {"kind": kind.value, "key": key, "engine": engine, "within": within}
    return await daemon.ask(f"/v1/{what}", OperationState, method="POST", body=body)


async def states(daemon: Daemon, operation: OperationState) -> AsyncIterator[OperationState]:
    """Yield how far an operation is, until it is over."""
    yield operation
    while operation.ended_at is None:
        await asyncio.sleep(POLL_SECONDS)
        operation = await daemon.ask(f"/v1/operations/{operation.id}", OperationState)
        yield operation


@contextmanager
def naming_what_goes_on(operations: Iterable[OperationState]) -> Iterator[None]:
    """Where a command fails or is interrupted, name those of the operations that go on without it."""
    try:
        yield
    except (asyncio.CancelledError, Failure):
        for one in operations:
            if one.ended_at is None:
                error_console().print(line(_goes_on(one)), soft_wrap=True)
        raise


async def all_over(daemon: Daemon, operations: Sequence[OperationState]) -> list[OperationState]:
    """Show how far operations are until all are over. Where the waiting ends before, those that go on are named."""
    latest = {one.id: one for one in operations}
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    progress = Progress(*columns, console=error_console(), transient=True, disable=not sys.stderr.isatty())

    async def follow(operation: OperationState) -> None:
        task = progress.add_task("", total=None)
        async for state in states(daemon, operation):
            latest[state.id] = state
            progress.update(task, description=line(operation_words(state)).plain)

    with naming_what_goes_on(latest.values()), progress:
        await asyncio.gather(*map(follow, operations))
    return list(latest.values())


def came_to_something(operation: OperationState) -> bool:
    """Whether what was asked for is done."""
    return operation.state is State.DONE


def _goes_on(operation: OperationState) -> str:
    return (
        f"{operation.id} goes on ({operation_words(operation)}): `scalesimctl operations {operation.id}` shows it, "
        f"`scalesimctl cancel {operation.id}` gives it up"
    )
