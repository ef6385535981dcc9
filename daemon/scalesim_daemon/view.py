"""What the daemon knows of one engine: its blocks, LoRA places and pressure, and whether that is current."""

from __future__ import annotations

import math
from array import array
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

from scalesim_adapters.base import (
    Cleared,
    EngineInfo,
    FeedLost,
    Inventory,
    MemoryKind,
    Pressure,
    Removed,
    ResidencyEvent,
    Stored,
)
from scalesim_daemon.blocks import BlockTree
from scalesim_daemon.fleet import lease_clock
from scalesim_daemon.fleet.lease import Lease
from scalesim_daemon.ledger import Ledger
from scalesim_daemon.loadtimes import LoadTimes
from scalesim_daemon.nearness import Nearness
from scalesim_daemon.plan import Step
from scalesim_daemon.population import Agent, Memory
from scalesim_daemon.promptslots import Prefix, PromptSlots
from scalesim_daemon.quiet import Quiet
from scalesim_daemon.strangers import Strangers

# How long a simulation may take after a call to say what its agent does next.
SETTLE_SECONDS = 1.0
NOT_ASKED = "not probed yet"
# Beyond that, the one that was called by longest ago is taken for an agent's key again.
MOST_SESSIONS = 20_000
# Of an engine that doesn't tell how many LoRAs it holds, so many of those that were used last are taken for held.
MOST_LORAS = 20_000


class LoraPlaces:
    """The LoRAs an engine holds, by its rule: least recently used out first, on the device and on the host.

    Where an engine doesn't tell which LoRA is where, this is a shadow of its bookkeeping, fed by every use. Where it
    does, what it tells is taken, and the shadow serves in between.
    """

    def __init__(self) -> None:
        self.registered: dict[str, str] = {}
        self.device: OrderedDict[str, None] = OrderedDict()
        self.host: OrderedDict[str, None] = OrderedDict()
        self.device_places: int | None = None
        self.host_places: int | None = None
        self.exact = False

    def told(self, inventory: Inventory) -> None:
        """The engine told which LoRAs it knows, and maybe where they are."""
        self.registered = dict(inventory.loras)
        places = inventory.lora_places
        self.exact = places is not None
        if places is not None:
            self.device = OrderedDict.fromkeys(places.device)
            self.host = OrderedDict.fromkeys(places.host)

    def used(self, name: str) -> None:
        """A request for the LoRA, or its loading, brings it into a slot and to the back of both orders. What
        leaves the host leaves its slot too."""
        self.host[name] = None
        self.host.move_to_end(name)
        while len(self.host) > (MOST_LORAS if self.host_places is None else self.host_places):
            self.device.pop(self.host.popitem(last=False)[0], None)
        self.device[name] = None
        self.device.move_to_end(name)
        while self.device_places is not None and len(self.device) > self.device_places:
            self.device.popitem(last=False)

    def forgotten(self, name: str) -> None:
        """The engine dropped the name; the weights stay where they are until they are the oldest."""
        self.registered.pop(name, None)

    def cleared(self) -> None:
        """The engine restarted: it knows no LoRA."""
        self.registered.clear()
        self.device.clear()
        self.host.clear()


class EngineView:
    """One engine as seen from here. `lease` is None where no other daemon may drive it; `standby`: it is another
    daemon's, on another host. `info` is None while the engine can't be reached; `known` is False while events are
    missing, and then nothing is planned for its blocks."""

    def __init__(self, name: str, *, quiet_share: float) -> None:
        self.name = name
        self.lease: Lease | None = None
        self.standby = False
        self.info: EngineInfo | None = None
        self.error: str | None = NOT_ASKED
        self.known = False
        self.unknown_why: str | None = "the engine's KV events are not heard yet"
        self.tree: BlockTree | PromptSlots | None = None
        self.order: Nearness | None = None
        self.loras = LoraPlaces()
        self.asleep = False
        self.model_bytes: int | None = None
        self.chunk_tokens = 256
        self.quiet = Quiet(quiet_share)
        self.ledger = Ledger()
        self.times = LoadTimes()
        self.restarts = 0
        self.lost_blocks = 0
        self.requests_started = 0  # ours and announced ones
        self.announced = 0  # of these the announced ones
        self.served: dict[str, float] = {}
        self.seen: set[str] | None = None
        """Agents that were served since somebody looked, where anybody does."""
        self.ours: tuple[str, float] = "", -math.inf
        """The agent that a request of ours is for, or was for last, and until when the feed may tell of that."""
        self.demoted: set[str] = set()
        self.strangers: Strangers | None = None
        self._sessions: OrderedDict[str, str | None] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._serving: Counter[str] = Counter()
        self.blocks_per_invocation = 4.0
        self._stored_since_loss = 0
        self._early: list[ResidencyEvent] = []

    def probed(self, info: EngineInfo) -> bool:
        """Take in a probe; return whether this is an engine process that wasn't known."""
        fresh = self.info is None or self.info.incarnation != info.incarnation
        restarted = self.info is not None and fresh
        self.info, self.error = info, None
        if info.prompt_slots is not None:
            if not isinstance(self.tree, PromptSlots) or self.tree.count != info.prompt_slots:
                self.tree, self.blocks_per_invocation = PromptSlots(info.prompt_slots), 0.0
            self.known, self.unknown_why = True, None
        elif self.has_slots:
            self.tree = None
            self.known, self.unknown_why = False, "the engine doesn't keep what is in its slots"
        elif info.block_size and (self.tree is None or self.tree.block_size != info.block_size):
            # With other blocks nothing that was known of the old ones means anything.
            self.tree = BlockTree(info.block_size)
            for event in self._early:
                self.happened(event)
            self._early.clear()
        if info.lora_slots is not None:
            self.loras.device_places = info.lora_slots
        if info.lora_host_places is not None:
            self.loras.host_places = info.lora_host_places
        if restarted:
            self.restarts += 1
            self.loras.cleared()
            self.demoted.clear()
            self.quiet.restarted()
            self.ledger.restarted()
            if isinstance(self.tree, PromptSlots):
                self.tree.cleared()
        return fresh

    def told(self, inventory: Inventory) -> None:
        """Take in what the engine says is there."""
        self.loras.told(inventory)
        self.asleep = bool(inventory.asleep)
        if isinstance(self.tree, PromptSlots) and inventory.slot_requests is not None:
            self.tree.told(inventory.slot_requests)

    def measured(self, pressure: Pressure | None, ours: int, wall: float) -> bool:
        """Take in the engine's counts, with so many requests of ours under way; return whether requests wait."""
        if pressure is None:
            # Whoever can't be seen may be there.
            self.quiet.met_others(wall)
            pressure = Pressure(ours, 0, None)
        if ours and (pressure.running, pressure.waiting) == (0, 1):
            # The one request is ours, and the engine hasn't begun it yet.
            pressure = replace(pressure, running=1, waiting=0)
        known = self.in_flight + ours if pressure.finished is None else self.requests_started
        self.quiet.observe(pressure, known, wall)
        return pressure.waiting > 0

    def unreachable(self, why: str) -> bool:
        """The engine doesn't answer: nothing is planned until it does. Return whether that is news."""
        news = self.error is None
        self.error = why
        return news

    @property
    def driven(self) -> bool:
        """Whether this daemon may act on the engine now."""
        return self.lease is None or self.lease.may_act(lease_clock.now())

    @property
    def asked(self) -> bool:
        """Whether a probe has been answered, or failed."""
        return self.error != NOT_ASKED

    @property
    def reachable(self) -> bool:
        """Whether the last probe or call was answered."""
        return self.info is not None and self.error is None

    @property
    def has_slots(self) -> bool:
        """Whether the engine keeps whole prompts, which needn't be known by their tokens."""
        return isinstance(self.tree, PromptSlots)

    @property
    def capacity(self) -> int | None:
        """Return how many blocks requests can use, or how many slots there are; None where that isn't known."""
        if isinstance(self.tree, PromptSlots):
            return self.tree.count
        return None if self.info is None else self.info.device_blocks

    @property
    def in_flight(self) -> int:
        """How many announced requests are being served."""
        return self._serving.total()

    @property
    def serving(self) -> bool:
        """Whether requests run or wait, announced ones or any that the engine counts."""
        pressure = self.quiet.pressure
        counted = pressure is not None and pressure.running + pressure.waiting > 0
        return counted or self.in_flight > 0

    def takes(self, step: Step) -> float:
        """Return how many seconds a step is likely to take, 0 for one that brings in nothing."""
        load = self.times.of_step(step)
        return 0.0 if load is None else load.of(self._amount(step))

    def took(self, step: Step, seconds: float) -> None:
        """A step was carried out, which took so long."""
        load = self.times.of_step(step)
        if load is not None:
            load.learn(self._amount(step), seconds)

    def _amount(self, step: Step) -> int:
        if step.kind is MemoryKind.PREFIX_KV:
            return (step.stop - step.start) * (self.tree.block_size if self.tree is not None else 1)
        return step.bytes

    def happened(self, event: ResidencyEvent) -> None:
        """Take in one event of the engine's feed. What has slots has none."""
        if isinstance(self.tree, PromptSlots):
            return
        if self.tree is None:
            self._early.append(event)
            return
        match event:
            case Stored():
                event = self._named(event)
                self.tree.stored(event)
                if event.agent is not None:
                    agent, until = self.ours
                    self.serves(event.agent, ours=event.agent == agent and monotonic() < until)
                    self.demoted.discard(event.agent)
                    self._forget_stranger(event.agent)
                self._relearn(len(event.hashes))
            case Removed():
                self.lost_blocks += self.tree.removed(event)
            case Cleared():
                self.tree.cleared()
                self.known, self.unknown_why = True, None
            case FeedLost(reason):
                self.tree.cleared()
                self.known, self.unknown_why = False, reason
                self._stored_since_loss = 0

    def serves(self, agent: str, *, ours: bool = False) -> None:
        """A call of the agent is being served here, or a request of `ours` for it, which says nothing of its calls."""
        self.served[agent] = monotonic()
        if self.seen is not None and not ours:
            self.seen.add(agent)

    def _forget_stranger(self, session: str) -> None:
        stranger = None if self.strangers is None else self.strangers.served(session)
        if stranger is not None:
            self.forget(stranger)

    def called(self, session: str, agent: str) -> None:
        """The agent's requests go by a session of another name: what the engine stores for it is the agent's, unless
        other agents share it."""
        known = self._sessions.pop(session, agent)
        self._sessions[session] = agent if known == agent else None
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)

    def _named(self, event: Stored) -> Stored:
        agent = None if event.agent is None else self._sessions.get(event.agent)
        return event if agent is None else replace(event, agent=agent)

    def _relearn(self, stored: int) -> None:
        """After a loss, everything is known again once the engine has filled its cache anew."""
        if self.known:
            return
        self._stored_since_loss += stored
        if self.capacity is not None and self._stored_since_loss >= self.capacity:
            self.known, self.unknown_why = True, None

    def settling(self) -> frozenset[str]:
        """Return the agents that have called just now, of whom nothing may be foreseen yet."""
        late = monotonic() - SETTLE_SECONDS
        while self._ended and next(iter(self._ended.values())) < late:
            self._ended.popitem(last=False)
        return frozenset(self._ended)

    def bound(self, agent: str, memory: Memory) -> None:
        """An agent's memory was bound: what was declared of its prefix before holds no longer."""
        if self.tree is None:
            return
        namespace = (memory.lora_name, memory.cache_salt)
        if isinstance(self.tree, PromptSlots):
            if memory.token_ids is not None:
                self.tree.declare(agent, Prefix(namespace, memory.token_ids))
            else:
                self.tree.forget(agent)
        elif memory.token_ids is not None:
            self.tree.declare(agent, namespace, memory.token_ids)
        else:
            self.tree.undeclare(agent)

    def tokenized(self, agent: str, memory: Memory, tokens: Sequence[int] | None) -> None:
        """The engine told the tokens of an agent's declared prefix; None where it doesn't: in a slot they aren't
        needed."""
        namespace = (memory.lora_name, memory.cache_salt)
        if isinstance(self.tree, PromptSlots):
            unread = (None, memory.text, memory.messages)
            prefix = Prefix(namespace, array("I", tokens)) if tokens else Prefix(namespace, *unread)
            self.tree.declare(agent, prefix)
        elif self.tree is not None and tokens is not None:
            self.tree.declare(agent, namespace, tokens)

    def forget(self, agent: str) -> None:
        """The agent is gone, or has let go of its memory."""
        self.served.pop(agent, None)
        self.demoted.discard(agent)
        self._ended.pop(agent, None)
        self.ledger.invoked(agent, 0)
        if self.tree is not None:
            self.tree.forget(agent)

    def started(self, agent: Agent) -> None:
        """An announced request of the agent is on its way."""
        self.requests_started += 1
        self.announced += 1
        self._serving[agent.key] += 1
        self.demoted.discard(agent.key)
        if self.tree is not None:
            resident = self.tree.resident_tokens(agent.key)
            self.ledger.called(self.tree.prefix_tokens(agent.key), resident)
            self.ledger.invoked(agent.key, resident)
            self.tree.started(agent.key)
        if agent.memory is not None and agent.memory.lora_name in self.loras.registered:
            self.loras.used(agent.memory.lora_name)
            self.ledger.used_up(MemoryKind.LORA, agent.memory.lora_name)

    def finished(self, agent: str, lora_name: str | None) -> bool:
        """An announced request of the agent has ended; the engine used its LoRA in every step until then. Return
        whether it was here."""
        if not self._serving[agent]:
            return False
        self._serving[agent] -= 1
        if not self._serving[agent]:
            del self._serving[agent]
        self._ended[agent] = monotonic()
        self._ended.move_to_end(agent)
        if isinstance(self.tree, PromptSlots):
            self.serves(agent)
        if self.tree is not None:
            left = self.tree.released(agent)
            self.blocks_per_invocation += 0.1 * (left - self.blocks_per_invocation)
        if lora_name in self.loras.registered:
            self.loras.used(lora_name)
        return True
