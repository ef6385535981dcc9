"""A town of personas as in generative agents: each acts for some minutes, then asks its LLM what to do next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace

from openai import OpenAI

import stage
from scalesim_client import Publisher
from scalesim_client.integrations.generative_agents import asking, attach

SEC_PER_STEP = 10
BEGIN = datetime(2023, 2, 13, 7, 0, 0)
MINUTES = {"Isabella": 1, "Klaus": 2, "Maria": 60, "Tom": 60}
HOMES = {"Isabella": (0, 0), "Klaus": (100, 0), "Maria": (200, 0), "Tom": (212, 0)}
VISIT = {"Klaus": BEGIN + timedelta(seconds=50)}
Tile = tuple[int, int]


class Persona:
    """Acts for its number of minutes, also while it is visited; `scratch` has what a persona of the original has."""

    def __init__(self, name: str, minutes: int, tile: Tile, engine: OpenAI) -> None:
        self.name = name
        self.minutes = minutes
        self.engine = engine
        self.scratch = SimpleNamespace(
            act_start_time=None,
            act_duration=None,
            chatting_with=None,
            chatting_end_time=None,
            curr_tile=tile,
            planned_path=[],
            vision_r=4,
        )

    def move(self, maze: None, personas: dict[str, Persona], curr_tile: Tile, curr_time: datetime) -> Tile:
        """Take one step: go on along the path, or choose what to do next where the action has ended."""
        scratch = self.scratch
        scratch.curr_tile = curr_tile
        if scratch.act_start_time is None or curr_time >= scratch.act_start_time + timedelta(
            minutes=self.minutes
        ):
            self.ask(f"It is {curr_time}.")
            scratch.act_start_time, scratch.act_duration = curr_time, self.minutes
        elif curr_time == VISIT.get(self.name):
            self.ask(f"It is {curr_time}. Somebody looks in.")
        return scratch.planned_path.pop(0) if scratch.planned_path else curr_tile

    def ask(self, news: str) -> None:
        """Ask the LLM."""
        with asking() as tags:
            prompt = f"Name: {self.name}\nLifestyle: goes to bed at 11 pm.\n" * 10 + news
            self.engine.completions.create(model="base", prompt=prompt, max_tokens=8, **tags)


def play(publisher: Publisher, engine: str, steps: int, after_step: Callable[[int], None]) -> None:
    """Run the town as the original's server does: all move, then the time goes on."""
    with OpenAI(base_url=engine, api_key="none") as client:
        tiles = dict(HOMES)
        personas = {name: Persona(name, minutes, tiles[name], client) for name, minutes in MINUTES.items()}
        attach(personas.values(), publisher, sec_per_step=SEC_PER_STEP)
        personas["Maria"].scratch.planned_path = [(x, 0) for x in range(201, 213)]
        for step in range(steps):
            now = BEGIN + timedelta(seconds=step * SEC_PER_STEP)
            for name, persona in personas.items():
                tiles[name] = persona.move(None, personas, tiles[name], now)
            after_step(step)


if __name__ == "__main__":
    stage.run(play, "town", "sim_seconds")
