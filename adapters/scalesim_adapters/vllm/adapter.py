"""Drives one stock vLLM server: through its OpenAI and LoRA routes, its metrics and its KV event feed, no
more.

Nothing here sends what is known to end an engine (vLLM 0.32): a LoRA load in place, a pinned LoRA, or any
request that makes the engine read a LoRA whose files are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

from scalesim_adapters.base import (
    Capability,
    DeadlineExceeded,
    EngineInfo,
    EngineUnavailable,
    Inventory,
    Item,
    LoraItem,
    MemoryKind,
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
from scalesim_adapters.vllm import metrics, probe
from scalesim_adapters.vllm.http import Http, within
from scalesim_adapters.vllm.kvfeed import KvFeed
from scalesim_adapters.vllm.kvlink import Source, listens, reachable_form

ASK_SECONDS = 10.0
LOAD_LORA = "/v1/load_lora_adapter"
UNLOAD_LORA = "/v1/unload_lora_adapter"
# Where the engine schedules by priority, smaller numbers come first and ours come after everyone's.
PRIORITY = 1_000_000
LORA_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
ANY_TOKEN = 1


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
        self._loras = asyncio.Lock()
        self._info: EngineInfo | None = None
        self._usage_details: bool | None = None

    async def probe(self) -> EngineInfo:
        """Ask who the engine is. Once in an engine's life this sends it a prompt of one token."""
        version = (await self._get("/version")).get("version")
        if not isinstance(version, str):
            raise ProtocolMismatch("/version tells no version")
        models = await self._models()
        text = await self._http.text("/metrics", deadline=ASK_SECONDS)
        samples = metrics.parse(text)
        feed, replay = await self._probe_feed()
        base_models = {card["id"]: card.get("max_model_len") for card in models if card.get("parent") is None}
        if not base_models:
            raise ProtocolMismatch("/v1/models lists no base model")
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
        )
        self._info = probe.describe(facts)
        return self._info

    async def inventory(self) -> Inventory:
        """Return the LoRAs that the server answers to; whether their weights are on the device it doesn't
        say."""
        cards = [card for card in await self._models() if card.get("parent") is not None]
        return Inventory({card["id"]: str(card.get("root")) for card in cards})

    async def pressure(self) -> Pressure:
        """Read the server's counters."""
        return metrics.pressure(metrics.parse(await self._http.text("/metrics", deadline=ASK_SECONDS)))

    async def load(self, item: Item, tier: Tier, *, deadline: float) -> Outcome:
        """Compute or touch a prefix; register or touch a LoRA. Only `Tier.DEVICE`."""
        if tier is not Tier.DEVICE:
            raise Unsupported(f"vLLM's stock routes load to the device alone, not to {tier}")
        self._check_capable(item.kind)
        async with within(deadline, f"loading {item.kind}"):
            match item:
                case PrefixItem():
                    return await self._load_prefix(item, deadline)
                case LoraItem():
                    return await self._load_lora(item, deadline)

    async def evict(self, item: Item, to: Tier, *, deadline: float) -> Outcome:
        """Raise `Unsupported`: the stock routes let go of names, never of memory."""
        raise Unsupported("vLLM's stock routes can't evict one item")

    async def release(self, item: Item, *, deadline: float) -> Outcome:
        """Make the server forget a LoRA's name; its weights and KV age out. A name it doesn't know is
        fine."""
        if isinstance(item, PrefixItem):
            raise Unsupported("a prefix has no name in vLLM; it ages out")
        started = monotonic()
        async with within(deadline, UNLOAD_LORA), self._loras:
            with suppress(NotFound):
                await self._http.send("POST", UNLOAD_LORA, {"lora_name": item.name}, deadline=deadline)
        return Outcome(monotonic() - started)

    async def tokenize(
        self, model: str, *, text: str | None = None, messages: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[int, ...]:
        """Return the tokens of a prompt, or of the beginning of a conversation: without a turn for the
        answer."""
        if (text is None) == (messages is None):
            raise ValueError("give exactly one of text and messages")
        body: dict[str, Any] = {"model": model}
        if messages is None:
            body["prompt"] = text
        else:
            body |= {"messages": list(messages), "add_generation_prompt": False}
        answer = await self._http.json("POST", "/tokenize", body, deadline=ASK_SECONDS)
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list) or not all(isinstance(token, int) and token >= 0 for token in tokens):
            raise ProtocolMismatch("/tokenize answered without tokens")
        return tuple(tokens)

    def events(self) -> AsyncIterator[ResidencyEvent]:
        """Yield `Cleared` and all that the engine can replay, then what happens; `FeedLost` where it tells
        nothing."""
        return KvFeed(self._find_feed).events()

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    # One-token requests

    async def _load_prefix(self, item: PrefixItem, deadline: float) -> Outcome:
        if not item.token_ids:
            raise Rejected("a prefix without tokens")
        if self._info is None or item.model not in self._info.base_models:
            await self._check_model(item.model)
        # A prompt that ends with a block is never taken whole from the cache: its last block would be
        # computed again.
        prompt = [*item.token_ids, item.token_ids[-1]]
        extra = {} if item.cache_salt is None else {"cache_salt": item.cache_salt}
        outcome = await self._one_token(item.model, prompt, deadline, session_id=item.agent, **extra)
        tokens = len(item.token_ids)
        return Outcome(outcome.seconds, tokens, min(outcome.cached, tokens))

    async def _check_model(self, model: str) -> None:
        """Refuse a LoRA's name whose files are gone: the engine may have to read them, and would die."""
        path = (await self.inventory()).loras.get(model)
        if path is not None:
            _check_files(LoraItem(model, Path(path)))

    async def _one_token(self, model: str, prompt: list[int], deadline: float, **extra: Any) -> Outcome:
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0,
            "priority": PRIORITY,
            **extra,
        }
        started = monotonic()
        answer = await self._http.json("POST", "/v1/completions", body, deadline=deadline)
        details = _usage(answer).get("prompt_tokens_details") or {}
        return Outcome(monotonic() - started, len(prompt), details.get("cached_tokens") or 0)

    # LoRAs

    async def _load_lora(self, item: LoraItem, deadline: float) -> Outcome:
        _check_files(item)
        async with self._loras:
            if await self._is_registered(item):
                outcome = await self._one_token(item.name, [ANY_TOKEN], deadline)
                return Outcome(outcome.seconds)
            started = monotonic()
            try:
                body = {"lora_name": item.name, "lora_path": str(item.path)}
                await self._http.send("POST", LOAD_LORA, body, deadline=deadline)
            except Rejected:
                # Somebody else may have loaded it meanwhile.
                if not await self._is_registered(item):
                    raise
            except EngineUnavailable as error:
                # 500 is also what a LoRA that the engine can't take is answered with.
                if await self._http.status("/health", deadline=ASK_SECONDS) == 200:
                    raise Rejected(str(error)) from error
                raise
            return Outcome(monotonic() - started)

    async def _is_registered(self, item: LoraItem) -> bool:
        known = (await self.inventory()).loras.get(item.name)
        if known is None:
            return False
        if known != str(item.path):
            raise Rejected(
                f"the engine knows a LoRA {item.name!r} from {known}: "
                f"unload it, or use that path instead of {item.path}"
            )
        return True

    # Probing

    async def _models(self) -> list[dict[str, Any]]:
        answer = await self._get("/v1/models")
        cards = answer.get("data")
        if not cards or not all(isinstance(card, dict) and "id" in card for card in cards):
            raise ProtocolMismatch("/v1/models lists no model")
        return list(cards)

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self._http.json("GET", path, deadline=ASK_SECONDS)
        if not isinstance(answer, dict):
            raise ProtocolMismatch(f"{path} answered {answer!r}")
        return answer

    async def _probe_usage(self, model: str) -> bool | None:
        body = {"model": model, "prompt": [ANY_TOKEN], "max_tokens": 1, "temperature": 0}
        try:
            answer = await self._http.json("POST", "/v1/completions", body, deadline=ASK_SECONDS)
        except DeadlineExceeded:
            return None
        return _usage(answer).get("prompt_tokens_details") is not None

    async def _probe_feed(self) -> tuple[str | None, bool]:
        """Return why there is no feed, if so, and whether it can be replayed."""
        try:
            source = await self._find_feed()
        except Unsupported as error:
            return str(error), False
        if not await listens(source.endpoint, within=ASK_SECONDS):
            return (
                f"nobody listens at {source.endpoint} as seen from here: vLLM binds only ipc:// and "
                "tcp://*:PORT, and connects to any other address",
                False,
            )
        replay = source.replay_endpoint
        return None, replay is not None and await listens(replay, within=ASK_SECONDS)

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

    def _check_capable(self, kind: MemoryKind) -> None:
        if self._info is not None and Capability.LOAD not in self._info.capabilities[kind]:
            remedies = "; ".join(f"{missing.what}: {missing.remedy}" for missing in self._info.missing)
            raise Unsupported(f"this engine can't load {kind}: {remedies}")


def _check_files(item: LoraItem) -> None:
    """Refuse a path that the engine could die of."""
    if not item.path.is_absolute():
        raise Rejected(f"the path of LoRA {item.name!r} is not absolute: {item.path}")
    if not (item.path / "adapter_config.json").is_file():
        raise Rejected(f"LoRA {item.name!r}: no adapter_config.json under {item.path}")
    if not any((item.path / weights).is_file() for weights in LORA_WEIGHTS):
        raise Rejected(f"LoRA {item.name!r}: none of {', '.join(LORA_WEIGHTS)} under {item.path}")


def _usage(answer: Any) -> dict[str, Any]:
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        raise ProtocolMismatch("/v1/completions answered without usage")
    return usage
