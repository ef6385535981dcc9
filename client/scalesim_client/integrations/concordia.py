"""Concordia: `attach(engine, publisher)`, and for each entity a model that says who asks it.

The stream's clock counts steps, as the engine's checkpoint callback does. Written for gdm-concordia 2.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import wraps
from inspect import signature
from typing import Any

from concordia.language_model.language_model import LanguageModel

from scalesim_client.events import PlanDeclared
from scalesim_client.integrations.harmless import harmless
from scalesim_client.publisher import Publisher

_NEXT_ACTING = "__next_acting__"
"""Where the library's prefabs keep the component that gives the turn (`DEFAULT_NEXT_ACTING_COMPONENT_KEY`)."""


class SpeakingModel(LanguageModel):
    """An entity's language model: `model`, with every request said to be an invocation of the entity `name`.

    Requests carry their agent where the client of `model` is the entity's own:
    `OpenAI(..., default_headers=extra_headers(simulation, name))`.
    """

    def __init__(self, model: LanguageModel, publisher: Publisher, name: str) -> None:
        self._model = model
        self._publisher = publisher
        self._name = name

    def sample_text(self, prompt: str, **options: Any) -> str:
        """Sample from the model."""
        with self._publisher.invocation(self._name):
            return str(self._model.sample_text(prompt, **options))

    def sample_choice(self, prompt: str, responses: Sequence[str], **options: Any) -> Any:
        """Sample from the model."""
        with self._publisher.invocation(self._name):
            return self._model.sample_choice(prompt, responses, **options)


def attach(engine: Any, publisher: Publisher) -> None:
    """Have an engine say its steps, and who acts next as soon as the game master has decided.

    Where the turns go in a fixed order, all the next turns are said.
    """
    next_acting, run_loop = engine.next_acting, engine.run_loop
    parameters = signature(run_loop)
    now = 0

    @wraps(next_acting)
    def deciding(game_master: Any, entities: Any, *args: Any, **kwargs: Any) -> Any:
        decided = next_acting(game_master, entities, *args, **kwargs)
        with harmless("who acts next in Concordia"):
            publisher.send(_plan(_names(decided), _order(game_master), now))
        return decided

    @wraps(run_loop)
    def looping(*args: Any, **kwargs: Any) -> Any:
        call = parameters.bind(*args, **kwargs)
        callback = call.arguments.get("checkpoint_callback")

        def stepped(steps: int) -> None:
            tell(steps)
            if callback is not None:
                callback(steps)

        tell(0)
        call.arguments["checkpoint_callback"] = stepped
        return run_loop(*call.args, **call.kwargs)

    def tell(steps: int) -> None:
        nonlocal now
        now = steps
        publisher.step(steps)

    engine.next_acting, engine.run_loop = deciding, looping


def _plan(acting: list[str], order: list[str], now: int) -> PlanDeclared:
    """Return the turns that are known: of `order` two rounds, since whoever has acted has another turn."""
    return PlanDeclared(agents=order * 2) if acting == order[:1] else PlanDeclared(agents=acting, at=now)


def _names(decided: Any) -> list[str]:
    """Return the names in what `next_acting` returns: an entity or several, in most engines with what to do."""
    acting = decided[0] if isinstance(decided, tuple) else decided
    return [entity.name for entity in acting] if isinstance(acting, Collection) else [acting.name]


def _order(game_master: Any) -> list[str]:
    """Return the fixed order of turns, from the one that acts now on; empty where there is none."""
    try:
        state = game_master.get_component(_NEXT_ACTING).get_state()
    except (AttributeError, KeyError):
        return []
    sequence, at = state.get("sequence"), state.get("currently_active_player_idx")
    return [] if not sequence or at is None else [*sequence[at:], *sequence[:at]]
