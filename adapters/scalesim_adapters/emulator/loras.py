"""Where an engine's LoRAs are: names that requests use, places in host memory, slots on the device.

As in vLLM 0.32, names live apart from weights: unloading drops a name and frees nothing; weights leave by
being the least recently used; and a name whose weights left is read from its path again when a request uses
it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


class LoraUnreadable(Exception):
    """A LoRA's files are unusable: `missing` where there are none."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Lora:
    """One loading of a LoRA: every load call, failed ones too, takes a new `id`."""

    id: int
    name: str
    path: str


class LoraPlaces:
    """Weights in `host_places` of host memory, the last used of them also in `slots` on the device.

    `read` returns the size in bytes of the LoRA at a path or raises `LoraUnreadable`.
    """

    def __init__(self, slots: int, host_places: int, read: Callable[[str], int]) -> None:
        self.slots = slots
        self._host_places = host_places
        self._read = read
        self._host: OrderedDict[int, Lora] = OrderedDict()
        self._device: OrderedDict[int, Lora] = OrderedDict()

    @property
    def host(self) -> list[Lora]:
        """What is in host memory, least recently used first."""
        return list(self._host.values())

    @property
    def device(self) -> list[Lora]:
        """What is in a slot, least recently used first."""
        return list(self._device.values())

    def use(self, lora: Lora) -> int | None:
        """Bring a LoRA into a slot. Return the bytes read from disk, or None where host memory had it.

        Raises `LoraUnreadable`; nothing has changed then.
        """
        size = None if lora.id in self._host else self._read(lora.path)
        if size is not None and len(self._host) >= self._host_places:
            self._device.pop(self._host.popitem(last=False)[0], None)
        self._host[lora.id] = lora
        self._host.move_to_end(lora.id)
        if lora.id not in self._device and len(self._device) >= self.slots:
            self._device.popitem(last=False)
        self._device[lora.id] = lora
        self._device.move_to_end(lora.id)
        return size
