"""The adapter for vLLM's stock server."""

from scalesim_adapters.vllm.adapter import VllmAdapter

__all__ = ["VllmAdapter"]
