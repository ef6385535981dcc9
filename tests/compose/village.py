"""A simulation in a container of its own: `python3 village.py FOLDER` says what its agents use, each a LoRA of the
folder and a prefix, and when they call next. Then it stays, as simulations do, until it is killed."""

from __future__ import annotations

import signal
import sys

from scalesim_client import Publisher

SIMULATION = "village"
AGENTS = ("rosa", "ines", "abel", "tomas", "clara", "hugo")
PREFIX_TOKENS = 128


def prefix(agent: str) -> list[int]:
    """Return the tokens that an agent's prompts begin with."""
    first = 1000 * (1 + AGENTS.index(agent))
    return list(range(first, first + PREFIX_TOKENS))


def main(loras: str) -> None:
    """Say all of it, the first agent being due next."""
    with Publisher(SIMULATION) as sidecar:
        sidecar.step(0)
        for steps, agent in enumerate(AGENTS, start=1):
            sidecar.bind(agent, lora=f"{loras}/{agent}", lora_name=agent, token_ids=prefix(agent))
            sidecar.activity(agent, for_=steps)
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
