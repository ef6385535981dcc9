"""What we read of vLLM's `/metrics`."""

from __future__ import annotations

from scalesim_adapters import metrics
from scalesim_adapters.base import Pressure, ProtocolMismatch
from scalesim_adapters.metrics import Samples

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
FINISHED = "vllm:request_success_total"
FIRST_TOKENS = "vllm:time_to_first_token_seconds"
CACHE = "vllm:cache_config_info"
LORAS = "vllm:lora_requests_info"
SLEEP = "vllm:engine_sleep_state"
STARTED = "process_start_time_seconds"

_WANTED = metrics.parser(
    (RUNNING, WAITING, FINISHED, f"{FIRST_TOKENS}_count", f"{FIRST_TOKENS}_sum", CACHE, LORAS, SLEEP, STARTED)
)


def parse(text: str) -> Samples:
    """Return the samples of the metrics named above. Raises `ProtocolMismatch` where the text is of another
    form."""
    return metrics.parse(text, _WANTED)


def pressure(samples: Samples) -> Pressure:
    """Return the counts of requests, summed over everything that the server counts apart."""
    if not samples.get(RUNNING):
        raise ProtocolMismatch(f"/metrics has no {RUNNING}: is this a vLLM, with its metrics on?")
    running, waiting, finished = (metrics.total(samples, name) for name in (RUNNING, WAITING, FINISHED))
    return Pressure(running, waiting, finished, metrics.first_tokens(samples, FIRST_TOKENS))


def has_loras(text: str) -> bool:
    """Tell whether LoRA is switched on: its metric is declared then, though without a sample before the first
    use."""
    return f"# TYPE {LORAS} " in text


def weights_discarded(samples: Samples) -> bool:
    """Tell whether the engine sleeps at level 2: its weights are kept nowhere."""
    states = samples.get(SLEEP, ())
    return any(state.labels.get("sleep_state") == "discard_all" and state.value for state in states)
