"""Dues on their way from a daemon to a plug-in are dealt out anew."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import msgspec
import zmq

from bench.engine.shuffle import Deck, shuffling
from bench.next_use.voices import await_that
from scalesim_adapters.dues import TOPIC, DueListener, DueMessage

AGENTS = [f"sim/a{number}" for number in range(10)]
CLOCK = "sim"
DUES: dict[str, tuple[str, float] | None] = {agent: (CLOCK, float(n)) for n, agent in enumerate(AGENTS[:8])}


def told(now: float, type_: str = "snapshot", dues: dict[str, tuple[str, float] | None] = DUES) -> DueMessage:
    return msgspec.convert({"type": type_, "clocks": {CLOCK: (now, 1.0)}, "dues": dues}, DueMessage)


def test_all_dues_are_told_each_of_some_agent() -> None:
    deck = Deck(AGENTS, Random(1))
    dealt = [deck.take(told(now)) for now in range(20)]
    for message in dealt:
        assert set(message.dues) == set(AGENTS)
        assert Counter(message.dues.values()) == Counter([*DUES.values(), None, None])
    assert len({tuple(message.dues.items()) for message in dealt}) == 20


def test_within_a_step_only_what_is_new_changes() -> None:
    deck = Deck(AGENTS, Random(1))
    first = deck.take(told(1.0))
    renewed = deck.take(told(1.0, "delta", {AGENTS[0]: (CLOCK, 99.0)}))
    changed = {agent for agent in AGENTS if first.dues[agent] != renewed.dues[agent]}
    assert [first.dues[agent] for agent in changed] == [(CLOCK, 0.0)]
    assert [renewed.dues[agent] for agent in changed] == [(CLOCK, 99.0)]


def test_a_plugin_hears_them_as_from_a_daemon(tmp_path: Path) -> None:
    source, target = f"ipc://{tmp_path}/source", f"ipc://{tmp_path}/target"
    context = zmq.Context()
    daemon = context.socket(zmq.XPUB)
    daemon.bind(source)
    try:
        with closing(DueListener(target)) as listener, shuffling(source, target, AGENTS, 1):
            assert daemon.recv() == b"\x01" + TOPIC
            numbers = iter(range(1, 1000))

            def heard() -> bool:
                frames = [TOPIC, next(numbers).to_bytes(8, "big"), msgspec.msgpack.encode(told(time.time()))]
                daemon.send_multipart(frames)
                return len(listener.table) == len(DUES)

            await_that(heard)
    finally:
        context.destroy(linger=0)
