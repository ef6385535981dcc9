"""OASIS (`camel-oasis`): `attach(env, publisher)` after `env.reset()`.

The stream's clock counts calls of `env.step`. Agents are named by their `social_agent_id`. Nothing of the library is
imported. Written for camel-oasis 0.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import copy
from functools import wraps
from typing import Any

from scalesim_client.events import AgentActivated, PathDeclared, PlanDeclared
from scalesim_client.integrations.harmless import harmless
from scalesim_client.publisher import Publisher
from scalesim_client.tags import request_tags

_PATH = "recommended"
_RECOMMENDED = """
    SELECT DISTINCT post.user_id, rec.user_id FROM rec JOIN post ON post.post_id = rec.post_id
    WHERE post.user_id IN (SELECT value FROM json_each(?)) AND post.user_id != rec.user_id
"""


def attach(env: Any, publisher: Publisher) -> None:
    """Have an `OasisEnv` say who acts by the LLM in each step, and whom their posts are recommended to.

    At the start of a step its active agents are declared, in their order. As soon as the recommendations are new,
    a path leads from them, as authors, one hop of a step to their readers. The requests of the graph's agents carry
    their agent, also where agents share a model.
    """
    for _, agent in env.agent_graph.get_agents():
        with harmless("an agent's requests in OASIS"):
            _tag(agent, publisher)
            _tell_requests(agent, publisher)
    step, update = env.step, env.platform.update_rec_table
    now = -1
    active: list[int] = []

    @wraps(step)
    async def stepping(actions: Any) -> Any:
        nonlocal now, active
        now += 1
        active = _active(actions)
        publisher.step(now)
        with harmless("the active agents of OASIS"):
            publisher.send(PlanDeclared(agents=list(map(str, active)), at=now))
        return await step(actions)

    @wraps(update)
    async def updating() -> Any:
        result = await update()
        with harmless("whom OASIS recommends to"):
            publisher.send(*_spread(active, _readers(env.platform.db, active)))
        return result

    env.step, env.platform.update_rec_table = stepping, updating


def _active(actions: Any) -> list[int]:
    """Return the ids of the agents that ask their LLM in a step, by their actions: `LLMAction`, or an interview."""
    active: list[int] = []
    with harmless("the actions of a step in OASIS"):
        for agent, planned in actions.items():
            several = planned if isinstance(planned, list) else [planned]
            if any(map(_asks, several)):
                active.append(agent.social_agent_id)
    return active


def _asks(action: Any) -> bool:
    kind = getattr(action, "action_type", None)
    return kind is None or getattr(kind, "value", kind) == "interview"


def _readers(db: Any, authors: list[int]) -> list[tuple[str, str]]:
    return [(str(author), str(reader)) for author, reader in db.execute(_RECOMMENDED, (json.dumps(authors),))]


def _spread(active: Iterable[int], edges: list[tuple[str, str]]) -> Iterable[PathDeclared | AgentActivated]:
    yield PathDeclared(path=_PATH, edges=edges)
    yield from (AgentActivated(agent=str(agent), path=_PATH) for agent in active)


def _tag(agent: Any, publisher: Publisher) -> None:
    """Give the agent models of its own with its tags; they share their clients with those that it had."""
    tags = request_tags(publisher.simulation, str(agent.social_agent_id))
    manager = agent.model_backend
    models = []
    for model in manager.models:
        own = copy(model)
        given = model.model_config_dict
        own.model_config_dict = {
            **given,
            "extra_body": {**given.get("extra_body", {}), **tags["extra_body"]},
            "extra_headers": {**given.get("extra_headers", {}), **tags["extra_headers"]},
        }
        models.append(own)
    agent.model_backend = type(manager)(models, manager.scheduling_strategy.__name__)


def _tell_requests(agent: Any, publisher: Publisher) -> None:
    name = str(agent.social_agent_id)
    for method in ("perform_action_by_llm", "perform_interview"):
        setattr(agent, method, _telling(getattr(agent, method), name, publisher))


def _telling(perform: Any, name: str, publisher: Publisher) -> Any:
    @wraps(perform)
    async def performing(*args: Any, **kwargs: Any) -> Any:
        with publisher.invocation(name):
            return await perform(*args, **kwargs)

    return performing
