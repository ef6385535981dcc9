"""A forum on OASIS: one agent posts, and in each step another one or two look at it by their LLM."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camel.models import ModelFactory
from camel.types import ModelPlatformType
from camel.utils import BaseTokenCounter
from oasis import ActionType, AgentGraph, LLMAction, ManualAction, Platform, SocialAgent, UserInfo, make

import stage
from scalesim_client import Publisher
from scalesim_client.integrations.oasis import attach

AGENTS = 5
ACTIONS = [ActionType.LIKE_POST, ActionType.CREATE_POST, ActionType.DO_NOTHING]


class Words(BaseTokenCounter):
    """Counts words: the library's own counter fetches a vocabulary from the net."""

    def count_tokens_from_messages(self, messages: Any) -> int:
        """Count them."""
        return sum(len(str(message).split()) for message in messages)

    def encode(self, text: str) -> list[int]:
        """Number them."""
        return list(range(len(text.split())))

    def decode(self, token_ids: list[int]) -> str:
        """Return as many words."""
        return " ".join(map(str, token_ids))


def forum(engine: str) -> AgentGraph:
    """Return agents who share a model, as the library's generators make them."""
    model = ModelFactory.create(
        *(ModelPlatformType.OPENAI_COMPATIBLE_MODEL, "base", {"max_completion_tokens": 8}),
        **{"url": engine, "api_key": "none", "token_counter": Words()},
    )
    graph = AgentGraph()
    for number in range(AGENTS):
        about = f"Number {number} reads a lot. " * 20
        profile = {
            "other_info": {"user_profile": about, "mbti": "INTP", "gender": "x", "age": 40, "country": "x"}
        }
        user = UserInfo(f"user{number}", f"User {number}", about, profile, recsys_type="reddit")
        graph.add_agent(SocialAgent(number, user, model=model, agent_graph=graph, available_actions=ACTIONS))
    return graph


async def perform(publisher: Publisher, engine: str, steps: int, after_step: Callable[[int], None]) -> None:
    """Agent 0 posts and looks, then it and one more."""
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder) / "forum.db")
        env = make(forum(engine), Platform(database, recsys_type="reddit"), database)
        await env.reset()
        attach(env, publisher)
        agents = dict(env.agent_graph.get_agents())
        for step in range(steps):
            post = ManualAction(ActionType.CREATE_POST, {"content": f"Message {step}"})
            await env.step({agents[0]: [post, LLMAction()], agents[1 + step % (AGENTS - 1)]: LLMAction()})
            after_step(step)
        await env.close()


def play(publisher: Publisher, engine: str, steps: int, after_step: Callable[[int], None]) -> None:
    """Run the forum for some steps."""
    asyncio.run(perform(publisher, engine, steps, after_step))


if __name__ == "__main__":
    stage.run(play, "forum")
