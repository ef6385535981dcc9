"""What the pages tell their readers to type, typed: an emulated engine, real daemons, the pages' own simulations."""

from __future__ import annotations

import shutil

import pytest

from tests.docs.blocks import of_scene
from tests.docs.reader import Reader

TOOLS = [tool for tool in ("bash", "curl", "openssl") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.skipif(bool(TOOLS), reason=f"not installed: {', '.join(TOOLS)}"),
    # A dozen processes are started one after the other.
    pytest.mark.timeout(180),
]


def test_a_newcomer_sees_memory_moved() -> None:
    with Reader() as reader:
        reader.follow(of_scene("start"))
        reader.wait(lambda: reader.ask("/v1/report")["prefetches_used"] > 0)
        agents = reader.ask("/v1/agents")["agents"]
    places = [place for agent in agents for place in agent["engines"].values()]
    assert any(place["resident_blocks"] == place["blocks"] > 0 for place in places)


def test_an_instrumented_simulation_is_heard_and_steered() -> None:
    engine = next(block for block in of_scene("start") if block.keeps_running)
    with Reader() as reader:
        reader.keep(engine)
        reader.follow(of_scene("beside"))
        keys = {agent["key"] for agent in reader.ask("/v1/agents")["agents"]}
    assert {"town/rosa", "town/karl", "town/maya", "town/otto", "town/lena", "anonymous/rosa"} <= keys


def test_a_daemon_with_tokens_asks_for_them() -> None:
    with Reader() as reader:
        reader.follow(of_scene("security"))
