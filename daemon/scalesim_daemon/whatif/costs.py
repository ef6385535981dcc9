"""What an engine's work costs: the numbers of one model on one machine, each from a named source."""

from __future__ import annotations

import math
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import msgspec

Amount = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class CostError(ValueError):
    """A cost model that can't be read; the message is for people."""


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine. It works in steps, as vLLM does: a step computes at most `batch_tokens` tokens of prompts, and one
    token of each request whose prompt is done.

    A step takes `step_seconds`, `prefill_token_seconds` for each prompt token that isn't cached, and
    `decode_request_seconds` for each request that gets its next token. A token's KV takes `host_token_seconds` from
    host memory to the device (None: not known), beside the computing where `host_beside`, else instead of it.
    `device_tokens` is what the prefix cache holds, in blocks of `block_tokens`. `source` says where all this is from.
    """

    name: str
    source: str
    block_tokens: Count
    batch_tokens: Count
    device_tokens: Count
    step_seconds: Annotated[float, msgspec.Meta(gt=0)]
    prefill_token_seconds: Amount
    decode_request_seconds: Amount
    host_token_seconds: Amount | None = None
    host_beside: bool = True
    kv_bytes_per_token: Count | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for numbers that no engine has."""
        seconds = (self.step_seconds, self.prefill_token_seconds, self.decode_request_seconds)
        if not all(math.isfinite(number) for number in (*seconds, self.host_token_seconds or 0.0)):
            raise ValueError("seconds are finite")

    def of_step(self, prefill_tokens: int, decoding: int) -> float:
        """Return the seconds of a step that computes these."""
        return (
            self.step_seconds
            + self.prefill_token_seconds * prefill_tokens
            + self.decode_request_seconds * decoding
        )


CPU_90M = Costs(
    name="cpu-90m",
    source=(
        "vLLM 0.32.0 on one CPU core, Llama of 90 M parameters, bfloat16. Measured there: 0.55 ms per uncached prompt "
        "token, 20 ms for 1,152 tokens from host memory, 11 ms between the tokens of a request that runs alone, and "
        "5.26 s for 90 calls (4.5 at a time, 16 tokens in and 8 out) that find their prefixes cached"
    ),
    block_tokens=32,
    batch_tokens=256,
    device_tokens=300 * 32,
    step_seconds=0.0062,
    prefill_token_seconds=0.00055,
    decode_request_seconds=0.0048,
    host_token_seconds=0.020 / 1152,
    host_beside=False,
)

H100_QWEN_7B = Costs(
    name="h100-qwen2.5-7b",
    source=(
        "Qwen2.5-7B in bfloat16 on one H100 SXM, put together from public numbers, not measured: KV of a token = 28 "
        "layers x 4 KV heads x 128 x 2 x 2 bytes (the model's config.json); 100,000 tokens of KV (max_total_tokens in "
        "ScaleSim's example configuration); prefill at 32,400 tokens/s (vLLM on an H100, 9 B parameters, long prompts: "
        "docs.gpustack.ai/latest/performance-lab/qwen3.5-9b/h100), about half of the data sheet's 989 TFLOPS; "
        "a step reads 15.2 GB of weights at the data sheet's 3.35 TB/s in 4.5 ms, 6 ms with an assumed third on top; a "
        "request's KV of about 1,000 tokens at that rate takes 23 us with the same third; host to device at 51 GB/s, "
        "80 % of PCIe 5.0 x16 (github.com/inference-sim/inference-sim/issues/806); blocks and batches as in vLLM"
    ),
    block_tokens=16,
    batch_tokens=8192,
    device_tokens=100_000,
    step_seconds=0.006,
    prefill_token_seconds=1 / 32_400,
    decode_request_seconds=23e-6,
    host_token_seconds=57_344 / 51e9,
    kv_bytes_per_token=57_344,
)

PRESETS = MappingProxyType({costs.name: costs for costs in (H100_QWEN_7B, CPU_90M)})


def load_costs(name: str) -> Costs:
    """Return a preset by its name, or what a YAML or JSON file says. Raises `CostError`."""
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CostError(f"{name}: {error.strerror}; presets are {', '.join(PRESETS)}") from None
    try:
        return msgspec.yaml.decode(content, type=Costs)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CostError(f"{name}: {error}") from None


def save_costs(costs: Costs, path: Path) -> None:
    """Write a file that `load_costs` reads. Raises `OSError`."""
    path.write_bytes(msgspec.yaml.encode(costs))
