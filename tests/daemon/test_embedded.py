"""The embedded Valkey: private, gone with the daemon however that ends, and with the pins there after."""

from __future__ import annotations

import asyncio
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesim_daemon import embedded
from scalesim_daemon.embedded import EmbeddedError, EmbeddedValkey
from scalesim_daemon.intents import Intents
from tests.daemon.stores import answering, client, ends, kill_and_wait

# A process that runs an embedded Valkey, pins an agent, tells the server's process id and waits.
DAEMON = """
import asyncio, sys
from pathlib import Path
from scalesim_daemon.embedded import EmbeddedValkey
from scalesim_daemon.intents import Intents

async def main():
    valkey = EmbeddedValkey(Path(sys.argv[1]))
    await valkey.start()
    intents = Intents(valkey.url)
    await intents.pin("s/a", 4e9)
    await intents.close()
    print(valkey.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ss-") as directory:
        yield Path(directory) / "valkey"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def pins(valkey: EmbeddedValkey) -> dict[str, float]:
    intents = Intents(valkey.url)
    try:
        return await intents.pins()
    finally:
        await intents.close()


def test_it_starts_and_stops_and_keeps_pins(data_dir: Path) -> None:
    async def first() -> int:
        valkey = EmbeddedValkey(data_dir)
        await valkey.start()
        assert valkey.pid is not None
        intents = Intents(valkey.url)
        await intents.pin("s/a", 4e9)
        assert await intents.eviction_warning() is None
        await intents.close()
        pid = valkey.pid
        await valkey.stop()
        return pid

    async def second() -> dict[str, float]:
        valkey = EmbeddedValkey(data_dir)
        await valkey.start()
        try:
            return await pins(valkey)
        finally:
            await valkey.stop()

    assert ends(asyncio.run(first()), 0)
    assert asyncio.run(second()) == {"s/a": 4e9}


def test_nobody_else_can_reach_it(data_dir: Path) -> None:
    async def body() -> None:
        valkey = EmbeddedValkey(data_dir)
        await valkey.start()
        try:
            assert [mode_of(data_dir), mode_of(data_dir / "valkey.sock")] == [0o700, 0o700]
            async with client(valkey.url) as redis:
                assert (await redis.config_get("port"))["port"] == "0"
        finally:
            await valkey.stop()

    asyncio.run(body())


def test_it_ends_with_a_daemon_that_is_killed_and_the_next_one_has_the_pins(data_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(data_dir)], stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        assert not ends(pid, 0)
        daemon.send_signal(signal.SIGKILL)

    async def next_daemon() -> dict[str, float]:
        valkey = EmbeddedValkey(data_dir)
        await valkey.start()
        try:
            assert valkey.pid != pid
            return await pins(valkey)
        finally:
            await valkey.stop()

    # At once, while the old server may still be saving: the new one waits for it.
    assert asyncio.run(next_daemon()) == {"s/a": 4e9}
    assert ends(pid, 10)


def test_it_ends_with_a_daemon_that_is_killed_even_where_it_cannot_save(data_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(data_dir)], stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        shutil.rmtree(data_dir)
        daemon.send_signal(signal.SIGKILL)
    assert ends(pid, 10)


def test_it_can_be_stopped_at_any_moment_of_its_restart(data_dir: Path) -> None:
    async def body(steps: int) -> int:
        valkey = EmbeddedValkey(data_dir)
        await valkey.start()
        assert valkey.pid is not None
        kill_and_wait(valkey.pid)
        for _ in range(steps):
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await valkey.stop()
        return valkey.pid

    for steps in (0, 3, 10, 100, 1000):
        assert ends(asyncio.run(body(steps)), 0)


def test_it_is_started_again_when_it_dies(data_dir: Path) -> None:
    async def body() -> None:
        valkey = EmbeddedValkey(data_dir)
        await valkey.start()
        try:
            for _ in range(2):
                async with client(valkey.url) as redis:
                    before = (await redis.info("server"))["run_id"]
                assert valkey.pid is not None
                kill_and_wait(valkey.pid)
                await answering(valkey.url)
                async with client(valkey.url) as redis:
                    assert (await redis.info("server"))["run_id"] != before
        finally:
            await valkey.stop()

    asyncio.run(body())


def test_a_directory_in_use_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        valkey = EmbeddedValkey(data_dir)
        await valkey.start()
        try:
            with pytest.raises(EmbeddedError, match=r"in use by another process: set redis\.data_dir"):
                await EmbeddedValkey(data_dir).start()
            await answering(valkey.url)
        finally:
            await valkey.stop()

    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.1)
    asyncio.run(body())


def test_a_path_that_no_socket_can_have_is_refused(data_dir: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"set redis\.data_dir to a shorter path"):
        asyncio.run(EmbeddedValkey(data_dir / ("x" * 100)).start())


def test_data_that_it_cannot_read_is_an_error_that_names_the_log(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "dump.rdb").write_bytes(b"this is no snapshot")
    valkey = EmbeddedValkey(data_dir)
    with pytest.raises(EmbeddedError, match=r"does not start: see .*/valkey\.log"):
        asyncio.run(valkey.start())
    assert "loading the DB" in (data_dir / "valkey.log").read_text()
