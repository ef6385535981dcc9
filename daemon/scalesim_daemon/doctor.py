"""What one engine lets the sidecar do, asked of the engine itself; and how to make it allow more."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from scalesim_adapters.base import (
    Capability,
    DeadlineExceeded,
    EngineError,
    EngineInfo,
    EngineUnavailable,
    MemoryKind,
    Rejected,
)
from scalesim_daemon.engines import connect
from scalesim_daemon.settings import EngineSettings

MEANING = {
    (MemoryKind.PREFIX_KV, Capability.LOAD): "prefixes are prefetched and protected, by tiny requests",
    (
        MemoryKind.PREFIX_KV,
        Capability.HINT,
    ): "the engine evicts far agents' prefixes first, by the dues it hears",
    (MemoryKind.PREFIX_KV, Capability.DEMOTE): "a far agent's prefix can be made the first to leave",
    (MemoryKind.PREFIX_KV, Capability.EVENTS): "what is cached is known, from the engine's events",
    (MemoryKind.PREFIX_KV, Capability.PLACE): "which prefix goes for another is chosen by distance",
    (MemoryKind.PREFIX_KV, Capability.REPLAY): "events that were missed can be asked for again",
    (MemoryKind.LORA, Capability.LIST): "the LoRAs that the engine answers to are known",
    (MemoryKind.LORA, Capability.LOAD): "LoRAs are loaded before they are needed",
}
NOTHING = "nothing"
OTHER_SERVER = (
    "something answers there, but it is no OpenAI-compatible server: give the URL of `vllm serve`, of "
    "`sglang.launch_server`, or of whatever serves /v1/models"
)
REMEDIES: tuple[tuple[type[EngineError], str], ...] = (
    (DeadlineExceeded, "the engine is overloaded or hangs: look at its log, and try again"),
    (
        EngineUnavailable,
        "start the engine, or wait until it is up (`vllm serve` takes half a minute), and check the URL",
    ),
    (
        Rejected,
        "it refuses what any client may ask: where it wants an API key, name a file that has it (--api-key-file)",
    ),
)


class UnusableUrl(ValueError):
    """What was given is no URL of an engine."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found at `url`: an engine, or a problem with its remedy. `answered` tells whether anything
    is there."""

    url: str
    info: EngineInfo | None = None
    answered: bool = True
    problem: str | None = None
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return this as plain data."""
        plain = asdict(self)
        if self.info is not None:
            plain["info"]["capabilities"] = {
                kind.value: capability_names(flags) for kind, flags in self.info.capabilities.items()
            }
        return plain


def capability_names(flags: Capability) -> list[str]:
    """Return the names of the capabilities that are there, in lower case."""
    return [str(flag.name).lower() for flag in flags]


def abilities(info: EngineInfo) -> dict[MemoryKind, list[str]]:
    """Return, in words, what can be done with each kind of memory."""
    return {
        kind: [MEANING.get((kind, flag), str(flag.name).lower()) for flag in flags] or [NOTHING]
        for kind, flags in info.capabilities.items()
    }


async def examine(url: str, key_file: Path | None = None) -> Diagnosis:
    """Ask the engine at `url` who it is and what it lets us do; with the API key in `key_file`, where it wants one.
    Raises `UnusableUrl`, and `ConfigError` for a key that can't be used."""
    found = [await _examine("vllm", url, key_file)]
    if found[0].info is None and found[0].answered:
        found.append(await _examine("sglang", url, key_file))
        if found[-1].info is None:
            found.append(await _examine("openai", url, key_file))
    # Where none knows it, what is said first is about the more common one.
    return next((diagnosis for diagnosis in found if diagnosis.info is not None), found[0])


async def _examine(kind: Literal["vllm", "sglang", "openai"], url: str, key_file: Path | None) -> Diagnosis:
    try:
        checked = EngineSettings(kind=kind, url=url, name="doctor", api_key_file=key_file)
    except ValidationError as error:
        raise UnusableUrl(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    adapter = connect(checked)
    try:
        return Diagnosis(checked.url, await adapter.probe())
    except EngineError as error:
        answered = not isinstance(error, EngineUnavailable | DeadlineExceeded)
        return Diagnosis(checked.url, answered=answered, problem=str(error), remedy=_remedy(error))
    finally:
        await adapter.close()


def _remedy(error: EngineError) -> str:
    return next((remedy for kind, remedy in REMEDIES if isinstance(error, kind)), OTHER_SERVER)
