"""How long it takes to bring memory to where it is used: learned from the loads that an engine's driver did. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, Step

# Of what the next load took in the mean of all before.
NEWEST = 0.2
GIB = 1 << 30


@dataclass(slots=True)
class LoadTime:
    """One kind of load: `setup` seconds whatever its size, and beyond that `seconds` for each `amount`: exponentially
    weighted means over loads, at first what is taken for likely."""

    setup: float
    amount: float
    seconds: float

    def learn(self, amount: float, seconds: float) -> None:
        """A load of so much took so long."""
        if not amount:
            return
        self.amount += NEWEST * (amount - self.amount)
        self.seconds += NEWEST * (max(0.0, seconds - self.setup) - self.seconds)

    def of(self, amount: float) -> float:
        """Return the seconds that a load of so much is likely to take."""
        return self.setup + self.seconds * amount / self.amount if amount else self.setup


@dataclass(slots=True)
class LoadTimes:
    """One engine's: of a prefix by tokens, of all else by bytes. `lora` is a LoRA's way into the engine, `staging` that
    of its files into host memory; `wake` and `sleep` move a model into the device and out of it."""

    prefix: LoadTime = field(default_factory=lambda: LoadTime(0.0, 256, 0.1))
    lora: LoadTime = field(default_factory=lambda: LoadTime(0.02, GIB, 1.0))
    staging: LoadTime = field(default_factory=lambda: LoadTime(0.01, GIB, 1.0))
    wake: LoadTime = field(default_factory=lambda: LoadTime(0.2, 16 * GIB, 2.0))
    sleep: LoadTime = field(default_factory=lambda: LoadTime(0.2, 16 * GIB, 2.0))

    def kind(self, step: Step) -> LoadTime | None:
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
