"""Pure estimators of invocation distance."""

from scalesim_client.events import ClockKind
from scalesim_estimators.base import Estimate, Estimator
from scalesim_estimators.blend import Blend
from scalesim_estimators.calendar import Calendar, day_of
from scalesim_estimators.declared import DeclaredEstimator
from scalesim_estimators.foretold import Foretold
from scalesim_estimators.history import HistoryEstimator
from scalesim_estimators.interaction import InteractionEstimator
from scalesim_estimators.path import PathEstimator
from scalesim_estimators.quality import Quality
from scalesim_estimators.roster import Roster
from scalesim_estimators.score import Figures
from scalesim_estimators.single import ActivityEstimator, WokenEstimator

__all__ = [
    "ActivityEstimator",
    "Blend",
    "Calendar",
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
    "day_of",
    "default_estimators",
]


def default_estimators(clock: ClockKind = "step", earlier: Blend | None = None) -> Blend:
    """Return a blend of fresh estimators for one stream with such a clock.

    Where the stream says anew what it said, `earlier` is its blend so far: what that has learned goes on, and which
    ways it has compared. `all_said` tells that all of it is said.
    """
    agents = Roster() if earlier is None else earlier.history.agents
    whole = clock == "step"
    meetings = None if earlier is None else earlier.say_anew()
    told = (
        WokenEstimator(whole=whole),
        DeclaredEstimator(),
        ActivityEstimator(whole=whole),
        meetings or InteractionEstimator(agents=agents),
        PathEstimator(agents),
    )
    if earlier is None:
        return Blend(told, HistoryEstimator(clock, agents))
    return Blend(told, earlier.history, earlier.quality)
