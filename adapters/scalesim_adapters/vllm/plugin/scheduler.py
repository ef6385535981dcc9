"""vLLM's schedulers with eviction by due: `--scheduler-cls scalesim_adapters.vllm.plugin.scheduler.DueScheduler`, or
`DueAsyncScheduler` where vLLM schedules asynchronously, its default on GPUs."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any

import vllm
from vllm.distributed.kv_events import KVEventBatch
from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from scalesim_adapters.dues import DueListener
from scalesim_adapters.vllm.plugin.options import read_options
from scalesim_adapters.vllm.plugin.versions import unknown

if TYPE_CHECKING:
    from scalesim_adapters.vllm.plugin.pool import DueBlockPool

logger = init_logger("vllm.scalesim.scheduler")


class _Due:
    """Gives a scheduler its eviction by due; without it where the engine isn't known from inside."""

    kv_cache_manager: Any
    kv_event_publisher: Any
    vllm_config: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.due_pool: DueBlockPool | None = None
        self.due_listener: DueListener | None = None
        why = unknown(vllm.__version__) or self._follow_dues()
        if why is not None:
            logger.warning("eviction stays vLLM's own: %s", why)

    def evict_agent(self, agent: str) -> int:
        """Evict the idle blocks that only this agent uses, and tell of it; return how many. The agent is
        `<simulation>/<agent>`."""
        evicted = 0 if self.due_pool is None else self.due_pool.evict_agent(agent)
        # vLLM itself publishes events at the end of a step alone, and an idle engine makes none.
        events = self.kv_cache_manager.take_events() if evicted else None
        if events:
            self.kv_event_publisher.publish(KVEventBatch(ts=time(), events=events))
        return evicted

    def residency(self) -> dict[str, int]:
        """Return how many cached blocks each agent uses; one that several share counts for each."""
        return {} if self.due_pool is None else dict(self.due_pool.users.counts())

    def shutdown(self) -> None:
        """Stop listening, and what else the scheduler does at its end."""
        if self.due_listener is not None:
            self.due_listener.close()
        # The mixin has no base of its own; the scheduler that it is mixed into has one with this method.
        super().shutdown()  # type: ignore[misc]  # vLLM comes without types

    def _follow_dues(self) -> str | None:
        """Evict by due from now on; return why not, where that can't be."""
        try:
            # What another version may not have is imported where the version is known.
            from scalesim_adapters.vllm.plugin import pool
        except ImportError as error:
            return f"vLLM {vllm.__version__} lacks what is known of it: {error}"
        why = pool.refusal(self.kv_cache_manager)
        if why is None:
            options = read_options(self.vllm_config.additional_config)
            self.due_listener = options.listener()
            self.due_pool = pool.install(self.kv_cache_manager, self.due_listener.table)
            logger.info("eviction by due, once dues are heard at %s", options.dues)
        return why


class DueScheduler(_Due, Scheduler):
    """vLLM's synchronous scheduler, evicting by due."""


class DueAsyncScheduler(_Due, AsyncScheduler):
    """vLLM's asynchronous scheduler, evicting by due."""
