"""The kinds of engines that the daemon drives, each with its adapter."""

from __future__ import annotations

from scalesim_adapters.base import EngineAdapter
from scalesim_adapters.openai.adapter import OpenaiAdapter
from scalesim_adapters.sglang.adapter import SglangAdapter
from scalesim_adapters.vllm.adapter import VllmAdapter
from scalesim_daemon.settings import EngineSettings


def connect(engine: EngineSettings, sender: str | None = None) -> EngineAdapter:
    """Return an adapter for one engine. It connects when it is asked something. Our requests' ids have `sender`, by
    default the engine's name."""
    name = sender or engine.name
    match engine.kind:
        case "vllm":
            return VllmAdapter(engine.url, name=name)
        case "sglang":
            return SglangAdapter(engine.url, name=name, tagged=engine.tagged)
        case "openai":
            return OpenaiAdapter(
                engine.url, name=name, prompt_slots=engine.prompt_slots, tagged=engine.tagged
            )
