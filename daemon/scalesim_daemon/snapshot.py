"""From the views to what the planner sees: one immutable picture of one engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from scalesim_adapters import lorafiles
from scalesim_adapters.base import Capability, EngineInfo, MemoryKind
from scalesim_daemon.eviction import Group
from scalesim_daemon.plan import BlockCache, LoraCache, LoraWish, Lot, ModelCache, ModelState, Wish
from scalesim_daemon.population import Population
from scalesim_daemon.promptslots import PromptSlots
from scalesim_daemon.view import EngineView

PINNED_SECONDS = -1.0


class Ranking:
    """Every agent's distance in wall seconds as the planner takes it at `wall` time: pinned agents are nearer than
    any."""

    def __init__(self, population: Population, pins: Collection[str], wall: float) -> None:
        self._population = population
        self._pins = pins
        self.wall = wall
        self._chances = {source: quality.chance() for source, quality in population.qualities().items()}

    def with_pins(self, more: Collection[str]) -> Ranking:
        """Return the ranking in which these agents, too, are nearer than any."""
        return Ranking(self._population, {*self._pins, *more}, self.wall) if more else self

    def foreseen(self, agent: str) -> tuple[float, float]:
        """Return the agent's distance, infinity where nothing is foreseen; and the chance that it calls before those
        who are said to be farther, though they have called later: what its stream's estimates are worth, of late."""
        if agent in self._pins:
            return PINNED_SECONDS, 1.0
        nearest = self._population.board.nearest(agent)
        if nearest is None:
            return math.inf, 1.0
        source, due = nearest
        return due.seconds, self._chances[source]

    def seconds(self, agent: str) -> float:
        """Return the agent's distance; infinity where nothing is foreseen."""
        return self.foreseen(agent)[0]

    def left(self, agent: str) -> float:
        """Return in how many wall seconds the agent's call is to be expected; 0 where it is pinned."""
        due = None if agent in self._pins else self._population.board.get(agent)
        return 0.0 if due is None else due.left(self.wall)

    def held(self, agent: str) -> bool:
        """Whether a request of the agent is being served."""
        known = self._population.agents.get(agent)
        return known is not None and known.in_flight > 0

    def recency(self, agent: str) -> int:
        """Return when the agent last called, as a growing number."""
        known = self._population.agents.get(agent)
        return 0 if known is None else known.recency


def block_cache(
    view: EngineView, ranking: Ranking, at_home: Callable[[str], bool], chunk_tokens: int
) -> BlockCache | None:
    """Return the picture of the engine's device blocks; None where it isn't known well enough to plan on."""
    tree, info = view.tree, view.info
    if tree is None or info is None or view.capacity is None or not view.known:
        return None
    view.demoted.intersection_update(tree.agents())
    foreseen = {agent: ranking.foreseen(agent) for agent in tree.agents() if at_home(agent)}
    held = {agent for agent in foreseen if ranking.held(agent)}
    wishes = [
        Wish(
            agent,
            seconds,
            tree.prefix_blocks(agent),
            tree.resident_blocks(agent),
            agent in held,
            chance,
        )
        for agent, (seconds, chance) in foreseen.items()
        if seconds < math.inf or agent in held
    ]
    wishes.sort(key=lambda wish: (wish.seconds, -ranking.recency(wish.agent), wish.agent))
    # A prompt in a slot is one block, of which an act loads one chunk after the other.
    chunk = max(1, chunk_tokens // tree.block_size)
    nearness = {agent: seconds for agent, (seconds, _) in foreseen.items()}
    nearness.update(dict.fromkeys(held, PINNED_SECONDS))
    lots = [_lot(group, nearness) for group in tree.groups()]
    if Capability.PLACE in info.capabilities.get(MemoryKind.PREFIX_KV, Capability.NONE):
        # What goes is ours to choose: the farthest.
        lots.sort(key=lambda lot: -lot.seconds)
    return BlockCache(
        free=max(0, view.capacity - tree.resident),
        lots=tuple(lots),
        wishes=tuple(wishes),
        chunk=chunk,
        reserve=_reserve(wishes, view.blocks_per_invocation),
        overhead=0 if isinstance(tree, PromptSlots) else 1,
        capacity=view.capacity,
        demoted=frozenset(view.demoted) if _can_demote(info) else None,
        settling=view.settling(),
        block_seconds=view.times.prefix.of(chunk * tree.block_size) / chunk,
        price=view.quiet.price(ranking.wall),
    )


def model_cache(
    views: Mapping[str, EngineView],
    population: Population,
    ranking: Ranking,
    at_home: Callable[[str, str], bool],
    budget: int,
) -> ModelCache:
    """Return the picture of the models that share a memory: of the engines whose model's size is known. What can't be
    put to sleep, or doesn't answer, is taken to be awake and to stay so."""
    nearest = dict.fromkeys(views, math.inf)
    whose = dict.fromkeys(views, "")
    for agent in population.agents:
        seconds = ranking.seconds(agent)
        if seconds < math.inf:
            for name in views:
                if seconds < nearest[name] and at_home(name, agent):
                    nearest[name], whose[name] = seconds, agent
    models = []
    for name, view in views.items():
        if view.model_bytes is not None:
            steered = _can_sleep(view)
            awake, held = not (steered and view.asleep), view.serving or not steered
            models.append(
                ModelState(
                    name,
                    view.model_bytes,
                    awake,
                    nearest[name],
                    held,
                    ranking.left(whose[name]),
                    view.times.wake.of(view.model_bytes),
                    view.times.sleep.of(view.model_bytes),
                    ranking.foreseen(whose[name])[1],
                )
            )
    return ModelCache(tuple(models), budget)


def _can_demote(info: EngineInfo) -> bool:
    """Whether the engine can be told who is to lose blocks first, and doesn't rank by dues itself."""
    capabilities = info.capabilities.get(MemoryKind.PREFIX_KV, Capability.NONE)
    return Capability.DEMOTE in capabilities and Capability.HINT not in capabilities


def _can_sleep(view: EngineView) -> bool:
    capabilities = view.info.capabilities[MemoryKind.MODEL] if view.info is not None else Capability.NONE
    return view.reachable and Capability.SLEEP in capabilities


def _lot(group: Group, nearness: Mapping[str, float]) -> Lot:
    """Agents at home elsewhere, which `nearness` lacks, will not call here."""
    ranked = sorted((nearness.get(user, math.inf), user) for user in group.users)
    return Lot(group.blocks, tuple(user for _, user in ranked), ranked[0][0] if ranked else math.inf)


def _reserve(wishes: list[Wish], blocks_per_invocation: float) -> int:
    """Blocks that the very next invocations will take beyond their prefixes."""
    waiting = [wish.seconds for wish in wishes if wish.seconds >= 0 and not wish.held]
    return math.ceil(waiting.count(min(waiting)) * blocks_per_invocation) if waiting else 0


def lora_cache(
    view: EngineView,
    population: Population,
    ranking: Ranking,
    links: Mapping[str, tuple[Path, int, bool]],
    staging_free: int,
) -> LoraCache:
    """Return the picture of the engine's LoRAs. `links` gives each LoRA's link, its size in
    bytes and whether it is staged."""
    owners: dict[str, list[str]] = {}
    for agent in population.agents.values():
        if agent.memory is not None and agent.memory.lora_name is not None:
            owners.setdefault(agent.memory.lora_name, []).append(agent.key)
    nearest = {name: min(agents, key=ranking.seconds) for name, agents in owners.items()}
    wishes = tuple(
        LoraWish(
            name,
            ranking.seconds(nearest[name]),
            links[name][1],
            links[name][2],
            name in view.loras.registered,
            any(ranking.held(agent) for agent in agents),
            lorafiles.supersedes(str(links[name][0]), view.loras.registered.get(name, "")),
            view.times.staging.of(links[name][1]),
            view.times.lora.of(links[name][1]),
            ranking.foreseen(nearest[name])[1],
        )
        for name, agents in owners.items()
        if name in links
    )
    # What nobody uses any more may still be staged: it makes room first.
    wishes += tuple(
        LoraWish(
            name,
            math.inf,
            size,
            staged=True,
            registered=True,
            stage_seconds=view.times.staging.of(size),
        )
        for name, (_, size, staged) in links.items()
        if staged and name not in owners
    )
    places = view.loras
    return LoraCache(
        tuple(places.device),
        tuple(places.host),
        places.device_places,
        places.host_places,
        wishes,
        staging_free,
        view.quiet.price(ranking.wall),
    )
