"""Pure estimators of invocation distance."""

from scalesim_client.events import ClockKind
from scalesim_estimators.base import Estimate, Estimator
from scalesim_estimators.blend import Blend
from scalesim_estimators.declared import DeclaredEstimator
from scalesim_estimators.foretold import Foretold
from scalesim_estimators.history import HistoryEstimator
from scalesim_estimators.interaction import InteractionEstimator
from scalesim_estimators.path import PathEstimator
from scalesim_estimators.quality import Quality
from scalesim_estimators.score import Figures
from scalesim_estimators.single import ActivityEstimator, WokenEstimator

__all__ = [
    "ActivityEstimator",
    "Blend",
    "DeclaredEstimator",
    "Estimate",
    "Estimator",
    "Figures",
    "Foretold",
    "HistoryEstimator",
    "InteractionEstimator",
    "PathEstimator",
    "Quality",
    "WokenEstimator",
    "default_estimators",
]


def default_estimators(clock: ClockKind = "step", earlier: Blend | None = None) -> Blend:
    """Return a blend of fresh estimators for one stream with such a clock.

    Where the stream says anew what it said, `earlier` is its blend so far: what that has learned goes on.
    """
    told = (
        WokenEstimator(),
        DeclaredEstimator(),
        ActivityEstimator(),
        InteractionEstimator(),
        PathEstimator(),
    )
    if earlier is None:
        return Blend(told, HistoryEstimator(clock))
    return Blend(told, earlier.history, earlier.quality)
