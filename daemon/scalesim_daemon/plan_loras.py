"""Plan which LoRAs are registered, staged and brought into an engine that evicts the least recently used. Pure."""

from __future__ import annotations

import math

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, LoraCache, LoraWish, Step


def plan_loras(cache: LoraCache) -> list[Step]:
    """Return the steps, in order. Names come first: without its name a LoRA's requests fail."""
    wishes = sorted(cache.wishes, key=lambda wish: (wish.seconds, wish.name))
    return [*_register(wishes), *_stage(cache, wishes), *_prefetch(cache, wishes)]


def _step(action: Action, wish: LoraWish, reason: str, victims: tuple[str, ...] = ()) -> Step:
    return Step(action, MemoryKind.LORA, wish.name, 0, 1, wish.seconds, reason, victims)


def _register(wishes: list[LoraWish]) -> list[Step]:
    return [
        _step(Action.REGISTER, wish, "the engine must know the name before a request uses it")
        for wish in wishes
        if not wish.registered
    ]


def _stage(cache: LoraCache, wishes: list[LoraWish]) -> list[Step]:
    """Stage the nearest that fit; a farther one makes room, the farthest first."""
    steps: list[Step] = []
    free = cache.staging_free
    staged = [wish for wish in wishes if wish.staged]
    for wish in wishes:
        if wish.staged or wish.seconds == math.inf:
            continue
        leaving: list[LoraWish] = []
        room = free
        while room < wish.bytes and staged and staged[-1].seconds > wish.seconds:
            leaving.append(staged.pop())
            room += leaving[-1].bytes
        if room < wish.bytes:
            break
        steps += [_step(Action.UNSTAGE, gone, f"{wish.name} is nearer") for gone in leaving]
        steps.append(_step(Action.STAGE, wish, "among the nearest whose files fit into host memory"))
        free = room - wish.bytes
    return steps


def _prefetch(cache: LoraCache, wishes: list[LoraWish]) -> list[Step]:
    """Bring in the nearest that the host places hold, the farthest of them first, so that the nearest end in slots."""
    if not cache.device_places:
        return []
    places = max(cache.device_places, cache.host_places or 0)
    near = [wish for wish in wishes if wish.seconds < math.inf and wish.registered][:places]
    order = _Places(cache, {wish.name: wish for wish in wishes})
    steps: list[Step] = []
    for rank, wish in reversed(list(enumerate(near))):
        there = order.device if rank < cache.device_places else order.host
        if wish.held or wish.name in there:
            continue
        brought = order.bring(wish)
        if brought is None:
            continue
        steps += brought
    return steps


class _Places:
    """Device slots and host places as they develop while the plan is carried out, next victim first."""

    def __init__(self, cache: LoraCache, wishes: dict[str, LoraWish]) -> None:
        self.device = list(cache.device)
        self.host = list(cache.host)
        self._sizes = (cache.device_places or 0, cache.host_places or len(cache.host) + len(wishes))
        self._wishes = wishes
        self._touched: set[str] = set()

    def bring(self, wish: LoraWish) -> list[Step] | None:
        """Load a LoRA if what must go is farther; what is nearer and would go first is touched beforehand."""
        if wish.name not in self.host and len(self.host) >= self._sizes[1] and not self._farther(self.host[0], wish):
            return None
        steps: list[Step] = []
        if wish.name not in self.device:
            if all(not self._farther(name, wish) for name in self.device) and len(self.device) >= self._sizes[0]:
                return None
            while len(self.device) >= self._sizes[0] and not self._farther(self.device[0], wish):
                nearer = self._wishes[self.device[0]]
                if nearer.held or nearer.name in self._touched:
                    return None
                self._touched.add(nearer.name)
                self._use(nearer.name)
                steps.append(_step(Action.TOUCH, nearer, "nearer than what should go first"))
        victims = self._use(wish.name)
        return [*steps, _step(Action.LOAD, wish, "among the nearest that the engine's places hold", victims)]

    def _farther(self, name: str, wish: LoraWish) -> bool:
        known = self._wishes.get(name)
        return known is None or (not known.held and known.seconds > wish.seconds)

    def _use(self, name: str) -> tuple[str, ...]:
        gone: list[str] = []
        for order, size in ((self.device, self._sizes[0]), (self.host, self._sizes[1])):
            if name in order:
                order.remove(name)
            elif len(order) >= size:
                gone.append(order.pop(0))
            order.append(name)
        return tuple(dict.fromkeys(gone))
