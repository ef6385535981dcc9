"""Citizens on Mesa-LLM: one plans in every step, one only in every third."""

from __future__ import annotations

import os
from collections.abc import Callable

import stage

# It wants a key by this name, and LiteLLM reads where the engine is when a request is made.
os.environ.setdefault("OPENAI_API_KEY", "none")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import mesa
from mesa.space import MultiGrid
from mesa_llm.llm_agent import LLMAgent
from mesa_llm.reasoning.cot import CoTReasoning

from scalesim_client import Publisher
from scalesim_client.integrations.mesa_llm import ScaleSimLLMAgent, attach


class Citizen(ScaleSimLLMAgent, LLMAgent):
    """Asks its LLM every `pace` steps, and says so where that is not every step."""

    def __init__(self, model: mesa.Model, pace: int) -> None:
        system = f"You are citizen {pace}. " * 20
        super().__init__(model, CoTReasoning, "openai/base", system_prompt=system, vision=-1)
        self.pace = pace
        model.grid.place_agent(self, (pace, pace))

    def step(self) -> None:
        """Ask, and act on it for a while."""
        if (self.model.steps - 1) % self.pace == 0:
            self.generate_obs()
            self.llm.generate(f"It is step {self.model.steps}. What do you do?")
            if self.pace > 1:
                self.acts(self.pace)


class Town(mesa.Model):
    """Everyone in it takes a turn per step."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.grid = MultiGrid(10, 10, torus=False)
        for pace in (1, 3):
            Citizen(self, pace)

    def step(self) -> None:
        """Give everyone a turn."""
        self.agents.shuffle_do("step")


def play(publisher: Publisher, engine: str, steps: int, after_step: Callable[[int], None]) -> None:
    """Run the town for some steps."""
    os.environ["OPENAI_API_BASE"] = engine
    town = Town()
    attach(town, publisher)
    for _ in range(steps):
        town.step()
        after_step(int(town.steps))


if __name__ == "__main__":
    stage.run(play, "citizens")
