"""The residency events of one engine process, in order and without gaps, across lost messages and restarts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing

import zmq.asyncio

from scalesim_adapters.base import Cleared, EngineError, EngineUnavailable, FeedLost, ResidencyEvent
from scalesim_adapters.kvevents.decode import Decoder
from scalesim_adapters.kvevents.link import Link, LinkLost, Message, Source, opened_context
from scalesim_client.sequence import Arrival, Sequence

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
REPLAY_SECONDS = 5.0
RETRY_SECONDS = 0.5
HOPELESS_SECONDS = 5.0
# A quiet feed is compared with the replay buffer this often: the last message before a silence may have been
# lost.
QUIET_SECONDS = 2.0


class KvFeed:
    """Follows whatever `find` says the engine is now.

    `find` returns the source of events, or raises an `EngineError`: retryable while the engine is away, not
    retryable where it publishes none.
    """

    def __init__(self, find: Callable[[], Awaitable[Source]]) -> None:
        self._find = find
        self._incarnation: str | None = None
        self._sequence = Sequence()
        self._decoder = Decoder()
        self._empty = False

    async def events(self) -> AsyncIterator[ResidencyEvent]:
        """Yield events until cancelled.

        The first is `Cleared`, and then all that the engine can replay, so that a late listener learns the
        same as an early one; or `FeedLost` where it can't replay from its start. `Cleared` again after each
        restart.
        """
        with opened_context() as context:
            async with aclosing(self._events(context)) as events:
                async for event in events:
                    yield event

    async def _events(self, context: zmq.asyncio.Context) -> AsyncGenerator[ResidencyEvent, None]:
        told: str | None = None
        while True:
            source: Source | None = None
            try:
                source = await self._find()
                async with Link(context, source) as link:
                    await link.open(within=CONNECT_SECONDS)
                    if await self._find() != source:
                        raise EngineUnavailable("the engine restarted meanwhile")
                    told = None
                    async for event in self._follow(link, source):
                        yield event
            except (LinkLost, EngineError) as error:
                log.info("the KV event feed is away: %s", error)
                if self._is_news(error, source) and told != str(error):
                    told, self._incarnation = str(error), None
                    yield FeedLost(told)
                hopeless = isinstance(error, EngineError) and not error.retryable
            await asyncio.sleep(HOPELESS_SECONDS if hopeless else RETRY_SECONDS)

    def _is_news(self, error: LinkLost | EngineError, source: Source | None) -> bool:
        """An engine that answers but whose feed can't be heard may hold anything; one that is away comes back
        cleared."""
        if isinstance(error, EngineError):
            return not error.retryable
        return source is not None and source.incarnation != self._incarnation

    async def _follow(self, link: Link, source: Source) -> AsyncIterator[ResidencyEvent]:
        for event in self._begin(source):
            yield event
        async for message in link.replay(self._sequence.last + 1, within=REPLAY_SECONDS):
            for event in self._admit(message):
                yield event
        while True:
            messages = await link.receive(within=QUIET_SECONDS)
            # After a silence, or where a number was skipped, the replay knows what was lost.
            if not messages or messages[0].seq > self._sequence.last + 1:
                async for message in link.replay(self._sequence.last + 1, within=REPLAY_SECONDS):
                    for event in self._admit(message):
                        yield event
            for message in messages:
                for event in self._admit(message):
                    yield event

    def _begin(self, source: Source) -> Iterator[ResidencyEvent]:
        """Another process numbers its events from 0 and holds nothing of what the one before it held."""
        if source.incarnation == self._incarnation:
            return
        self._incarnation = source.incarnation
        self._sequence, self._decoder = Sequence(), Decoder()
        self._empty = source.replay_endpoint is not None
        yield Cleared()
        if source.replay_endpoint is None:
            yield FeedLost("the engine has no replay endpoint: what it stored before now is unknown")

    def _admit(self, message: Message) -> Iterator[ResidencyEvent]:
        match self._sequence.admit(message.seq):
            case Arrival.DUPLICATE:
                return
            case Arrival.GAP:
                self._empty = False
                yield FeedLost(f"the engine no longer has the events before number {message.seq}")
        for event in self._decoder.decode(message.payload):
            # SGLang's first event says that it begins with nothing, which was told already.
            if not (self._empty and isinstance(event, Cleared)):
                yield event
            self._empty = isinstance(event, Cleared)
