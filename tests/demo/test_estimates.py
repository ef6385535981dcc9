"""What the estimators come to on whole workloads, without an engine: shares of pairs of calls in the right order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.estimates.__main__ import everyone_heard, main, play
from bench.estimates.cycles import Cycles
from bench.workloads.base import Step
from bench.workloads.village import Village
from scalesim_client.events import AgentMoved, Event
from scalesim_estimators import Figures, default_estimators


class Shortsighted(Village):
    """The village, of which is told that people see much farther than they do: most meetings foreseen are false."""

    def __init__(self, seed: int, count: int) -> None:
        super().__init__(seed, count)
        self.opening = tuple(map(self._boast, self.opening))

    def steps(self) -> Iterator[Step]:
        for step in super().steps():
            before, after = (tuple(map(self._boast, events)) for events in (step.before, step.after))
            yield replace(step, before=before, after=after)

    def _boast(self, event: Event) -> Event:
        return replace(event, vision=30.0) if isinstance(event, AgentMoved) and event.vision else event


def share(figures: Figures) -> float:
    return math.nan if figures.order_accuracy is None else figures.order_accuracy


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_village_is_foretold_as_well_as_if_nobody_were_judged(seed: int) -> None:
    blend = default_estimators()
    judged, told = play(Village(seed, 40), blend), play(Village(seed, 40), everyone_heard())
    assert share(judged) >= share(told) > 0.9
    assert judged.recency_accuracy is not None and judged.recency_accuracy < 0.5
    assert blend.quality.admitted == [True] * 5 + [False]


def test_false_meetings_cost_the_interaction_estimator_its_say() -> None:
    blend, steps = default_estimators(), 80
    judged, told = play(Shortsighted(1, steps), blend), play(Shortsighted(1, steps), everyone_heard())
    assert not blend.quality.is_admitted("interaction")
    assert share(judged) > share(told) + 0.02


@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_a_population_that_says_nothing_is_foretold_better_than_by_recency(jitter: float) -> None:
    blend = default_estimators()
    untold = play(Cycles(1, 200, jitter=jitter), blend)
    assert blend.quality.is_admitted("history")
    assert untold.recency_accuracy is not None and share(untold) > untold.recency_accuracy + 0.25


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["estimates", "--seeds", "1", "--steps", "8", "--figures"])
    main()
    printed = capsys.readouterr().out
    assert "village 1, 8 steps" in printed and "cycles, 20% late" in printed and "activity" in printed
