"""Carries out one step of a plan on one engine, and tells its view what was done."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from scalesim_adapters import lorafiles
from scalesim_adapters.base import (
    Busy,
    Capability,
    EngineAdapter,
    EngineError,
    LoraItem,
    MemoryKind,
    ModelItem,
    PrefixItem,
    Rejected,
    Tier,
)
from scalesim_daemon.blocks import BlockTree
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.population import Memory, Population
from scalesim_daemon.promptslots import Prefix, PromptSlots
from scalesim_daemon.view import EngineView

DEADLINE_SECONDS = 30.0
# Waking reads a whole model, from storage at worst.
MODEL_DEADLINE_SECONDS = 300.0

log = structlog.get_logger(__name__)


class Acts:
    """What a driver does to its engine. Raises what adapters and the LoRA library raise."""

    def __init__(
        self, adapter: EngineAdapter, view: EngineView, population: Population, library: LoraLibrary
    ) -> None:
        self._adapter = adapter
        self._view = view
        self._population = population
        self._library = library

    async def perform(self, step: Step) -> int:
        """Carry out a step; return how many tokens the engine computed for it."""
        match step.kind:
            case MemoryKind.PREFIX_KV | MemoryKind.LORA if step.action is Action.EVICT:
                await self._evict(step)
            case MemoryKind.PREFIX_KV if step.action is Action.DEMOTE:
                await self._demote(step.key)
            case MemoryKind.PREFIX_KV if isinstance(self._view.tree, PromptSlots):
                return await self._load_prompt(step, self._view.tree)
            case MemoryKind.PREFIX_KV:
                return await self._load_prefix(step)
            case MemoryKind.LORA:
                await self._move_lora(step)
            case MemoryKind.MODEL:
                await self._move_model(step)
        return 0

    def model(self, memory: Memory | None) -> str:
        """Return the model's name that requests with this memory use."""
        if memory is not None and memory.lora_name is not None:
            return memory.lora_name
        if memory is not None and memory.model is not None:
            return memory.model
        return self._view.info.base_models[0] if self._view.info and self._view.info.base_models else ""

    async def release_lora(self, name: str) -> None:
        """Drop the engine's name for a LoRA that no agent has any more."""
        try:
            path = str(await asyncio.to_thread(self._library.path, name))
            known = self._view.loras.registered.get(name)
            if known is None or (known != path and not lorafiles.supersedes(path, known)):
                return  # not ours, or gone already
            await self._adapter.release(LoraItem(name, Path(known)), deadline=DEADLINE_SECONDS)
            self._view.loras.forgotten(name)
            self._view.ledger.used_up(MemoryKind.LORA, name)
        except (EngineError, OSError, ValueError) as error:
            log.warning("LoRA name not released", engine=self._view.name, lora=name, error=str(error))

    async def _load_prefix(self, step: Step) -> int:
        tree = self._view.tree
        agent = self._population.agents.get(step.key)
        if not isinstance(tree, BlockTree) or tree.prefix_blocks(step.key) < step.stop:
            return 0
        memory = agent.memory if agent is not None else None
        item = PrefixItem(
            step.key,
            self.model(memory),
            tree.tokens(step.key, step.stop),
            memory.cache_salt if memory else None,
        )
        self._view.requests_started += 1
        tree.started(step.key)
        if memory is not None and memory.lora_name is not None:
            self._view.loras.used(memory.lora_name)
        try:
            outcome = await self._adapter.load(item, Tier.DEVICE, deadline=DEADLINE_SECONDS)
        finally:
            tree.released(step.key)
        self._view.demoted.discard(step.key)
        computed = max(0, len(item.token_ids) - outcome.cached)
        self._loaded(step, computed)
        return computed

    async def _load_prompt(self, step: Step, slots: PromptSlots) -> int:
        """Bring a prefix into a slot, chunk by chunk where its tokens are known: what was loaded when the engine is
        needed stays."""
        prefix, agent = slots.prefix(step.key), self._population.agents.get(step.key)
        if prefix is None:
            return 0
        index = slots.place(step.key, frozenset(step.victims), ours=self._places_prompts)
        if index is None:
            raise Busy("no slot is idle that the agent may take")
        model = self.model(agent.memory if agent is not None else None)
        computed, size = 0, 0.0
        slots.started(step.key, index)
        try:
            for item in self._pieces(step, prefix, model, index):
                self._view.requests_started += 1
                outcome = await self._adapter.load(item, Tier.DEVICE, deadline=DEADLINE_SECONDS)
                computed += outcome.tokens - outcome.cached
                size = outcome.tokens
            size = math.inf
        finally:
            slots.released(step.key, size)
        self._loaded(step, computed)
        return computed

    @property
    def _places_prompts(self) -> bool:
        info = self._view.info
        return info is not None and Capability.PLACE in info.capabilities[MemoryKind.PREFIX_KV]

    def _pieces(self, step: Step, prefix: Prefix, model: str, index: int) -> Iterator[PrefixItem]:
        """Yield what to load of a prefix, each piece with those before it. What is there already is touched at once."""
        salt, whole = prefix.namespace[1], PrefixItem(step.key, model, slot=index)
        whole = replace(whole, cache_salt=salt, text=prefix.text, messages=prefix.messages)
        tokens = tuple(prefix.token_ids or ())
        chunk = len(tokens) if step.action is Action.TOUCH else self._view.chunk_tokens
        if not tokens:
            yield whole
            return
        for end in range(chunk, len(tokens) + chunk, chunk):
            yield replace(whole, token_ids=tokens[:end])

    def _loaded(self, step: Step, computed: int) -> None:
        if step.action is Action.TOUCH:
            self._view.ledger.touches += 1
        if computed or step.action is Action.LOAD:
            self._view.ledger.loaded(step.key, computed)

    def done(self, step: Step) -> None:
        """A step is done. Who has gone meanwhile won't use what was loaded: nothing is kept of that."""
        if step.action is Action.LOAD:
            self._view.ledger.brought(step)
        if step.kind is MemoryKind.PREFIX_KV and step.key not in self._population.agents:
            self._view.ledger.invoked(step.key, 0)

    async def _demote(self, agent: str) -> None:
        item = PrefixItem(agent, self.model(None), ())
        # A request that starts meanwhile protects the agent again.
        self._view.demoted.add(agent)
        try:
            await self._adapter.evict(item, Tier.HOST, deadline=DEADLINE_SECONDS)
        except BaseException:
            self._view.demoted.discard(agent)
            raise
        if isinstance(self._view.tree, BlockTree):
            self._view.tree.demoted(agent)

    async def _evict(self, step: Step) -> None:
        """A LoRA keeps its name: who asks for it gets it."""
        if step.kind is MemoryKind.PREFIX_KV:
            prefix = PrefixItem(step.key, self.model(None))
            await self._adapter.evict(prefix, Tier.STORAGE, deadline=DEADLINE_SECONDS)
            return
        lora = LoraItem(step.key, Path(self._view.loras.registered.get(step.key, "")))
        await self._adapter.evict(lora, Tier.STORAGE, deadline=DEADLINE_SECONDS)
        self._view.told(await self._adapter.inventory())

    async def _move_lora(self, step: Step) -> None:
        name = step.key
        match step.action:
            case Action.STAGE:
                await asyncio.to_thread(self._library.stage, name)
            case Action.UNSTAGE:
                await asyncio.to_thread(self._library.unstage, name)
            case _:
                path: Path = await asyncio.to_thread(self._library.path, name)
                await self._bring_lora(LoraItem(name, path), registers=step.action is Action.REGISTER)

    async def _bring_lora(self, item: LoraItem, *, registers: bool) -> None:
        """An engine that moves LoRAs between tiers does so without a request: a new name takes no slot there, and takes
        the place of an old one in one go."""
        loras, info = self._view.loras, self._view.info
        moves = info is not None and Capability.DEMOTE in info.capabilities[MemoryKind.LORA]
        known = loras.registered.get(item.name)
        if not registers and not moves:
            self._view.requests_started += 1
        if registers and known is not None and not moves:
            await self._exchange(LoraItem(item.name, Path(known)), item)
            loras.forgotten(item.name)
        else:
            tier = Tier.HOST if registers and moves else Tier.DEVICE
            await self._adapter.load(item, tier, deadline=DEADLINE_SECONDS)
        if loras.exact:
            self._view.told(await self._adapter.inventory())
        else:
            loras.registered.setdefault(item.name, str(item.path))
            loras.used(item.name)

    async def _exchange(self, old: LoraItem, new: LoraItem) -> None:
        """Give a name to what its LoRA is now. Where the engine doesn't take that, it gets back what it had."""
        lacking = await asyncio.to_thread(lorafiles.lacks, new.path)
        if lacking is not None:
            raise Rejected(f"LoRA {new.name!r}: {lacking} under {new.path}")
        await self._adapter.release(old, deadline=DEADLINE_SECONDS)
        try:
            await self._adapter.load(new, Tier.DEVICE, deadline=DEADLINE_SECONDS)
        except EngineError:
            with suppress(EngineError):
                await self._adapter.load(old, Tier.DEVICE, deadline=DEADLINE_SECONDS)
            raise

    async def _move_model(self, step: Step) -> None:
        item = ModelItem(self.model(None))
        if step.action is Action.WAKE:
            await self._adapter.load(item, Tier.DEVICE, deadline=MODEL_DEADLINE_SECONDS)
        else:
            await self._adapter.evict(item, Tier.HOST, deadline=MODEL_DEADLINE_SECONDS)
        self._view.asleep = step.action is Action.SLEEP
