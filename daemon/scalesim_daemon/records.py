"""What was done, for people to read and for everything that counts it."""

from __future__ import annotations

from dataclasses import dataclass

from scalesim_daemon.plan import Step


@dataclass(frozen=True, slots=True)
class Record:
    """One step that was carried out, put off, or cancelled, or failed: what people read to learn why. `token` is that
    of the lease it went by, None where there is none."""

    at: float
    engine: str
    step: Step
    result: str
    seconds: float
    computed: int
    token: int | None = None

    @property
    def outcome(self) -> str:
        """`done`, `put_off`, `cancelled` or `failed`."""
        return self.result.partition(":")[0].replace(" ", "_")
