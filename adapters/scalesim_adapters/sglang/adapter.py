"""Drives one SGLang server: through requests for no token, its LoRA routes, sessions and KV event feed, and with our
plug-in inside it through the routes that put its model to sleep.

A request for no token (`max_new_tokens` 0) brings a prompt's KV from storage or host to the device or computes it, and
a LoRA into a slot. Nothing here sends what is known to end a server (0.5.23): `custom_labels` in a request, and
release or resume of its memory where our plug-in doesn't guard that. LoRAs are loaded once and never again while they
are known: each load gives a LoRA another id, under which none of its cached KV is found.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import Any

import httpx

from scalesim_adapters import metrics
from scalesim_adapters.base import (
    Capability,
    CapacityExceeded,
    DeadlineExceeded,
    EngineError,
    EngineInfo,
    Inventory,
    Item,
    LoraItem,
    LoraPlaces,
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
from scalesim_adapters.openai.routes import ASK_SECONDS
from scalesim_adapters.sglang.models import Models
from scalesim_adapters.sglang.probe import KV_EVENTS, Facts, Server, describe, server_info

GENERATE = "/generate"
ABORT = "/abort_request"
CLOSE_SESSION = "/close_session"
LOAD_LORA = "/load_lora_adapter"
UNLOAD_LORA = "/unload_lora_adapter"
ABORT_SECONDS = 1.0
ANY_TOKEN = 1
FINISHED = ("sglang:num_requests_total", "sglang:num_aborted_requests_total")
FIRST_TOKENS = "sglang:time_to_first_token_seconds"
_WANTED = metrics.parser((*FINISHED, f"{FIRST_TOKENS}_count", f"{FIRST_TOKENS}_sum"))


class SglangAdapter:
    """An `EngineAdapter` for the server at `url`. `name` stands in our requests' ids; `api_key` is the server's, if
    any.

    `tagged` says that every request of this server carries its agent's `session_id`, ours or not. Only then is it
    right to let go of a session, which makes the server prefer to evict what no session uses, and to raise the
    priority of what is touched: requests that nobody tagged would always lose.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "sglang",
        tagged: bool = False,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._name = name
        self._tagged = tagged
        self._http = Http(self._url, name, api_key, transport)
        self._loras = asyncio.Lock()
        self._models = Models(self._http, self._server)
        self._info: EngineInfo | None = None
        self._ages = False

    async def probe(self) -> EngineInfo:
        """Ask who the engine is. It is sent no prompt."""
        server = await self._server()
        base_models = openai.base_models(await openai.model_cards(self._http))
        feed, replay = await find_listener(self._find_feed, KV_EVENTS, within=ASK_SECONDS)
        self._info = describe(Facts(server, base_models, feed, replay, self._tagged))
        self._ages = self._tagged and server.ages_priorities
        return self._info

    async def inventory(self) -> Inventory:
        """Return the LoRAs in the server's host memory. Which of them have a slot, and whether the model sleeps, only
        our plug-in says."""
        known = await self._known_loras()
        plugin = (await self._server()).plugin
        if plugin is None:
            return known
        places = LoraPlaces(tuple(plugin.lora_device), tuple(plugin.lora_host), frozenset(plugin.lora_held))
        return Inventory(known.loras, lora_places=places, asleep=plugin.asleep)

    async def pressure(self) -> Pressure:
        """Ask how many requests run and wait. Those that have finished are counted where metrics are switched on."""
        answer = await self._http.json("GET", "/v1/loads?include=core", deadline=ASK_SECONDS)
        try:
            loads = answer["loads"]
            running = sum(int(load["num_running_reqs"]) for load in loads)
            waiting = sum(int(load["num_waiting_reqs"]) for load in loads)
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolMismatch("/v1/loads answered without counts of requests") from error
        try:
            samples = metrics.parse(await self._http.text("/metrics", deadline=ASK_SECONDS), _WANTED)
        except Unsupported:
            samples = {}
        finished = sum(metrics.total(samples, name) for name in FINISHED)
        return Pressure(running, waiting, finished, metrics.first_tokens(samples, FIRST_TOKENS))

    async def serving(self) -> int | None:
        """Return None: SGLang has only the counts that `pressure` reads."""
        return None

    async def load(self, item: Item, tier: Tier, *, deadline: float) -> Outcome:
        """Compute, bring back or touch a prefix; load a LoRA to the host, or touch it into a slot; wake the model. Only
        `Tier.DEVICE`."""
        if tier is not Tier.DEVICE:
            raise Unsupported(f"SGLang's stock routes load to the device alone, not to {tier}")
        await self._check_capable(item.kind, Capability.LOAD)
        async with within(deadline, f"loading {item.kind}"):
            match item:
                case PrefixItem():
                    return await self._load_prefix(item, deadline)
                case LoraItem():
                    return await self._load_lora(item, deadline)
                case ModelItem():
                    return await self._models.load(item, deadline)

    async def evict(self, item: Item, to: Tier, *, deadline: float) -> Outcome:
        """Let go of an agent's session: its prefix is the first to leave the device when room is needed, for the host
        where the server has a tier there. The agent's next request, or a load, protects it again. Or put the model to
        sleep."""
        if isinstance(item, ModelItem):
            await self._check_capable(item.kind, Capability.SLEEP)
            async with within(deadline, "putting the model to sleep"):
                return await self._models.evict(to, deadline)
        if to is Tier.DEVICE or not isinstance(item, PrefixItem):
            raise Unsupported(f"SGLang's stock routes can't move {item.kind} to {to}")
        await self._check_capable(item.kind, Capability.DEMOTE)
        started = monotonic()
        await self._http.send("POST", CLOSE_SESSION, {"session_id": item.agent}, deadline=deadline)
        return Outcome(monotonic() - started)

    async def release(self, item: Item, *, deadline: float) -> Outcome:
        """Make the server drop a LoRA from its host memory, once no request uses it. A name it doesn't know is
        fine."""
        if not isinstance(item, LoraItem):
            raise Unsupported("only a LoRA has a name in SGLang that can be dropped")
        started = monotonic()
        async with within(deadline, UNLOAD_LORA), self._loras:
            if item.name in (await self._known_loras()).loras:
                await self._http.send("POST", UNLOAD_LORA, {"lora_name": item.name}, deadline=deadline)
        return Outcome(monotonic() - started)

    async def tokenize(
        self, model: str, *, text: str | None = None, messages: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[int, ...]:
        """Return the tokens of a prompt, or of the beginning of a conversation: without a turn for the answer."""
        if model not in {card["id"] for card in await openai.model_cards(self._http)}:
            raise NotFound(f"the server has no model {model!r}")
        return await openai.tokenize(self._http, model, text, messages)

    def events(self) -> AsyncIterator[ResidencyEvent]:
        """Yield `Cleared` and all that the engine can replay, then what happens; `FeedLost` where it tells
        nothing."""
        return KvFeed(self._find_feed).events()

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    # Requests for no token

    async def _load_prefix(self, item: PrefixItem, deadline: float) -> Outcome:
        if not item.token_ids:
            raise Rejected("a prefix without tokens")
        extra = await self._model_fields(item.model)
        if item.cache_salt is not None:
            extra["cache_salt"] = item.cache_salt
        if self._ages:
            # Priorities only rise where a prefix is touched: a clock makes those of long ago lose all the same.
            extra["priority"] = int(time())
        # The last token of a prompt is always computed: with one more, the last block is taken from the cache too.
        prompt = [*item.token_ids, item.token_ids[-1]]
        outcome = await self._no_token(prompt, deadline, session_id=item.agent, **extra)
        tokens = len(item.token_ids)
        return Outcome(outcome.seconds, tokens, min(outcome.cached, tokens))

    async def _model_fields(self, model: str) -> dict[str, Any]:
        """Return what a request for a model carries. A LoRA must be known: the server would load one that it has let
        go of once more, and all that it has cached for it would be lost."""
        if self._info is not None and model in self._info.base_models:
            return {}
        cards = await openai.model_cards(self._http)
        if model in openai.base_models(cards):
            return {}
        path = openai.loras(cards).loras.get(model)
        if path is None:
            raise NotFound(f"the server has no model {model!r}")
        openai.check_files(LoraItem(model, Path(path)))
        return {"lora_path": model}

    async def _no_token(self, prompt: list[int], deadline: float, **extra: Any) -> Outcome:
        rid = f"scalesim-{self._name}-{secrets.token_hex(8)}"
        body = {"rid": rid, "input_ids": prompt, "sampling_params": {"max_new_tokens": 0}, **extra}
        started = monotonic()
        try:
            answer = await self._http.json("POST", GENERATE, body, deadline=deadline)
        except (asyncio.CancelledError, DeadlineExceeded):
            # The server looks only every few seconds whether the connection is still there.
            with suppress(EngineError):
                await self._http.send("POST", ABORT, {"rid": rid}, deadline=ABORT_SECONDS)
            raise
        return Outcome(monotonic() - started, len(prompt), _cached(answer))

    # LoRAs

    async def _load_lora(self, item: LoraItem, deadline: float) -> Outcome:
        openai.check_files(item)
        async with self._loras:
            inventory = await self._known_loras()
            if openai.registered(item, inventory):
                outcome = await self._no_token([ANY_TOKEN], deadline, lora_path=item.name)
                return Outcome(outcome.seconds)
            most = (await self._server()).max_loaded_loras
            if most is not None and len(inventory.loras) >= most:
                raise CapacityExceeded(
                    f"the server holds {most} LoRAs, and one more would displace another with all its cached KV: "
                    f"--max-loaded-loras {most + 1} or more"
                )
            started = monotonic()
            try:
                body = {"lora_name": item.name, "lora_path": str(item.path)}
                await self._http.send("POST", LOAD_LORA, body, deadline=deadline)
            except Rejected:
                # Somebody else may have loaded it meanwhile.
                if not openai.registered(item, await self._known_loras()):
                    raise
            return Outcome(monotonic() - started)

    async def _known_loras(self) -> Inventory:
        return openai.loras(await openai.model_cards(self._http))

    # Probing

    async def _server(self) -> Server:
        return server_info(await self._http.json("GET", "/server_info", deadline=ASK_SECONDS))

    async def _find_feed(self) -> Source:
        """Return where the engine publishes. Raises `Unsupported`, with the remedy, where it doesn't."""
        server = await self._server()
        if server.refusal is not None:
            raise Unsupported(server.refusal)
        events = server.kv_events()
        if events is None:
            raise Unsupported(KV_EVENTS)
        if events.format != "dynamo":
            raise Unsupported(
                '"format": "dynamo" in --kv-events-config: else hashes of different LoRAs are the same'
            )
        replay = events.replay_endpoint
        return Source(
            reachable_form(events.endpoint, self._url),
            reachable_form(replay, self._url) if replay else None,
            server.incarnation,
        )

    async def _check_capable(self, kind: MemoryKind, wanted: Capability) -> None:
        info = self._info or await self.probe()
        if wanted in info.capabilities[kind]:
            return
        remedies = "; ".join(f"{missing.what}: {missing.remedy}" for missing in info.missing)
        if wanted is Capability.DEMOTE and not self._tagged:
            remedies = "the engine's setting `tagged`, where every request carries its agent's session_id"
        raise Unsupported(f"this engine can't {str(wanted.name).lower()} {kind}: {remedies}")


def _cached(answer: Any) -> int:
    """Return how many tokens were found on the device, the host or storage. Raises `CapacityExceeded` for a request
    that the server has aborted."""
    meta = answer.get("meta_info") if isinstance(answer, dict) else None
    if not isinstance(meta, dict) or not isinstance(meta.get("cached_tokens"), int):
        raise ProtocolMismatch(f"{GENERATE} answered without the number of cached tokens")
    reason = meta.get("finish_reason")
    if isinstance(reason, dict) and reason.get("type") == "abort":
        raise CapacityExceeded(f"{GENERATE}: the server aborted the request: {reason.get('message')}")
    return int(meta["cached_tokens"])
