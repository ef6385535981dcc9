"""How long it takes to bring memory to where it is used: learned from the loads that an engine's driver did. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median_low

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, Step

# Loads of a kind that are remembered. What is taken for likely counts as the first.
REMEMBERED = 5
GIB = 1 << 30


class LoadTime:
    """One kind of load: `setup` seconds whatever its size, and beyond that as many for each unit as the median of the
    latest loads took, so that one that was held up teaches nothing. Until there are some, `seconds` for `amount`."""

    def __init__(self, setup: float, amount: float, seconds: float) -> None:
        self._setup = setup
        self._rates = deque([seconds / amount], maxlen=REMEMBERED)

    def learn(self, amount: float, seconds: float) -> None:
        """A load of so much took so long."""
        if amount:
            self._rates.append(max(0.0, seconds - self._setup) / amount)

    def of(self, amount: float) -> float:
        """Return the seconds that a load of so much is likely to take."""
        return self._setup + median_low(self._rates) * amount


@dataclass(slots=True)
class LoadTimes:
    """One engine's: of a prefix by tokens, of all else by bytes. `lora` is a LoRA's way into the engine, `staging` that
    of its files into host memory; `wake` and `sleep` move a model into the device and out of it."""

    prefix: LoadTime = field(default_factory=lambda: LoadTime(0.0, 256, 0.1))
    lora: LoadTime = field(default_factory=lambda: LoadTime(0.02, GIB, 1.0))
    staging: LoadTime = field(default_factory=lambda: LoadTime(0.01, GIB, 1.0))
    wake: LoadTime = field(default_factory=lambda: LoadTime(0.2, 16 * GIB, 2.0))
    sleep: LoadTime = field(default_factory=lambda: LoadTime(0.2, 16 * GIB, 2.0))

    def of_step(self, step: Step) -> LoadTime | None:
        """Return what a step is one of; None for what brings in nothing."""
        match step.kind, step.action:
            case MemoryKind.PREFIX_KV, Action.LOAD:
                return self.prefix
            case MemoryKind.LORA, Action.LOAD:
                return self.lora
            case MemoryKind.LORA, Action.STAGE:
                return self.staging
            case MemoryKind.MODEL, Action.WAKE:
                return self.wake
            case MemoryKind.MODEL, Action.SLEEP:
                return self.sleep
        return None
