"""How good the estimates were, as people see it. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from scalesim_client.events import ClockKind
from scalesim_daemon.api_models import Accuracy, Estimators, EstimatorState
from scalesim_daemon.population import Population
from scalesim_estimators import Blend, Figures


def estimators(population: Population) -> Estimators:
    """Return how good each estimator of every stream was, and their blend."""
    states = [
        EstimatorState(
            source=source,
            simulation=stream.simulation,
            clock=clock.kind,
            estimator=name,
            admitted=admitted,
            accuracy=Accuracy.model_validate(figures),
        )
        for source, (stream, clock) in population.clocks().items()
        for name, admitted, figures in _by_name(population, source)
    ]
    return Estimators(estimators=states)


def by_clock(population: Population) -> dict[tuple[str, ClockKind], tuple[int, Figures]]:
    """Return, per estimator and kind of clock, how many streams admit it, and its figures over all of these."""
    sums: dict[tuple[str, ClockKind], tuple[int, Figures]] = {}
    for source, (_, clock) in population.clocks().items():
        for name, admitted, figures in _by_name(population, source):
            streams, known = sums.get((name, clock.kind), (0, Figures()))
            sums[name, clock.kind] = streams + admitted, known + figures
    return sums


def order(population: Population) -> Figures:
    """Return the figures of the blends of all streams; only what they say of pairs means something over clocks."""
    return sum((quality.blend_figures() for quality in population.qualities().values()), Figures())


def _by_name(population: Population, source: str) -> Iterator[tuple[str, bool, Figures]]:
    quality = population.qualities()[source]
    for name, figures in quality.figures().items():
        yield name, name == Blend.name or quality.is_admitted(name), figures
