"""A street on Mesa: thinkers who ask their LLM at paces of their own, and two people who walk towards each other."""

from __future__ import annotations

from collections.abc import Callable

import mesa
from mesa.space import ContinuousSpace
from openai import OpenAI

import stage
from scalesim_client import Publisher
from scalesim_client.integrations.mesa import ScaleSimAgent, attach

PACES = {"ada": 2, "ben": 3, "cleo": 5}
WALKERS = {"eve": (0.0, 1.0), "finn": (12.0, -1.0)}


class Thinker(ScaleSimAgent, mesa.Agent):
    """Asks its LLM every `pace` steps."""

    def __init__(self, model: Street, name: str, pace: int) -> None:
        super().__init__(model)
        self.name = name
        self.pace = pace

    @property
    def sidecar_name(self) -> str:
        """Its name."""
        return self.name

    def step(self) -> None:
        """Think, and then act on it for a while."""
        if (self.model.steps - 1) % self.pace == 0:
            prompt = f"You are {self.name}. " * 20 + f"It is step {self.model.steps}. What do you do?"
            with self.invocation() as tags:
                self.model.engine.completions.create(model="base", prompt=prompt, max_tokens=8, **tags)
            self.acts(self.pace)


class Walker(ScaleSimAgent, mesa.Agent):
    """Walks a unit per step along the street."""

    speed = 1.0
    vision = 2.0

    def __init__(self, model: Street, name: str, x: float, way: float) -> None:
        super().__init__(model)
        self.name = name
        self.way = way
        self.destination = (x + 100 * way, 0.0)
        model.space.place_agent(self, (x, 0.0))

    @property
    def sidecar_name(self) -> str:
        """Its name."""
        return self.name

    def step(self) -> None:
        """Go on."""
        self.model.space.move_agent(self, (self.pos[0] + self.way * self.speed, 0.0))


class Street(mesa.Model):
    """Everyone on it takes a turn per step."""

    def __init__(self, engine: OpenAI) -> None:
        super().__init__(seed=1)
        self.engine = engine
        self.space = ContinuousSpace(400, 10, torus=False, x_min=-200)
        for name, pace in PACES.items():
            Thinker(self, name, pace)
        for name, (x, way) in WALKERS.items():
            Walker(self, name, x, way)

    def step(self) -> None:
        """Give everyone a turn."""
        self.agents.shuffle_do("step")


def play(publisher: Publisher, engine: str, steps: int, after_step: Callable[[int], None]) -> None:
    """Run the street for some steps."""
    with OpenAI(base_url=engine, api_key="none") as client:
        street = Street(client)
        attach(street, publisher)
        for _ in range(steps):
            street.step()
            after_step(int(street.steps))


if __name__ == "__main__":
    stage.run(play, "street")
