"""An SGLang model asleep: its memory is released, and requests wait until it is resumed.

In SGLang alone a release while any request runs ends the server, and so does the resume of what was not released; a
request that comes in between runs on memory that is gone. Here the one is refused, the other does nothing, and the
scheduler is paused from the release of anything until the resume of everything. Who asks learns from the server's
state what became of it: both routes answer the same either way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sglang.srt.constants import GPU_MEMORY_ALL_TYPES, GPU_MEMORY_TYPE_WEIGHTS
from sglang.srt.managers.io_struct import ReleaseMemoryOccupationReqOutput, ResumeMemoryOccupationReqOutput
from sglang.srt.runtime_context import get_context, get_model

Original = Callable[..., Any]

log = logging.getLogger("sglang.scalesim")


class Sleep:
    """Guards what the scheduler does when memory is released and resumed, and generation paused and continued."""

    def __init__(self) -> None:
        self._asked_to_pause = False

    def release(self, original: Original, manager: Any, request: Any) -> Any:
        """Release what is still held, where nothing runs or waits."""
        wanted = request.tags or GPU_MEMORY_ALL_TYPES
        tags = [tag for tag in GPU_MEMORY_ALL_TYPES if tag in wanted and tag not in manager.offload_tags]
        why = _refusal(manager, tags)
        if why is not None:
            log.warning("nothing is released: %s", why)
        if why is not None or not tags:
            return ReleaseMemoryOccupationReqOutput()
        manager.scheduler._engine_paused = True
        request.tags = tags
        return original(manager, request)

    def resume(self, original: Original, manager: Any, request: Any) -> Any:
        """Resume what is released. Once that is everything, requests run again."""
        wanted = request.tags or GPU_MEMORY_ALL_TYPES
        tags = [tag for tag in GPU_MEMORY_ALL_TYPES if tag in wanted and tag in manager.offload_tags]
        if not tags:
            return ResumeMemoryOccupationReqOutput()
        request.tags = tags
        answer = original(manager, request)
        if not manager.offload_tags:
            manager.scheduler._engine_paused = self._asked_to_pause
        return answer

    def paused(self, original: Original, scheduler: Any, request: Any) -> Any:
        """Somebody pauses generation, who may do so while the model sleeps, too."""
        self._asked_to_pause = True
        return original(scheduler, request)

    def continued(self, original: Original, scheduler: Any, request: Any) -> Any:
        """Somebody lets generation continue: while the model sleeps, not yet."""
        self._asked_to_pause = False
        answer = original(scheduler, request)
        scheduler._engine_paused = bool(scheduler.weight_updater.offload_tags)
        return answer

    def idled(self, _: None, scheduler: Any) -> None:
        """The scheduler has found itself paused: it tells how many requests wait, and while the model sleeps it waits
        for what comes next, with `--sleep-on-idle`, and else keeps a core busy."""
        sleeper = scheduler.idle_sleeper
        scheduler.publish_load_snapshot(force=sleeper is not None)
        if scheduler.weight_updater.offload_tags and sleeper is not None:
            sleeper.maybe_sleep()


def _refusal(manager: Any, tags: list[str]) -> str | None:
    """Return why a release would end the server, None where it wouldn't."""
    if not manager.is_fully_idle(ignore_waiting=manager.scheduler._engine_paused):
        return "requests run or wait"
    arguments = get_context().resolved_server_args_dict()
    if arguments["pp_size"] > 1 or arguments["enable_pdmux"]:
        return "with pipeline parallelism or PD multiplexing requests don't wait while the memory is gone"
    if GPU_MEMORY_TYPE_WEIGHTS in tags and get_model().weight_cache_mode != "off":
        return "the weights are those of a weight cache, which others use"
    return None
