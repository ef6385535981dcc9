"""From the views to what the planner sees: a picture of one engine, drawn as far as it is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, filterfalse, groupby
from pathlib import Path

from scalesim_adapters import lorafiles
from scalesim_adapters.base import Capability, EngineInfo, MemoryKind
from scalesim_daemon.eviction import Group
from scalesim_daemon.nearness import Nearness, Order
from scalesim_daemon.plan import BlockCache, LoraCache, LoraWish, Lot, ModelCache, ModelState, Wish
from scalesim_daemon.population import Population
from scalesim_daemon.promptslots import PromptSlots
from scalesim_daemon.view import EngineView
from scalesim_daemon.wishes import Drawn, Place, Wishes

PINNED_SECONDS = -1.0


class Ranking:
    """Every agent's distance in wall seconds as the planner takes it at `wall` time: pinned agents are nearer than
    any."""

    def __init__(self, population: Population, pins: Collection[str], wall: float) -> None:
        self._population = population
        self._pins = pins
        self.wall = wall
        self._chances = {source: quality.chance() for source, quality in population.qualities().items()}

    @property
    def population(self) -> Population:
        """Whose distances these are."""
        return self._population

    @property
    def pins(self) -> Collection[str]:
        """The agents that are nearer than any."""
        return self._pins

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


def follow(view: EngineView, population: Population) -> Nearness | None:
    """Bring the order of an engine's agents up to date and return it; None where no prefix is known. It is to be done
    also while nothing is planned there: else what changes piles up."""
    if view.order is not None:
        view.order.refresh(view.tree)
    elif view.tree is not None:
        view.order = Nearness(view.tree, population)
        view.order.refresh(view.tree)
    return view.order if view.tree is not None else None


def block_cache(
    view: EngineView, ranking: Ranking, at_home: Callable[[str], bool], chunk_tokens: int
) -> BlockCache | None:
    """Return the picture of the engine's device blocks; None where it isn't known well enough to plan on."""
    tree, info = view.tree, view.info
    order = follow(view, ranking.population)
    if tree is None or order is None or info is None or view.capacity is None or not view.known:
        return None
    view.demoted.difference_update([agent for agent in view.demoted if not tree.prefix_blocks(agent)])
    wishes = NearWishes(order, ranking, at_home)
    # A prompt in a slot is one block, of which an act loads one chunk after the other.
    chunk = max(1, chunk_tokens // tree.block_size)
    lots: Sequence[Lot] = Drawn(_lot(group, wishes.nearness) for group in tree.groups())
    if Capability.PLACE in info.capabilities.get(MemoryKind.PREFIX_KV, Capability.NONE):
        # What goes is ours to choose: the farthest.
        lots = tuple(sorted(lots, key=lambda lot: -lot.seconds))
    return BlockCache(
        free=max(0, view.capacity - tree.resident),
        lots=lots,
        wishes=wishes,
        chunk=chunk,
        reserve=math.ceil(wishes.waiting() * view.blocks_per_invocation),
        overhead=0 if isinstance(tree, PromptSlots) else 1,
        capacity=view.capacity,
        demoted=frozenset(view.demoted) if _can_demote(info) else None,
        settling=view.settling(),
        block_seconds=view.times.prefix.of(chunk * tree.block_size) / chunk,
        price=view.quiet.price(ranking.wall),
    )


class NearWishes(Wishes):
    """The wishes for one tree as of now: worked out when they are asked for, before anything else happens. Blocks that
    the very next invocations will take beyond their prefixes are for as many as are `waiting`."""

    def __init__(self, order: Nearness, ranking: Ranking, at_home: Callable[[str], bool]) -> None:
        self._order = order
        self._ranking = ranking
        self._at_home = at_home
        pinned = [agent for agent in ranking.pins if order.tree.prefix_blocks(agent)]
        self._pinned = sorted(pinned, key=lambda agent: (-ranking.recency(agent), agent))

    @property
    def nearest(self) -> float:
        """How far the nearest of those is who have no request under way; infinity where there is none."""
        return next(
            (wish.seconds for wish in self._in_order(self._order.everyone) if not wish.held), math.inf
        )

    def waiting(self) -> int:
        """Return how many are as near as the nearest who is not pinned, of those who have no request under way."""
        agents = filterfalse(self._ranking.pins.__contains__, self._order.everyone.nearest())
        waiting = (agent for agent in agents if self._at_home(agent) and not self._ranking.held(agent))
        _, nearest = next(groupby(waiting, self._ranking.seconds), (0.0, ()))
        return sum(1 for _ in nearest)

    def of(self, agent: str) -> Wish | None:
        """Return one agent's, None where there is none."""
        if not self._at_home(agent):
            return None
        (seconds, chance), held = self._ranking.foreseen(agent), self._ranking.held(agent)
        if seconds == math.inf and not held:
            return None
        tree = self._order.tree
        return Wish(agent, seconds, tree.prefix_blocks(agent), tree.resident_blocks(agent), held, chance)

    def place(self, agent: str) -> Place:
        """Return what is smaller for who is nearer."""
        return self._ranking.seconds(agent), -self._ranking.recency(agent), agent

    def lacking(self) -> Iterator[Wish]:
        """Yield those who are foreseen, have no request under way, and lack blocks of their prefix, the nearest
        first."""
        return (
            wish
            for wish in self._in_order(self._order.lacking)
            if not wish.held and wish.resident < wish.blocks
        )

    def nearness(self, agent: str) -> float:
        """Return how near an agent is, as far as its blocks are concerned: a request under way needs them, and who is
        at home elsewhere will not call here."""
        if not self._at_home(agent):
            return math.inf
        return PINNED_SECONDS if self._ranking.held(agent) else self._ranking.seconds(agent)

    @cached_property
    def _everyone(self) -> Sequence[Wish]:
        wishes = [wish for agent in self._order.tree.agents() if (wish := self.of(agent)) is not None]
        return sorted(wishes, key=lambda wish: self.place(wish.agent))

    def __iter__(self) -> Iterator[Wish]:
        return iter(self._everyone)

    def __len__(self) -> int:
        return len(self._everyone)

    def __contains__(self, wish: object) -> bool:
        return wish in self._everyone

    def _in_order(self, order: Order) -> Iterator[Wish]:
        """Yield those who are pinned, and those of the order who are foreseen, the nearest first."""
        pins = self._ranking.pins
        for agent in chain(self._pinned, filterfalse(pins.__contains__, order.nearest())):
            wish = self.of(agent)
            if wish is not None and wish.seconds < math.inf:
                yield wish


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


def _nearest(agents: Iterable[str], seconds: Mapping[str, float], counts: Callable[[str], bool]) -> str:
    """Return the nearest of the agents that count, empty for none."""
    return min(filter(counts, agents), key=seconds.__getitem__, default="")


def _can_demote(info: EngineInfo) -> bool:
    """Whether the engine can be told who is to lose blocks first, and doesn't rank by dues itself."""
    capabilities = info.capabilities.get(MemoryKind.PREFIX_KV, Capability.NONE)
    return Capability.DEMOTE in capabilities and Capability.HINT not in capabilities


def _can_sleep(view: EngineView) -> bool:
    capabilities = view.info.capabilities[MemoryKind.MODEL] if view.info is not None else Capability.NONE
    return view.reachable and Capability.SLEEP in capabilities


def _lot(group: Group, nearness: Callable[[str], float]) -> Lot:
    ranked = sorted((nearness(user), user) for user in group.users)
    return Lot(group.blocks, tuple(user for _, user in ranked), ranked[0][0] if ranked else math.inf)


def lora_cache(
    view: EngineView,
    population: Population,
    ranking: Ranking,
    needs: Callable[[str], bool],
    reads: Callable[[str], bool],
    links: Mapping[str, tuple[Path, int, bool]],
    staging_free: int,
) -> LoraCache:
    """Return the picture of the engine's LoRAs. `links` gives each LoRA's link, its size in
    bytes and whether it is staged. A LoRA is as near as the nearest agent that `needs` it on this engine, and its files
    as the nearest that `reads` them, be it at another engine."""
    owners = population.memories.loras
    seconds = {agent: ranking.seconds(agent) for agents in owners.values() for agent in agents}
    nearest = {name: _nearest(agents, seconds, needs) for name, agents in owners.items()}
    readers = {name: _nearest(agents, seconds, reads) for name, agents in owners.items()}
    wishes = tuple(
        LoraWish(
            name,
            seconds.get(nearest[name], math.inf),
            links[name][1],
            links[name][2],
            name in view.loras.registered,
            any(ranking.held(agent) for agent in agents),
            lorafiles.supersedes(str(links[name][0]), view.loras.registered.get(name, "")),
            view.times.staging.of(links[name][1]),
            view.times.lora.of(links[name][1]),
            ranking.foreseen(nearest[name] or readers[name])[1],
            seconds.get(readers[name], math.inf),
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
