"""What integrations share: errors that stay here, and requests that carry their agent's tags."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from scalesim_client.publisher import Publisher
from scalesim_client.tags import RequestTags, request_tags

logger = logging.getLogger("scalesim_client")

_told: set[str] = set()


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Let no error of the block reach the simulation; the first one of each `what` is logged with its traceback.

    Only for code of ours: an error of the simulation's own must pass.
    """
    try:
        yield
    except Exception:
        if what not in _told:
            _told.add(what)
            logger.warning("%s is not told, and no more is said of it", what, exc_info=True)


@contextmanager
def invoking(publisher: Publisher | None, agent: str) -> Iterator[RequestTags]:
    """Say that an LLM request of the agent runs while the block does; yields the request's tags, empty ones
    without a publisher. Errors of the block pass."""
    tags: RequestTags = {"extra_body": {}, "extra_headers": {}}
    with ExitStack() as stack:
        if publisher is not None:
            stack.enter_context(publisher.invocation(agent))
            with harmless("a request's agent"):
                tags = request_tags(publisher.simulation, agent)
        yield tags
