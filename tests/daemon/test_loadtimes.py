from __future__ import annotations

import pytest

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.loadtimes import LoadTime
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.view import EngineView


def test_the_time_of_a_load_is_learned_from_loads() -> None:
    time = LoadTime(0.5, 100, 1.0)
    assert time.of(200) == 2.5 and time.of(0) == 0.5
    for _ in range(2):
        time.learn(10, 1.0)
        time.learn(0, 9.0)
    assert time.of(10) == pytest.approx(1.0)
    assert time.of(40) == pytest.approx(2.5)


def test_a_load_that_was_held_up_teaches_nothing() -> None:
    time = LoadTime(0.0, 256, 0.1)
    time.learn(256, 60.0)
    assert time.of(256) == pytest.approx(0.1)
    time.learn(256, 0.2)
    assert time.of(256) == pytest.approx(0.2)


def test_a_view_tells_loads_of_different_kinds_apart() -> None:
    view = EngineView("engine", quiet_share=0.0)

    def step(action: Action, kind: MemoryKind) -> Step:
        return Step(action, kind, "x", 0, 4, 1.0, "a test", bytes=1 << 30)

    wake, stage = step(Action.WAKE, MemoryKind.MODEL), step(Action.STAGE, MemoryKind.LORA)
    load = step(Action.LOAD, MemoryKind.PREFIX_KV)
    before = view.takes(stage), view.takes(load)
    for _ in range(40):
        view.took(wake, 4.0)
    assert view.takes(wake) == pytest.approx(4.0, rel=0.01)
    assert (view.takes(stage), view.takes(load)) == before
    assert min(before) > 0
    touch = step(Action.TOUCH, MemoryKind.PREFIX_KV)
    view.took(touch, 9.0)
    assert view.takes(touch) == 0.0 and view.takes(load) == before[1]
