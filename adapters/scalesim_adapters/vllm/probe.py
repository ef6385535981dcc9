"""What one vLLM server lets us do: from its answers to an `EngineInfo`, with a remedy for all that is
missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scalesim_adapters.base import Capability, EngineInfo, MemoryKind, Missing
from scalesim_adapters.metrics import Samples
from scalesim_adapters.vllm import metrics
from scalesim_adapters.vllm.routes import PluginState

KV_EVENTS = (
    '--kv-events-config \'{"enable_kv_cache_events": true, "publisher": "zmq", '
    '"endpoint": "ipc:///tmp/vllm-kv", "replay_endpoint": "ipc:///tmp/vllm-kv-replay"}\' '
    '(from another machine: "tcp://*:5557" and "tcp://*:5558")'
)
PLUGIN = "environment VLLM_PLUGINS=scalesim"
EXTENSION = "--worker-extension-cls scalesim_adapters.vllm.plugin.worker.Extension"
SCHEDULER = "--scheduler-cls scalesim_adapters.vllm.plugin.scheduler.DueScheduler"
UNKNOWN = "unknown"
# vLLM keeps one block for itself, to pad with.
OWN_BLOCKS = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """The server's answers. `usage_details` is None where it wasn't found out, `feed` a reason where there is none,
    `inside` None where our plug-in isn't loaded, and `asleep` None where the model can't be put to sleep."""

    version: str
    base_models: Mapping[str, int | None]
    samples: Samples
    lora_enabled: bool
    lora_route: bool
    usage_details: bool | None
    feed: str | None
    replay: bool
    inside: PluginState | None = None
    asleep: bool | None = None


def incarnation(samples: Samples) -> str:
    """Return what differs after each restart; `UNKNOWN` where several processes answer, of which each has its
    own."""
    started = samples.get(metrics.STARTED)
    return f"{started[0].value:.3f}" if started else UNKNOWN


def refusal(samples: Samples) -> str | None:
    """Return why no memory of this server can be steered, if so."""
    engines = {sample.labels.get("engine") for sample in samples.get(metrics.RUNNING, ())}
    if len(engines) > 1:
        return (
            f"{len(engines)} data parallel engines answer at one address: serve each at an address of its own"
        )
    if incarnation(samples) == UNKNOWN:
        return "several API servers answer at one address: --api-server-count 1"
    return None


def describe(facts: Facts) -> EngineInfo:
    """Put the facts together."""
    cache = next((sample.labels for sample in facts.samples.get(metrics.CACHE, ())), {})
    caching = cache.get("enable_prefix_caching") != "False"
    blocks = _count(cache.get("num_gpu_blocks"))
    refused = refusal(facts.samples)
    missing = []
    prefix, lora = Capability.NONE, Capability.LIST if facts.lora_enabled else Capability.NONE
    if refused is not None:
        missing.append(Missing("one engine behind one address", refused))
    if not caching:
        missing.append(Missing("prefix cache", "--enable-prefix-caching"))
    if refused is None and caching:
        prefix |= Capability.LOAD
    if facts.feed is not None:
        missing.append(Missing("KV events", facts.feed))
    else:
        prefix |= Capability.EVENTS | (Capability.REPLAY if facts.replay else Capability.NONE)
        if not facts.replay:
            missing.append(Missing("KV event replay", '"replay_endpoint" in --kv-events-config'))
    if facts.usage_details is False:
        missing.append(Missing("cached tokens in answers", "--enable-prompt-tokens-details"))
    if not facts.lora_enabled:
        missing.append(Missing("LoRA", "--enable-lora --max-loras N --max-cpu-loras M --max-lora-rank R"))
    elif not facts.lora_route:
        missing.append(
            Missing("loading LoRAs at run time", "environment VLLM_ALLOW_RUNTIME_LORA_UPDATING=True")
        )
    elif refused is None:
        lora |= Capability.LOAD
    model = Capability.NONE
    inside = facts.inside if refused is None else None
    if inside is not None:
        if inside.loras is not None and Capability.LOAD in lora:
            lora |= Capability.EVICT | Capability.DEMOTE
        elif facts.lora_enabled:
            missing.append(Missing("exact LoRA residency", EXTENSION))
        if inside.ranks:
            prefix |= Capability.LIST | Capability.EVICT | Capability.HINT
            prefix |= Capability.DEMOTE if inside.host_tier else Capability.NONE
        else:
            missing.append(Missing("eviction by due", SCHEDULER))
        if inside.model is not None and not inside.host_tier:
            model |= Capability.LOAD
    if facts.asleep is not None and refused is None:
        model |= Capability.SLEEP | Capability.LOAD
        if inside is not None and not inside.sleep_frees:
            missing.append(
                Missing("memory freed by sleep", "--enable-sleep-mode, which a CPU build doesn't have")
            )
    return EngineInfo(
        engine="vllm",
        version=facts.version,
        incarnation=incarnation(facts.samples),
        base_models=tuple(facts.base_models),
        capabilities={MemoryKind.PREFIX_KV: prefix, MemoryKind.LORA: lora, MemoryKind.MODEL: model},
        max_model_len=next(iter(facts.base_models.values()), None),
        block_size=_count(cache.get("block_size")),
        device_blocks=None if blocks is None else blocks - OWN_BLOCKS,
        lora_slots=_lora_slots(facts),
        lora_host_places=inside.loras.host_places
        if inside is not None and inside.loras is not None
        else None,
        missing=tuple(missing),
    )


def _lora_slots(facts: Facts) -> int | None:
    """Without the plug-in known from the first LoRA request on, not before."""
    if facts.inside is not None and facts.inside.loras is not None:
        return facts.inside.loras.slots
    uses = facts.samples.get(metrics.LORAS)
    return _count(uses[0].labels.get("max_lora")) if uses else None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
