"""Drives any OpenAI-compatible engine, by its list of models and requests for one token; and a llama.cpp server by its
slots besides.

Such an engine tells nothing of what it caches, and LoRAs and models stay where they are. Where it has slots or places
for whole prompts, whoever drives it keeps account of what was sent there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import httpx

from scalesim_adapters.base import (
    Capability,
    EngineInfo,
    EngineUnavailable,
    FeedLost,
    Inventory,
    Item,
    MemoryKind,
    Missing,
    NotFound,
    Outcome,
    PrefixItem,
    Pressure,
    ProtocolMismatch,
    Rejected,
    ResidencyEvent,
    Tier,
    Unsupported,
)
from scalesim_adapters.http import Http, within
from scalesim_adapters.openai import llamacpp, routes

NO_EVENTS = "an engine of this kind tells nothing of what it caches"
PROMPT_SLOTS = "the engine's setting prompt_slots: how many prompts it caches"
IDLE_SLOTS = (
    "--no-kv-unified, or --parallel N: else llama.cpp empties idle slots whenever another one is used"
)
COUNTS = (
    "llama.cpp tells at /slots, unless --no-slots; of any other server the engine's setting tagged says that there are "
    "none but announced ones"
)


class OpenaiAdapter:
    """An `EngineAdapter` for the server at `url`. `name` stands in our requests' ids; `api_key` is the server's, if
    any.

    `prompt_slots` is how many prompts the server caches, where it doesn't tell. `tagged` says that every request to it
    is announced: then nobody else can be there unseen.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "openai",
        prompt_slots: int | None = None,
        tagged: bool = False,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = Http(url.rstrip("/"), name, api_key, transport)
        self._prompt_slots = prompt_slots
        self._tagged = tagged
        self._props: llamacpp.Props | None = None
        self._held: dict[int, int] = {}
        self._empties = False
        self._info: EngineInfo | None = None
        self._outages = 0

    async def probe(self) -> EngineInfo:
        """Ask who the engine is. It is sent no prompt."""
        with self._counting_outages():
            models = routes.base_models(await routes.model_cards(self._http))
            props = await llamacpp.props(self._http)
        if props != self._props:
            self._props, self._empties = props, False
            self._held.clear()
        self._info = self._describe(models)
        return self._info

    async def inventory(self) -> Inventory:
        """Return the requests that llama.cpp's slots had last; of any other engine, nothing."""
        if not self._tells_slots:
            return Inventory()
        slots = await llamacpp.slots(self._http)
        # A slot is emptied without a request of its own.
        self._empties |= any(
            slot.request < 0 <= self._held.get(slot.id, -1) == slot.id_task for slot in slots
        )
        self._held = {slot.id: slot.request for slot in slots}
        return Inventory(slot_requests=tuple(slot.request for slot in slots))

    async def pressure(self) -> Pressure | None:
        """Ask llama.cpp how many requests it has; none is counted once it is finished. Any other engine has those that
        were announced; None where there may be more."""
        if self._tells_slots:
            return await llamacpp.pressure(self._http)
        return Pressure(0, 0, None) if self._tagged else None

    async def serving(self) -> int | None:
        """Ask how many requests llama.cpp has; None of any other engine."""
        if not self._tells_slots:
            return None
        pressure = await llamacpp.pressure(self._http)
        return pressure.running + pressure.waiting

    async def load(self, item: Item, tier: Tier, *, deadline: float) -> Outcome:
        """Compute or touch a prefix. Only `Tier.DEVICE`."""
        if tier is not Tier.DEVICE or not isinstance(item, PrefixItem):
            raise Unsupported(f"this engine loads prefixes to the device, not {item.kind} to {tier}")
        async with within(deadline, f"loading {item.kind}"):
            info = self._info or await self.probe()
            if item.model not in info.base_models:
                raise NotFound(f"the server has no model {item.model!r}")
            with self._counting_outages():
                return await self._load_prefix(item, info, deadline)

    async def evict(self, item: Item, to: Tier, *, deadline: float) -> Outcome:
        """Raise `Unsupported`: what such an engine caches leaves when something else takes its place."""
        raise Unsupported(f"this engine can't move {item.kind} to {to}")

    async def release(self, item: Item, *, deadline: float) -> Outcome:
        """Raise `Unsupported`: nothing was given a name."""
        raise Unsupported(f"a {item.kind} has no name in this engine that could be released")

    async def tokenize(
        self, model: str, *, text: str | None = None, messages: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[int, ...]:
        """Return the tokens of a prompt, or of the beginning of a conversation. Raises `Unsupported` where the server
        doesn't make any without computing."""
        info = self._info or await self.probe()
        if model not in info.base_models:
            raise NotFound(f"the server has no model {model!r}")
        if self._props is not None:
            return await llamacpp.tokenize(self._http, text, messages)
        try:
            return await routes.tokenize(self._http, model, text, messages)
        except (NotFound, Rejected, ProtocolMismatch) as error:
            raise Unsupported(f"{error}: a server that makes tokens at /tokenize") from error

    async def events(self) -> AsyncIterator[ResidencyEvent]:
        """Yield that nothing is known, and no more."""
        yield FeedLost(NO_EVENTS)
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    @contextmanager
    def _counting_outages(self) -> Iterator[None]:
        """What doesn't name its incarnation may be another one when it is back."""
        try:
            yield
        except EngineUnavailable:
            self._outages += 1
            raise

    @property
    def _tells_slots(self) -> bool:
        return self._props is not None and self._props.endpoint_slots

    def _describe(self, models: Mapping[str, int | None]) -> EngineInfo:
        props = self._props
        slots = self._prompt_slots if props is None else props.total_slots
        prefix = Capability.LOAD if props is None else Capability.LOAD | Capability.PLACE
        missing = []
        if self._empties:
            slots, prefix = None, Capability.NONE
            missing.append(Missing("prompts that stay in their slots", IDLE_SLOTS))
        elif slots is None:
            missing.append(Missing("an account of what is cached", PROMPT_SLOTS))
        if not self._tells_slots and not self._tagged:
            missing.append(Missing("counts of requests", COUNTS))
        return EngineInfo(
            engine="openai" if props is None else "llama.cpp",
            version="unknown" if props is None else props.build_info,
            incarnation=(props and props.media_marker) or f"outage {self._outages}",
            base_models=tuple(models),
            capabilities={
                MemoryKind.PREFIX_KV: prefix,
                MemoryKind.LORA: Capability.NONE,
                MemoryKind.MODEL: Capability.NONE,
            },
            max_model_len=next(iter(models.values()), None) if props is None else props.slot_tokens,
            prompt_slots=slots,
            missing=tuple(missing),
        )

    async def _load_prefix(self, item: PrefixItem, info: EngineInfo, deadline: float) -> Outcome:
        prompt = self._prompt(item)
        tokens = len(item.token_ids)
        if info.max_model_len is not None and tokens >= info.max_model_len:
            raise Rejected(f"{tokens} tokens are more than the engine's context: {info.max_model_len}")
        body: dict[str, Any] = {"model": item.model, "user": item.agent, **prompt}
        if item.cache_salt is not None:
            body["cache_salt"] = item.cache_salt
        if item.slot is not None and Capability.PLACE in info.capabilities[MemoryKind.PREFIX_KV]:
            body["id_slot"] = item.slot
        started = monotonic()
        outcome = await routes.one_token(self._http, body, deadline)
        # The last token of a prompt is computed even where all of it is cached.
        cached = outcome.cached if outcome.cached + 1 < outcome.tokens else outcome.tokens
        tokens = tokens or outcome.tokens
        return Outcome(monotonic() - started, tokens, min(cached, tokens))

    def _prompt(self, item: PrefixItem) -> dict[str, Any]:
        """Return the field of a request that holds the prefix."""
        if item.token_ids:
            # An engine of blocks takes the last one from the cache only where another token follows; in a slot that
            # token would be in the way of what comes next.
            more = item.token_ids[-1:] if self._props is None else ()
            return {"prompt": [*item.token_ids, *more]}
        if item.messages is not None:
            return {"messages": list(item.messages)}
        if item.text is not None:
            return {"prompt": item.text}
        raise Rejected("a prefix without tokens")
