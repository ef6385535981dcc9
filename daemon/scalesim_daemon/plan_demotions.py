"""Plan whose prefixes an engine had better give up first, where it can be told so. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, BlockCache, Step, Wish


def plan_demotions(cache: BlockCache) -> list[Step]:
    """Return the steps, in order: first those who were demoted and are among the nearest again are touched, which
    protects them, then the others who have blocks are demoted, the farthest first.

    Agents that are settling are left alone. The nearest are those whose prefixes fit the device together, each counted
    whole, beside what the next invocations add; a prefix that doesn't fit by itself is none of them.
    """
    if cache.demoted is None:
        return []
    near = {wish.agent: wish for wish in _nearest(cache)}
    back = [
        wish for agent, wish in near.items() if agent in cache.demoted and wish.resident and not wish.held
    ]
    touches = [
        Step(Action.TOUCH, MemoryKind.PREFIX_KV, wish.agent, 0, wish.resident, wish.seconds, "near again")
        for wish in back
    ]
    seconds = {wish.agent: wish.seconds for wish in cache.wishes}
    there = {agent for lot in cache.lots for agent in lot.agents}
    far = [
        (seconds.get(agent, math.inf), agent)
        for agent in there - near.keys() - cache.demoted - cache.settling
    ]
    return touches + [_demotion(agent, distance) for distance, agent in sorted(far, reverse=True)]


def _nearest(cache: BlockCache) -> Iterator[Wish]:
    room = cache.capacity - cache.reserve
    for wish in sorted(cache.wishes, key=lambda wish: (not wish.held, wish.seconds)):
        if wish.blocks > cache.capacity - cache.reserve and not wish.held:
            continue
        room -= wish.blocks
        if room < 0 and not wish.held:
            return
        yield wish


def _demotion(agent: str, seconds: float) -> Step:
    return Step(Action.DEMOTE, MemoryKind.PREFIX_KV, agent, 0, 0, seconds, "not among the nearest that fit")
