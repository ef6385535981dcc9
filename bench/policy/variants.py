"""What stands beside the engine, and what it is told: the variants of `bench.engine.variants`, and one more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType

from bench.engine import variants as measured
from bench.policy.scenes import Scene
from scalesim_daemon.whatif.run import ALONE, PLUGIN, SIDECAR, Setup
from scalesim_daemon.whatif.workload import Call, Foresight, Lines, Prompt, Workload, announced

# What is said of each agent's first call, of the next ones after each call, and by a script instead.
Told = tuple[tuple[int | None, ...], tuple[tuple[Call, ...], ...], tuple[Lines, ...] | None]
Tells = Callable[[Scene, int], Told]


@dataclass(frozen=True, slots=True)
class Variant:
    """A set-up, whether a host tier for half of the population stands behind the device, and what is said."""

    setup: Setup
    host: bool
    tells: Tells
    everything_fits: bool = False

    def workload(self, scene: Scene, prompt: Prompt, seed: int) -> Workload:
        """Return the scene as this variant's simulation tells it, without pause."""
        opening, steps, script = self.tells(scene, seed)
        told = None if script is None else script[: scene.played]
        workload = Workload(
            scene.agents,
            opening,
            steps[: scene.played],
            prompt,
            0.0,
            scene.warmup,
            script=told,
            strangers=scene.strangers,
        )
        return filled(workload) if self.everything_fits else workload


def filled(workload: Workload) -> Workload:
    """Let everybody call once before the first step, so that all that fits is there; nothing is told."""
    everybody = tuple(Call(agent, None) for agent in workload.agents)
    steps = everybody, *workload.steps
    return replace(workload, steps=steps, warmup=workload.warmup + 1, script=None)


def foreseen(foresight: Foresight) -> Tells:
    """Say of each agent how far away its next call is."""

    def tell(scene: Scene, seed: int) -> Told:
        return *announced(scene.agents, scene.schedule, foresight, Random(seed)), None

    return tell


exact = foreseen(Foresight())


def own(scene: Scene, seed: int) -> Told:
    """Say what the simulation itself says."""
    opening, steps, _ = exact(scene, seed)
    return opening, steps, scene.script


def reversed_dues(scene: Scene, seed: int) -> Told:
    """Say of who calls next that it calls last."""
    opening, steps, _ = exact(scene, seed)
    latest = max(call.told or 0 for calls in steps for call in calls)

    def lie(gap: int | None) -> int | None:
        return None if gap is None else max(1, latest + 1 - gap)

    told = tuple(tuple(call._replace(told=lie(call.told)) for call in calls) for calls in steps)
    return tuple(map(lie, opening)), told, None


def nothing(scene: Scene, seed: int) -> Told:
    """Say nothing but what is sent."""
    opening, steps, _ = exact(scene, seed)
    return opening, steps, (Lines((), ()),) * len(steps)


EVICT = replace(PLUGIN, prefetch=False)
BOTH_NO_TIER = "both_no_tier"
shuffled = foreseen(Foresight(misled=1.0))
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        measured.ALONE: Variant(ALONE, False, own),
        measured.HOST_LRU: Variant(ALONE, True, own),
        measured.BOTH: Variant(PLUGIN, True, own),
        measured.SHUFFLED: Variant(PLUGIN, True, shuffled),
        "adversarial": Variant(PLUGIN, True, reversed_dues),
        "evict_only": Variant(EVICT, True, own),
        "prefetch_only": Variant(SIDECAR, True, own),
        "clairvoyant": Variant(PLUGIN, True, exact),
        "noise_25": Variant(PLUGIN, True, foreseen(Foresight(error=0.25))),
        "noise_50": Variant(PLUGIN, True, foreseen(Foresight(error=0.5))),
        "history": Variant(PLUGIN, True, nothing),
        BOTH_NO_TIER: Variant(PLUGIN, False, own),
        "adversarial_no_tier": Variant(PLUGIN, False, reversed_dues),
        measured.CEILING: Variant(ALONE, False, own, everything_fits=True),
    }
)
SWEPT = (measured.ALONE, measured.HOST_LRU, measured.BOTH, measured.SHUFFLED)
