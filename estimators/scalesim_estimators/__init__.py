"""Pure estimators of invocation distance."""

from scalesim_estimators.base import Estimate, Estimator
from scalesim_estimators.blend import Blend
from scalesim_estimators.declared import DeclaredEstimator
from scalesim_estimators.interaction import InteractionEstimator
from scalesim_estimators.path import PathEstimator
from scalesim_estimators.quality import OrderScore
from scalesim_estimators.single import ActivityEstimator, WokenEstimator

__all__ = [
    "ActivityEstimator",
    "Blend",
    "DeclaredEstimator",
    "Estimate",
    "Estimator",
    "InteractionEstimator",
    "OrderScore",
    "PathEstimator",
    "WokenEstimator",
    "default_estimators",
]


def default_estimators() -> Blend:
    """Return a blend of fresh estimators for one stream, all admitted."""
    return Blend(
        (
            WokenEstimator(),
            DeclaredEstimator(),
            ActivityEstimator(),
            InteractionEstimator(),
            PathEstimator(),
        )
    )
