"""The variants: an engine, and what the daemon beside it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bench.engine.speech import Speech, foretold, noisy_gap, nothing, own, reversed_gap, true_gap

Place = Literal["alone", "lru", "due", "due-device", "roomy"]
"""An engine: by itself, with a tier of its own LRU policy, with our plug-in and tier, with our plug-in and no tier, or
with a pool for the whole population."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Where it is played, and what the daemon there is told; None is no daemon. Without `prefetch` the daemon doesn't
    know the engine, and only broadcasts dues; these reach the plug-in `shuffled` among the agents, or as they are. Told
    of `calls_only` it hears of no memory either. `unchanged` code tells it nothing at all: it calls its gateway, and
    names its agents as users."""

    place: Place
    speech: Speech | None = None
    prefetch: bool = True
    shuffled: bool = False
    calls_only: bool = False
    unchanged: bool = False


ALONE: Final = "alone"
BOTH: Final = "both"
HOST_LRU: Final = "host_lru"
SHUFFLED: Final = "shuffled"
CEILING: Final = "ceiling"
VARIANTS: Final[dict[str, Variant]] = {
    ALONE: Variant("alone"),
    HOST_LRU: Variant("lru"),
    BOTH: Variant("due", own),
    SHUFFLED: Variant("due", own, shuffled=True),
    "adversarial": Variant("due", foretold(reversed_gap)),
}
FULL: Final[dict[str, Variant]] = {
    **VARIANTS,
    "evict_only": Variant("due", own, prefetch=False),
    "prefetch_only": Variant("lru", own),
    "clairvoyant": Variant("due", foretold(true_gap)),
    "noise_25": Variant("due", foretold(noisy_gap(0.25))),
    "noise_50": Variant("due", foretold(noisy_gap(0.5))),
    "history": Variant("due", nothing, calls_only=True),
    "adversarial_no_tier": Variant("due-device", foretold(reversed_gap)),
    CEILING: Variant("roomy"),
}
