from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from socket import create_connection

import zmq

from scalesim_client.codec import encode, pack_frames
from scalesim_client.events import ActivityStarted, Event, StreamOpened
from scalesim_daemon.feed import MOST_WAITING, Feed
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.settings import LoraSettings, RunMode, Settings

MESSAGES = 3000
WITHIN = 20.0
SENDS_AGAIN, ASKS_FOR_LIFE = "01", "02"


async def turns_of_others(feed: Feed, sidecar: Sidecar) -> int:
    """Return how many turns somebody else has had by the time that all is taken in."""
    task, turns = asyncio.create_task(feed.run()), 0
    async with asyncio.timeout(WITHIN):
        while sidecar.counts["messages"] < MESSAGES:
            # Only turns in which something was taken in count.
            before = sidecar.counts["messages"]
            await asyncio.sleep(0)
            turns += sidecar.counts["messages"] > before
    task.cancel()
    await asyncio.wait([task])
    return turns


def test_others_have_their_turn_while_a_flood_comes_in(tmp_path: Path) -> None:
    """What waits is taken in many messages at a time, and not all at once."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.connect(f"ipc://{tmp_path}/feed")
    opened = StreamOpened(simulation="s", source="s", incarnation=1, clock="step")
    events: list[Event] = [opened, *(ActivityStarted(agent=f"a{n}", for_=n) for n in range(1, MESSAGES))]
    for seq, event in enumerate(events):
        socket.send_multipart(pack_frames("s", seq, encode(0.0, [event])))
    sidecar = _sidecar(tmp_path)
    feed = Feed(sidecar, f"ipc://{tmp_path}/feed", ())
    try:
        turns = asyncio.run(turns_of_others(feed, sidecar))
        assert 3 < turns < MESSAGES / 3
        assert len(sidecar.population.board) == MESSAGES - 1
        assert socket.poll(5000)
    finally:
        feed.close()
        sidecar.library.close()
        context.destroy(linger=0)


def test_what_waits_of_one_connection_is_its_sender_s_memory(tmp_path: Path) -> None:
    context, sidecar = zmq.Context(), _sidecar(tmp_path)
    feed = Feed(sidecar, f"ipc://{tmp_path}/feed", ())
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, 1)
    socket.setsockopt(zmq.SNDTIMEO, 500)
    socket.connect(feed.address)
    try:
        sent = 0
        with suppress(zmq.Again):
            # As nobody takes them in: the loop may have other things to do.
            while sent < 1000:
                socket.send_multipart(pack_frames("s", sent, bytes(1 << 20)))
                sent += 1
        # What the operating system and both ends hold on their way comes on top.
        assert MOST_WAITING <= sent < MOST_WAITING + 16
    finally:
        feed.close()
        sidecar.library.close()
        context.destroy(linger=0)


def test_a_host_that_is_gone_is_asked_for(tmp_path: Path) -> None:
    """What it leaves behind without a word would stay open."""
    sidecar = _sidecar(tmp_path)
    feed = Feed(sidecar, "tcp://127.0.0.1:*", ())
    try:
        with create_connection(("127.0.0.1", int(feed.address.rpartition(":")[2]))) as connection:
            # The daemon's greeting: it has taken the connection.
            assert connection.recv(1)
            mine = f"0100007F:{connection.getsockname()[1]:04X}"
            while (timer := _timer_to(mine)) == SENDS_AGAIN:
                pass
            assert timer == ASKS_FOR_LIFE
    finally:
        feed.close()
        sidecar.library.close()


def _timer_to(remote: str) -> str:
    """Return what the kernel waits for on the connection to an address, by its number: proc_net_tcp.txt."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()]
    (timer,) = [row[5].partition(":")[0] for row in rows if row[2] == remote]
    return timer


def _sidecar(folder: Path) -> Sidecar:
    loras = LoraSettings(links_dir=folder / "links", staging_dir=folder / "staging")
    return Sidecar(Settings(loras=loras), LoraLibrary.open(loras), None, RunMode.OBSERVE)
