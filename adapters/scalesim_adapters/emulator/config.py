"""What one emulated engine is: its sizes, its scheduling, and what its steps cost."""

from __future__ import annotations

from dataclasses import dataclass, field

VERSION = "0.32.0+emulated"


@dataclass(frozen=True, slots=True)
class CostModel:
    """Emulated seconds of one engine step, and of bringing a LoRA from disk.

    The defaults follow vLLM 0.32 on one CPU core with a Llama of 88 million parameters in bfloat16: 0.55 ms
    per uncached prompt token, about 11 ms between the tokens of one request, 58 ms per call of 64 fresh
    tokens in and 16 out when several calls share their steps; a LoRA of 5 MB in 9 ms, of 21 MB in 17 ms. Good
    to about 30 %.
    """

    step: float = 0.0085
    prefill_token: float = 0.00055
    decode_request: float = 0.002
    lora_load: float = 0.0065
    lora_load_per_byte: float = 0.5e-9

    def of_step(self, prefill_tokens: int, decode_requests: int) -> float:
        """Return the seconds of a step that computes these."""
        return self.step + self.prefill_token * prefill_tokens + self.decode_request * decode_requests

    def of_lora_load(self, size: int) -> float:
        """Return the seconds that reading a LoRA of `size` bytes takes, during which no step runs."""
        return self.lora_load + self.lora_load_per_byte * size


@dataclass(frozen=True, slots=True)
class EmulatorConfig:
    """Sizes and switches; names follow vLLM's flags.

    `blocks` counts what requests can use; like vLLM, `/metrics` tells one more. `time_scale` multiplies every
    emulated second: 0 steps as fast as the machine can, 1 is the speed of the cost model. `endpoint` None
    switches the KV event feed off. Endpoints are used as vLLM uses them: a wildcard or a path is bound, a
    concrete address is connected to. Raises `ValueError` where vLLM would refuse to start.
    """

    model: str = "base"
    blocks: int = 256
    block_size: int = 32
    max_model_len: int = 2048
    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 64
    scheduling_policy: str = "priority"
    max_loras: int = 2
    max_cpu_loras: int = 4
    max_lora_rank: int = 64
    vocab_size: int = 32_000
    endpoint: str | None = None
    replay_endpoint: str | None = None
    topic: str = "kv-events"
    buffer_steps: int = 10_000
    hwm: int = 100_000
    dev_mode: bool = False
    time_scale: float = 0.0
    cost: CostModel = field(default_factory=CostModel)

    def __post_init__(self) -> None:
        if min(self.blocks, self.block_size, self.max_num_batched_tokens, self.max_num_seqs) < 1:
            raise ValueError("blocks, block_size, max_num_batched_tokens and max_num_seqs must be at least 1")
        if self.max_model_len > self.blocks * self.block_size:
            raise ValueError(
                f"a request of {self.max_model_len} tokens doesn't fit into {self.blocks} blocks"
            )
        if self.scheduling_policy not in ("fcfs", "priority"):
            raise ValueError(f"scheduling_policy is fcfs or priority, not {self.scheduling_policy!r}")
        if self.max_loras and self.max_cpu_loras < self.max_loras:
            raise ValueError("max_cpu_loras must be at least max_loras")
        if self.time_scale < 0:
            raise ValueError("time_scale can't be negative")
