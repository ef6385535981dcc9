"""A talk on Concordia: three entities who speak in turn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from concordia.agents.entity_agent_with_logging import EntityAgentWithLogging
from concordia.associative_memory.basic_associative_memory import AssociativeMemoryBank
from concordia.components.game_master.next_acting import (
    DEFAULT_NEXT_ACTING_COMPONENT_KEY,
    DEFAULT_NEXT_ACTION_SPEC_COMPONENT_KEY,
    FixedActionSpec,
    NextActingInFixedOrder,
)
from concordia.components.game_master.switch_act import SwitchAct
from concordia.components.game_master.terminate import DEFAULT_TERMINATE_COMPONENT_KEY, Terminate
from concordia.environment.engines.sequential import Sequential
from concordia.language_model.base_gpt_model import BaseGPTModel
from concordia.language_model.no_language_model import NoLanguageModel
from concordia.prefabs.entity import minimal
from concordia.typing.entity import DEFAULT_SPEECH_ACTION_SPEC
from openai import OpenAI

import stage
from scalesim_client import Publisher, extra_headers
from scalesim_client.integrations.concordia import SpeakingModel, attach

NAMES = ["Alice", "Bob", "Carol"]


def speaker(name: str, publisher: Publisher, engine: str) -> EntityAgentWithLogging:
    """Return an entity whose requests carry its name."""
    client = OpenAI(
        base_url=engine, api_key="none", default_headers=extra_headers(publisher.simulation, name)
    )
    model = SpeakingModel(BaseGPTModel("base", client), publisher, name)
    params = {"name": name, "goal": "", "custom_instructions": f"{name} likes to talk. " * 20}
    memory = AssociativeMemoryBank(sentence_embedder=lambda text: np.ones(3))
    return minimal.Entity(params=params).build(model=model, memory_bank=memory)


def chair() -> EntityAgentWithLogging:
    """Return a game master that gives the turn around and needs no model for it."""
    model = NoLanguageModel()
    return EntityAgentWithLogging(
        agent_name="chair",
        act_component=SwitchAct(model=model, entity_names=NAMES),
        context_components={
            DEFAULT_NEXT_ACTING_COMPONENT_KEY: NextActingInFixedOrder(NAMES),
            DEFAULT_NEXT_ACTION_SPEC_COMPONENT_KEY: FixedActionSpec(DEFAULT_SPEECH_ACTION_SPEC),
            DEFAULT_TERMINATE_COMPONENT_KEY: Terminate(),
        },
    )


def play(publisher: Publisher, engine: str, steps: int, after_step: Callable[[int], None]) -> None:
    """Let them talk for some steps."""
    turns = Sequential()
    attach(turns, publisher)
    turns.run_loop(
        game_masters=[chair()],
        entities=[speaker(name, publisher, engine) for name in NAMES],
        premise="They meet in a kitchen.",
        max_steps=steps,
        checkpoint_callback=after_step,
    )


if __name__ == "__main__":
    stage.run(play, "talk")
