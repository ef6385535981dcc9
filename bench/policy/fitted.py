"""The costs of the engine that was measured, from its two ends: where most of every prompt is computed, and least.

What lies between the ends is foretold, and can be compared with what was measured; the ends themselves can't.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, median
from typing import Final, NamedTuple

import msgspec

from bench.engine.result import Numbers, Result
from bench.engine.variants import ALONE, CEILING
from bench.policy.simulated import Machine
from bench.policy.variants import VARIANTS
from scalesim_daemon.whatif.costs import Costs

ENDS: Final = (ALONE, CEILING)


class Ends(NamedTuple):
    """Seconds of a computed prompt token, and what the other seconds are of those that are simulated."""

    token_seconds: float
    others: float


def fitted(machine: Machine, measured: Result) -> Costs | None:
    """Return the machine's costs with the measured seconds of prompt tokens and of all else, each the median over the
    classes that the machine has; None where the ends weren't measured, or more computing didn't take longer."""
    found = [
        ends
        for name, variants in measured.classes.items()
        if name in machine.classes
        and set(ENDS) <= set(variants)
        and (ends := _ends(machine, name, variants)) is not None
    ]
    if not found:
        return None
    token, others = median(ends.token_seconds for ends in found), median(ends.others for ends in found)
    return msgspec.structs.replace(
        machine.costs,
        name=f"{machine.costs.name}-fitted",
        source=(
            f"fitted to the makespans of {' and '.join(ENDS)}, medians over {len(found)} classes, on "
            f"{measured.conditions.engine} with {measured.conditions.cores} cores: {1000 * token:.3f} ms per prompt "
            f"token that isn't cached, and {others:.2f} times as long for all else as in {machine.costs.name} "
            f"({machine.costs.source})"
        ),
        prefill_token_seconds=token,
        step_seconds=others * machine.costs.step_seconds,
        decode_request_seconds=others * machine.costs.decode_request_seconds,
    )


def _ends(machine: Machine, name: str, variants: Mapping[str, Numbers]) -> Ends | None:
    alone, ceiling = (variants[end] for end in ENDS)
    tokens = alone.recomputed_tokens - ceiling.recomputed_tokens
    if tokens <= 0:
        return None
    token_seconds = (alone.makespan - ceiling.makespan) / tokens
    others = ceiling.makespan - token_seconds * ceiling.recomputed_tokens
    if token_seconds <= 0 or others <= 0:
        return None
    return Ends(token_seconds, others / _others(machine, name))


def _others(machine: Machine, name: str) -> float:
    """Return the seconds that the simulated ceiling takes for anything but prompt tokens."""
    played = [
        machine.play(VARIANTS[CEILING], machine.classes[name](machine.agents, machine.steps, seed), seed)
        for seed in machine.seeds
    ]
    return fmean(
        figures.makespan - figures.computed * machine.costs.prefill_token_seconds for figures in played
    )
