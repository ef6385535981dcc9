"""Mesa-LLM: `class Citizen(ScaleSimLLMAgent, LLMAgent)`, and `attach(model, publisher)` once the model is made.

All that holds for Mesa holds here; besides, each request that the agent's `llm` and its memory send is said and tagged.
Written for Mesa-LLM 0.2 on Mesa 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from mesa_llm import module_llm

from scalesim_client.integrations.harmless import harmless
from scalesim_client.integrations.mesa import ScaleSimAgent, attach
from scalesim_client.tags import RequestTags

__all__ = ["ScaleSimLLMAgent", "attach"]

_TAGS: ContextVar[RequestTags | None] = ContextVar("scalesim_tags", default=None)


class ScaleSimLLMAgent(ScaleSimAgent):
    """Mixin, named before Mesa-LLM's class.

    An agent that asked its LLM in a step and said nothing of what follows is expected to ask again in the next one,
    as agents do whose `step` plans.
    """

    llm: Any
    memory: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._own_word = (-1, 1.0)
        super().__init__(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("llm", "memory"):
            with harmless("the requests of Mesa-LLM"):
                _tell_requests(self, value if name == "llm" else getattr(value, "llm", None))

    def acts(self, steps: float) -> None:
        """Say that the agent acts without the LLM for so many steps from now."""
        self._own_word = (self.model.steps, steps)
        super().acts(steps)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with self.invocation() as tags:
            token = _TAGS.set(tags)
            try:
                yield
            finally:
                _TAGS.reset(token)
        # A request, as of the memory that sums up the step, ends the activity that was said before it.
        said_at, steps = self._own_word
        super().acts(steps if said_at == self.model.steps else 1)


def _tell_requests(agent: ScaleSimLLMAgent, llm: Any) -> None:
    if llm is None or getattr(llm, "scalesim_agent", None) is agent:
        return
    llm.scalesim_agent = agent
    generate, agenerate = llm.generate, llm.agenerate

    @wraps(generate)
    def asking(*args: Any, **kwargs: Any) -> Any:
        with agent._asking():
            return generate(*args, **kwargs)

    @wraps(agenerate)
    async def asking_later(*args: Any, **kwargs: Any) -> Any:
        with agent._asking():
            return await agenerate(*args, **kwargs)

    llm.generate, llm.agenerate = asking, asking_later


def _tagging(call: Any) -> Any:
    @wraps(call)
    def tagged(*args: Any, **kwargs: Any) -> Any:
        tags: Any = _TAGS.get() or {}
        return call(*args, **{**tags, **kwargs})

    return tagged


# Mesa-LLM passes nothing of the kind on to LiteLLM: the tags join the call where it leaves the library.
module_llm.completion = _tagging(module_llm.completion)
module_llm.acompletion = _tagging(module_llm.acompletion)
