"""Plan which LoRAs are registered, staged and brought into an engine that evicts the LRU one. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, LoraCache, LoraWish, Step
from scalesim_daemon.swaps import leaving, pays, yields


def plan_loras(cache: LoraCache) -> list[Step]:
    """Return the steps, in order. Names come first: without its name a LoRA's requests fail."""
    wishes, files = _sorted(cache.wishes), _sorted(map(_files, cache.wishes))
    return [*_register(wishes), *_stage(cache, files), *_prefetch(cache, wishes)]


def _sorted(wishes: Iterable[LoraWish]) -> list[LoraWish]:
    return sorted(wishes, key=lambda wish: (wish.seconds, wish.name))


def _step(action: Action, wish: LoraWish, reason: str, victims: tuple[str, ...] = ()) -> Step:
    return Step(action, MemoryKind.LORA, wish.name, 0, 1, wish.seconds, reason, victims, wish.bytes)


def _register(wishes: list[LoraWish]) -> list[Step]:
    new = "the engine must know the name before a request uses it"
    return [
        _step(
            Action.REGISTER, wish, "it has changed since the engine was told of it" if wish.outdated else new
        )
        for wish in wishes
        if not wish.registered or (wish.outdated and not wish.held)
    ]


def _stage(cache: LoraCache, files: list[LoraWish]) -> list[Step]:
    """Stage the nearest that fit; a farther one makes room."""
    steps: list[Step] = []
    free = cache.staging_free
    staged = [wish for wish in files if wish.staged]
    farthest = max((wish.seconds for wish in staged if not wish.held), default=-math.inf)
    for wish in files:
        if wish.staged or wish.seconds == math.inf or (wish.bytes > free and wish.seconds >= farthest):
            continue
        going = leaving(wish, staged, free)
        if going is None:
            continue
        steps += [_step(Action.UNSTAGE, gone, f"{wish.name} is nearer") for gone in going]
        steps.append(_step(Action.STAGE, wish, "among the nearest whose files fit into host memory"))
        staged = [other for other in staged if other not in going]
        free += sum(gone.bytes for gone in going) - wish.bytes
    return steps


def _files(wish: LoraWish) -> LoraWish:
    """Return a LoRA as what takes host memory. Who waits for files that aren't staged reads them from where they are:
    that makes them no nearer."""
    seconds = wish.seconds if wish.files_seconds is None else wish.files_seconds
    return replace(wish, seconds=seconds, held=wish.held and wish.staged, load_seconds=wish.stage_seconds)


def _prefetch(cache: LoraCache, wishes: list[LoraWish]) -> list[Step]:
    """Bring in the nearest that the host places hold, the nearest last, so that they end in slots."""
    if not cache.device_places:
        return []
    places = max(cache.device_places, cache.host_places or 0)
    near = [wish for wish in wishes if wish.seconds < math.inf and wish.registered and not wish.outdated][
        :places
    ]
    order = _Places(cache, {wish.name: wish for wish in wishes}, {wish.name for wish in near})
    steps: list[Step] = []
    for rank, wish in reversed(list(enumerate(near))):
        there = order.device if rank < cache.device_places else order.host
        if not wish.held and wish.name not in there:
            steps += order.bring(wish)
    return steps


class _Places:
    """Device slots and host places as they develop while the plan is carried out, next victim first."""

    def __init__(self, cache: LoraCache, wishes: dict[str, LoraWish], near: set[str]) -> None:
        self.device = list(cache.device)
        self.host = list(cache.host)
        self._slots = cache.device_places or 0
        self._host_places = cache.host_places or len(cache.host) + len(wishes)
        self._wishes = wishes
        self._near = near
        self._price = cache.price

    def bring(self, wish: LoraWish) -> list[Step]:
        """Load a LoRA if what must go is farther; what is nearer and would go first is touched beforehand.
        One of the nearest that is on the host alone can only be kept there by a slot: then it is brought instead,
        and the LoRA's turn comes after that. Return no step where neither can be had, or it isn't likely to pay."""
        before = self.device, self.host
        touched: dict[str, Step] = {}
        while (kept := self._nearer_victim(wish)) is not None:
            if kept.held or kept.name in touched or kept.name not in self.device:
                self.device, self.host = before
                on_host_alone = kept.name in self._near and kept.name not in self.device
                return self.bring(kept) if on_host_alone and not kept.held else []
            self._use(kept.name)
            touched[kept.name] = _step(Action.TOUCH, kept, "nearer than what should go first")
        victims = self._use(wish.name)
        # Who keeps its host place is back in a slot in no time.
        gone = [self._wishes[name] for name in victims if name in self._wishes and name not in self.host]
        lost = sum(one.load_seconds for one in gone)
        if not pays(wish.chance, wish.load_seconds, lost, self._price):
            self.device, self.host = before
            return []
        reason = "among the nearest that the engine's places hold"
        return [*touched.values(), _step(Action.LOAD, wish, reason, victims)]

    def _nearer_victim(self, wish: LoraWish) -> LoraWish | None:
        victims = (self._wishes.get(name) for name in self._after(wish.name)[2])
        return next((known for known in victims if known and not self._yields(known, wish)), None)

    def _yields(self, victim: LoraWish, wish: LoraWish) -> bool:
        return not victim.held and yields(victim.seconds, wish.seconds, wish.load_seconds)

    def _use(self, name: str) -> tuple[str, ...]:
        self.device, self.host, victims = self._after(name)
        return victims

    def _after(self, name: str) -> tuple[list[str], list[str], tuple[str, ...]]:
        """Return slots, host places and who lost one, once `name` was used; without a host place, no slot."""
        host = [other for other in self.host if other != name] + [name]
        host, gone = host[-self._host_places :], host[: -self._host_places]
        device = [other for other in self.device if other != name and other not in gone] + [name]
        device, out = device[-self._slots :], device[: -self._slots]
        return device, host, tuple(dict.fromkeys([*gone, *out]))
