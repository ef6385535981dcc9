"""What one SGLang server lets us do: from its answers to an `EngineInfo`, with a remedy for all that is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from scalesim_adapters.base import Capability, EngineInfo, MemoryKind, Missing, ProtocolMismatch

KV_EVENTS = (
    '--kv-events-config \'{"publisher": "zmq", "endpoint": "ipc:///tmp/sglang-kv", '
    '"replay_endpoint": "ipc:///tmp/sglang-kv-replay", "format": "dynamo"}\' '
    '(from another machine: "tcp://*:5557" and "tcp://*:5558")'
)
SESSIONS = "--enable-session-radix-cache"
SLEEP_FREES = "--enable-memory-saver --enable-weights-cpu-backup, which a CPU build doesn't have"


class KvEvents(msgspec.Struct):
    """What `--kv-events-config` says. Only in the form `dynamo` do blocks of different namespaces differ by hash."""

    publisher: str = "null"
    endpoint: str = "tcp://*:5557"
    replay_endpoint: str | None = None
    format: str = "default"


class StartupTime(msgspec.Struct):
    """How long parts of the start took, in seconds, to the nanosecond."""

    scheduler_e2e: float = 0.0
    tokenizer_e2e: float = 0.0


class PluginState(msgspec.Struct):
    """What our plug-in adds to a scheduler's state: whether it evicts by due now, what memory is released, and LoRAs by
    name, those in slots with the next victim first."""

    following: bool
    released: list[str]
    lora_device: list[str]
    lora_host: list[str]
    lora_held: list[str]

    @property
    def asleep(self) -> bool:
        """Whether the model sleeps: from the release of anything until the resume of everything no request runs."""
        return bool(self.released)


class SchedulerState(msgspec.Struct):
    """The part of a scheduler's state that we use."""

    scalesim: PluginState | None = None


class Server(msgspec.Struct):
    """The part of `/server_info` that we use: the arguments as the server resolved them (0.5.23)."""

    version: str
    page_size: int
    max_total_num_tokens: int
    random_seed: int
    startup_time: StartupTime
    dp_size: int = 1
    pp_size: int = 1
    enable_pdmux: bool = False
    disable_radix_cache: bool = False
    radix_eviction_policy: str = "lru"
    enable_session_radix_cache: bool = False
    enable_priority_scheduling: bool = False
    enable_metrics: bool = False
    enable_lora: bool | None = None
    max_loras_per_batch: int = 8
    max_loaded_loras: int | None = None
    enable_memory_saver: bool = False
    enable_weights_cpu_backup: bool = False
    kv_events_config: str | None = None
    internal_states: list[SchedulerState] = []

    @property
    def plugin(self) -> PluginState | None:
        """What our plug-in says, None where it isn't there."""
        return next((state.scalesim for state in self.internal_states), None)

    @property
    def incarnation(self) -> str:
        """What differs after each restart: how long the start took, and a seed that is drawn unless it is given."""
        parts = self.random_seed, self.startup_time.scheduler_e2e, self.startup_time.tokenizer_e2e
        return "-".join(map(str, parts))

    @property
    def refusal(self) -> str | None:
        """Why no memory of this server can be steered, if so."""
        if self.dp_size > 1:
            return f"{self.dp_size} data parallel replicas answer at one address: serve each at an address of its own"
        return None

    @property
    def sleeps(self) -> bool:
        """Whether the model can be put to sleep, requests wait meanwhile, and it wakes as it was: without a copy its
        weights would be lost."""
        waits = self.pp_size == 1 and not self.enable_pdmux
        keeps = self.enable_weights_cpu_backup or not self.enable_memory_saver
        return self.plugin is not None and waits and keeps

    @property
    def lora_slots(self) -> int:
        """Slots for LoRAs: the base model takes one of them, and keeps it while LoRAs can go instead."""
        return max(1, self.max_loras_per_batch - 1)

    @property
    def ages_priorities(self) -> bool:
        """Whether a request's priority decides about eviction and about nothing else."""
        return self.radix_eviction_policy == "priority" and not self.enable_priority_scheduling

    def kv_events(self) -> KvEvents | None:
        """Return the settings of the event feed, None where nothing is published."""
        if not self.kv_events_config:
            return None
        try:
            events = msgspec.json.decode(self.kv_events_config, type=KvEvents)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolMismatch(f"/server_info tells an odd kv_events_config: {error}") from error
        return events if events.publisher == "zmq" else None


def server_info(answer: Any) -> Server:
    """Read `/server_info`. Raises `ProtocolMismatch` where it is of another form."""
    try:
        return msgspec.convert(answer, Server)
    except msgspec.ValidationError as error:
        raise ProtocolMismatch(
            f"/server_info: {error}: is this an SGLang that this version knows?"
        ) from error


@dataclass(frozen=True, slots=True)
class Facts:
    """The server's answers. `feed` is a reason where there is none; `tagged` is what the operator says."""

    server: Server
    base_models: Mapping[str, int | None]
    feed: str | None
    replay: bool
    tagged: bool


def describe(facts: Facts) -> EngineInfo:
    """Put the facts together."""
    server = facts.server
    return EngineInfo(
        engine="sglang",
        version=server.version,
        incarnation=server.incarnation,
        base_models=tuple(facts.base_models),
        capabilities={
            MemoryKind.PREFIX_KV: _prefix(facts),
            MemoryKind.LORA: _lora(server),
            MemoryKind.MODEL: _model(server),
        },
        max_model_len=next(iter(facts.base_models.values())),
        block_size=server.page_size,
        device_blocks=server.max_total_num_tokens // server.page_size,
        lora_slots=server.lora_slots if server.enable_lora else None,
        lora_host_places=server.max_loaded_loras if server.enable_lora else None,
        missing=tuple(_missing(facts)),
    )


def _prefix(facts: Facts) -> Capability:
    server, able = facts.server, Capability.NONE
    if server.refusal is None and not server.disable_radix_cache:
        able |= Capability.LOAD
        if facts.tagged and server.enable_session_radix_cache:
            able |= Capability.DEMOTE
    if server.plugin is not None and server.enable_session_radix_cache:
        able |= Capability.HINT
    if facts.feed is None:
        able |= Capability.EVENTS | (Capability.REPLAY if facts.replay else Capability.NONE)
    return able


def _lora(server: Server) -> Capability:
    if not server.enable_lora:
        return Capability.NONE
    return Capability.LIST | (Capability.LOAD if server.refusal is None else Capability.NONE)


def _model(server: Server) -> Capability:
    able = server.refusal is None and server.sleeps
    return Capability.SLEEP | Capability.LOAD if able else Capability.NONE


def _missing(facts: Facts) -> list[Missing]:
    server = facts.server
    wanted = (
        (server.refusal is not None, "one engine behind one address", server.refusal or ""),
        (server.disable_radix_cache, "prefix cache", "without --disable-radix-cache"),
        (server.page_size == 1, "blocks of more than one token", "--page-size 32"),
        (facts.feed is not None, "KV events", facts.feed or ""),
        (
            facts.feed is None and not facts.replay,
            "KV event replay",
            '"replay_endpoint" in --kv-events-config',
        ),
        (not server.enable_metrics, "counts of finished requests", "--enable-metrics"),
        (not server.enable_lora, "LoRA", "--enable-lora --max-loras-per-batch N --max-lora-rank R"),
        (
            not server.enable_session_radix_cache,
            "demotion of one agent's prefix",
            f"{SESSIONS}, where every request carries its agent's session_id",
        ),
        (
            server.plugin is not None
            and not (server.enable_memory_saver and server.enable_weights_cpu_backup),
            "memory freed by sleep",
            SLEEP_FREES,
        ),
    )
    return [Missing(what, remedy) for missing, what, remedy in wanted if missing]
