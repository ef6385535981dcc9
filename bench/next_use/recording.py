"""A workload's recorded course, the same for every variant: its calls in order, and when each agent calls next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench.demo.prompts import draw_tokens
from bench.workloads.base import Call, Step, Workload
from scalesim_client.events import Event

BLOCK_TOKENS: Final = 32
PREFIX_BLOCKS: Final = 20
FRESH_TOKENS: Final = 40
PROMPT_BLOCKS: Final = PREFIX_BLOCKS + 2  # with the block that its output begins


@dataclass(frozen=True, slots=True)
class Recording:
    """One workload, recorded: `personas` gives each agent's prefix a seed, `calls` is all steps' calls in order."""

    simulation: str
    personas: dict[str, str]
    opening: tuple[Event, ...]
    steps: tuple[Step, ...]
    calls: tuple[Call, ...]

    @classmethod
    def of(cls, workload: Workload) -> Recording:
        """Run the workload once."""
        steps = tuple(workload.steps())
        calls = tuple(call for step in steps for call in step.calls)
        return cls(workload.simulation, dict(workload.personas), workload.opening, steps, calls)

    def prompt(self, position: int) -> list[int]:
        """Return the token ids of the call at this position: its agent's prefix, and 40 that no other call has."""
        call = self.calls[position]
        prefix = draw_tokens(self.personas[call.agent], PREFIX_BLOCKS * BLOCK_TOKENS)
        return prefix + draw_tokens(f"{position} {call.memory}", FRESH_TOKENS)

    def next_uses(self, position: int) -> dict[str, int]:
        """Return each agent's next call at or after a position, as its position; who never calls again is left out."""
        coming = range(len(self.calls) - 1, position - 1, -1)
        return {self.calls[other].agent: other for other in coming}
