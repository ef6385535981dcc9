"""An emulated engine to start, stop, kill and restart."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType

import msgspec

from scalesim_adapters.emulator.config import EmulatorConfig
from scalesim_adapters.emulator.faults import CONTROL, Fault
from scalesim_adapters.emulator.incarnation import End, Incarnation

WITHIN = 10.0
"""Seconds to start, to end, and for a control call."""


class EmulatorServer:
    """An emulated engine in a thread of its own, on the loopback interface, at a port that stays the same.

    As a context manager it starts on entry and stops on exit. Ends as a process would: `kill` drops
    connections at once, `stop` lets answers go out first.
    """

    def __init__(self, config: EmulatorConfig | None = None, *, port: int = 0) -> None:
        self.config = config or EmulatorConfig()
        self.port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._incarnation: Incarnation | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Base URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> EmulatorServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers. Raises `OSError` where the port or an endpoint can't be had."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, args=[ready], name="emulator", daemon=True)
        self._thread.start()
        ready.result(WITHIN)

    async def serve(self, ready: Callable[[], None]) -> None:
        """Serve on the running loop, one incarnation after another, until one ends for good.

        `ready` is called when the first one listens. Raises `OSError` where the port or an endpoint can't be
        had.
        """
        self._loop = asyncio.get_running_loop()
        how = End.RESTART
        while how is End.RESTART:
            self._incarnation = Incarnation(self.config, self.port)
            self.port = self._incarnation.port
            ready()
            how = await self._incarnation.run()

    def stop(self) -> None:
        """End after the answers that are under way, and wait. Harmless where nothing runs."""
        self._end(End.STOP)

    def kill(self) -> None:
        """End at once, as a crash would, and wait. Harmless where nothing runs."""
        self._end(End.KILL)

    def restart(self) -> None:
        """Stop, then start at the same port."""
        self.stop()
        self.start()

    def inject(self, fault: Fault) -> None:
        """Let a fault happen. Raises `urllib.error.HTTPError` where it is refused."""
        self._control("POST", msgspec.json.encode(fault))

    def heal(self) -> None:
        """Let no more faults happen and no steps be held back."""
        self._control("DELETE", None)

    def _main(self, ready: Future[None]) -> None:
        try:
            asyncio.run(self.serve(lambda: None if ready.done() else ready.set_result(None)))
        except OSError as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def _control(self, method: str, body: bytes | None) -> None:
        request = urllib.request.Request(f"{self.url}{CONTROL}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=WITHIN):  # nosec B310  # its own URL
            pass

    def _end(self, how: End) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if thread.is_alive() and self._loop and self._incarnation:
            # The loop may close by itself in between.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._incarnation.end, how)
        thread.join(WITHIN)
