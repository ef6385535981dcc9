"""Drives one vLLM server: through its OpenAI and LoRA routes, its metrics and its KV event feed; and through the routes
of our plug-in and of developer mode, where a probe finds them.

Nothing here sends what is known to end an engine (vLLM 0.32): a LoRA load in place, a pinned LoRA, any request that
makes the engine read a LoRA whose files are gone, or a sleep that aborts requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

from scalesim_adapters.base import (
    Busy,
    Capability,
    DeadlineExceeded,
    EngineInfo,
    Inventory,
    Item,
    LoraItem,
    MemoryKind,
    ModelItem,
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
from scalesim_adapters.kvevents.feed import KvFeed
from scalesim_adapters.kvevents.link import Source, find_listener, reachable_form
from scalesim_adapters.openai import routes as openai
from scalesim_adapters.openai.routes import ASK_SECONDS, COMPLETIONS, usage
from scalesim_adapters.vllm import metrics, probe
from scalesim_adapters.vllm.loras import LOAD_LORA, Loras
from scalesim_adapters.vllm.models import Models
from scalesim_adapters.vllm.onetoken import ANY_TOKEN, one_token
from scalesim_adapters.vllm.routes import PluginRoutes, PluginState

BINDS = "vLLM binds only ipc:// and tcp://*:PORT, and connects to any other address"
STOCK = {
    MemoryKind.PREFIX_KV: Capability.LOAD,
    MemoryKind.LORA: Capability.LOAD,
    MemoryKind.MODEL: Capability.NONE,
}


class VllmAdapter:
    """An `EngineAdapter` for the server at `url`. `name` stands in our requests' ids; `api_key` is the
    server's, if any."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "vllm",
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._http = Http(self._url, name, api_key, transport)
        self._routes = PluginRoutes(self._http)
        self._loras = Loras(self._http, self._routes)
        self._models = Models(self._http, self._routes)
        self._inside: PluginState | None = None
        self._info: EngineInfo | None = None
        self._usage_details: bool | None = None

    async def probe(self) -> EngineInfo:
        """Ask who the engine is. Once in an engine's life this sends it a prompt of one token."""
        version = (await self._get("/version")).get("version")
        if not isinstance(version, str):
            raise ProtocolMismatch("/version tells no version")
        base_models = openai.base_models(await openai.model_cards(self._http))
        text = await self._http.text("/metrics", deadline=ASK_SECONDS)
        samples = metrics.parse(text)
        feed, replay = await find_listener(self._find_feed, BINDS, within=ASK_SECONDS)
        if self._info is None or self._info.incarnation != probe.incarnation(samples):
            self._usage_details = await self._probe_usage(next(iter(base_models)))
        facts = probe.Facts(
            version=version,
            base_models=base_models,
            samples=samples,
            lora_enabled=metrics.has_loras(text),
            lora_route=await self._http.status(LOAD_LORA, deadline=ASK_SECONDS) == 405,
            usage_details=self._usage_details,
            feed=feed,
            replay=replay,
            inside=await self._routes.state(ASK_SECONDS),
            asleep=await self._models.asleep(),
        )
        self._inside = facts.inside
        self._info = probe.describe(facts)
        self._loras.exact = Capability.EVICT in self._info.capabilities[MemoryKind.LORA]
        return self._info

    async def inventory(self) -> Inventory:
        """Return the LoRAs that the server answers to, and what the plug-in tells: which of them are where, and whether
        the model sleeps."""
        known = openai.loras(await openai.model_cards(self._http))
        if self._inside is None:
            return replace(known, asleep=await self._models.asleep())
        await self._look_inside()
        inside = self._inside
        places = None if inside.loras is None else inside.loras.places()
        return replace(known, lora_places=places, asleep=inside.asleep)

    async def pressure(self) -> Pressure:
        """Read the server's counters. While the model sleeps they stand still: then the plug-in tells who waits."""
        counted = metrics.pressure(metrics.parse(await self._http.text("/metrics", deadline=ASK_SECONDS)))
        if self._inside is None or not self._inside.asleep:
            return counted
        inside = await self._routes.state(ASK_SECONDS)
        return counted if inside is None else replace(counted, running=0, waiting=inside.requests)

    async def serving(self) -> int | None:
        """Return the server's count of requests; one that doesn't keep it (`--enable-server-load-tracking`) says 0."""
        try:
            answer = await self._http.json("GET", "/load", deadline=ASK_SECONDS)
        except (Unsupported, NotFound):
            return None
        count = answer.get("server_load") if isinstance(answer, dict) else None
        if not isinstance(count, int):
            raise ProtocolMismatch(f"/load answered {answer!r}")
        return count

    async def _look_inside(self) -> None:
        self._inside = await self._routes.state(ASK_SECONDS) or self._inside

    async def load(self, item: Item, tier: Tier, *, deadline: float) -> Outcome:
        """Compute or touch a prefix; register or touch a LoRA, or move it where the plug-in can; wake or exchange a
        model. Only LoRAs go to `Tier.HOST`, by the plug-in."""
        if tier is not Tier.DEVICE and not (
            isinstance(item, LoraItem) and self._loras.exact and tier is Tier.HOST
        ):
            raise Unsupported(f"this engine loads {item.kind} to the device alone, not to {tier}")
        self._check_capable(item.kind, Capability.LOAD)
        async with within(deadline, f"loading {item.kind}"):
            if not isinstance(item, ModelItem):
                await self._check_awake()
            match item:
                case PrefixItem():
                    outcome = await self._load_prefix(item, deadline)
                case LoraItem():
                    outcome = await self._loras.load(item, tier, deadline)
                case ModelItem():
                    outcome = await self._models.load(item, deadline)
                    await self._look_inside()
        return outcome

    async def evict(self, item: Item, to: Tier, *, deadline: float) -> Outcome:
        """Free a LoRA's slot or memory, drop an agent's idle blocks, or put the model to sleep. Raise `Unsupported`
        where only the stock routes are there: they let go of names, never of memory."""
        self._check_capable(item.kind, _needed(item, to))
        async with within(deadline, f"evicting {item.kind}"):
            match item:
                case PrefixItem():
                    outcome = await self._evict_prefix(item, deadline)
                case LoraItem():
                    outcome = await self._loras.evict(item, to, deadline)
                case ModelItem():
                    outcome = await self._models.evict(to, deadline)
                    await self._look_inside()
        return outcome

    async def release(self, item: Item, *, deadline: float) -> Outcome:
        """Make the server forget a LoRA's name. A name it doesn't know is fine."""
        if not isinstance(item, LoraItem):
            raise Unsupported(f"a {item.kind} has no name in vLLM that could be released")
        async with within(deadline, f"releasing {item.kind}"):
            return await self._loras.release(item, deadline)

    async def tokenize(
        self, model: str, *, text: str | None = None, messages: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[int, ...]:
        """Return the tokens of a prompt, or of the beginning of a conversation: without a turn for the
        answer."""
        return await openai.tokenize(self._http, model, text, messages)

    def events(self) -> AsyncIterator[ResidencyEvent]:
        """Yield `Cleared` and all that the engine can replay, then what happens; `FeedLost` where it tells
        nothing."""
        return KvFeed(self._find_feed).events()

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    # Prefixes

    async def _load_prefix(self, item: PrefixItem, deadline: float) -> Outcome:
        if not item.token_ids:
            raise Rejected("a prefix without tokens")
        if self._info is None or item.model not in self._info.base_models:
            await self._check_model(item.model)
        # A prompt that ends with a block is never taken whole from the cache: its last block would be
        # computed again.
        prompt = [*item.token_ids, item.token_ids[-1]]
        extra = {} if item.cache_salt is None else {"cache_salt": item.cache_salt}
        outcome = await one_token(self._http, item.model, prompt, deadline, session_id=item.agent, **extra)
        tokens = len(item.token_ids)
        return Outcome(outcome.seconds, tokens, min(outcome.cached, tokens))

    async def _check_model(self, model: str) -> None:
        """Refuse a LoRA's name whose files are gone: the engine may have to read them, and would die."""
        path = openai.loras(await openai.model_cards(self._http)).loras.get(model)
        if path is not None:
            openai.check_files(LoraItem(model, Path(path)))
            await self._loras.check_slot(model)

    async def _evict_prefix(self, item: PrefixItem, deadline: float) -> Outcome:
        """Drop all idle blocks of the item's agent; what a host tier holds of them stays there."""
        started = monotonic()
        await self._routes.evict(item.agent, deadline)
        return Outcome(monotonic() - started)

    # Probing

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self._http.json("GET", path, deadline=ASK_SECONDS)
        if not isinstance(answer, dict):
            raise ProtocolMismatch(f"{path} answered {answer!r}")
        return answer

    async def _probe_usage(self, model: str) -> bool | None:
        body = {"model": model, "prompt": [ANY_TOKEN], "max_tokens": 1, "temperature": 0}
        try:
            answer = await self._http.json("POST", COMPLETIONS, body, deadline=ASK_SECONDS)
        except DeadlineExceeded:
            return None
        return usage(answer).get("prompt_tokens_details") is not None

    async def _find_feed(self) -> Source:
        """Return where the engine publishes. Raises `Unsupported`, with the remedy, where it doesn't."""
        try:
            sources = await self._get("/kv_event_sources")
        except (Unsupported, NotFound) as error:
            raise Unsupported(f"{error}: a vLLM that has this route") from error
        if not all(isinstance(source, dict) for source in sources.values()):
            raise ProtocolMismatch(f"/kv_event_sources answered {sources!r}")
        published = [source for source in sources.values() if source.get("publisher") == "zmq"]
        if not published:
            raise Unsupported(probe.KV_EVENTS)
        if len(published) > 1:
            raise Unsupported("several engines answer at one address: serve each at an address of its own")
        samples = metrics.parse(await self._http.text("/metrics", deadline=ASK_SECONDS))
        if refused := probe.refusal(samples):
            raise Unsupported(refused)
        replay = published[0].get("replay_endpoint")
        return Source(
            reachable_form(published[0]["endpoint"], self._url),
            reachable_form(replay, self._url) if replay else None,
            probe.incarnation(samples),
        )

    async def _check_awake(self) -> None:
        """Refuse what would wait until the model is woken, or write to memory that is not there now."""
        can_sleep = self._info is not None and Capability.SLEEP in self._info.capabilities[MemoryKind.MODEL]
        if can_sleep and await self._models.asleep():
            raise Busy("the model is asleep")

    def _check_capable(self, kind: MemoryKind, needed: Capability) -> None:
        """Refuse what a probe has not found the engine to offer; before the first probe, what stock engines don't."""
        known = STOCK if self._info is None else self._info.capabilities
        if needed not in known[kind]:
            missing = () if self._info is None else self._info.missing
            remedies = "; ".join(f"{lack.what}: {lack.remedy}" for lack in missing)
            raise Unsupported(
                f"this engine can't {str(needed.name).lower()} {kind}: {remedies or probe.PLUGIN}"
            )


def _needed(item: Item, to: Tier) -> Capability:
    if isinstance(item, ModelItem):
        return Capability.SLEEP
    return Capability.DEMOTE if to is Tier.HOST else Capability.EVICT
