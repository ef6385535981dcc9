from __future__ import annotations

import pytest

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.loadtimes import LoadTime
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.view import EngineView


def test_the_time_of_a_load_is_learned_from_loads() -> None:
    time = LoadTime(0.5, 100, 1.0)
    assert time.of(200) == 2.5 and time.of(0) == 0.5
    for _ in range(40):
        time.learn(10, 1.0)
        time.learn(0, 9.0)
    assert time.of(10) == pytest.approx(1.0, rel=0.01)
    assert time.of(40) == pytest.approx(2.5, rel=0.01)
    time.learn(10, 0.1)
    assert 0.5 <= time.of(10) < 1.0


def test_a_view_tells_loads_of_different_kinds_apart() -> None:
    view = EngineView("engine", quiet_share=0.0)

    def step(action: Action, kind: MemoryKind) -> Step:
        return Step(action, kind, "x", 0, 4, 1.0, "a test", bytes=1 << 30)

    wake, stage = step(Action.WAKE, MemoryKind.MODEL), step(Action.STAGE, MemoryKind.LORA)
    load = step(Action.LOAD, MemoryKind.PREFIX_KV)
    before = view.foreseen(stage), view.foreseen(load)
    for _ in range(40):
        view.took(wake, 4.0)
    assert view.foreseen(wake) == pytest.approx(4.0, rel=0.01)
    assert (view.foreseen(stage), view.foreseen(load)) == before
    assert min(before) > 0
    touch = step(Action.TOUCH, MemoryKind.PREFIX_KV)
    view.took(touch, 9.0)
    assert view.foreseen(touch) == 0.0 and view.foreseen(load) == before[1]
