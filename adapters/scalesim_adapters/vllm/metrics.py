"""The few numbers that we need of vLLM's `/metrics`, which is far larger: read by name, the rest skipped."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scalesim_adapters.base import Pressure, ProtocolMismatch

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
FINISHED = "vllm:request_success_total"
CACHE = "vllm:cache_config_info"
LORAS = "vllm:lora_requests_info"
STARTED = "process_start_time_seconds"

_SAMPLE = re.compile(
    rf"^({'|'.join((RUNNING, WAITING, FINISHED, CACHE, LORAS, STARTED))})(?:{{(.*)}})? (\S+)", re.M
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: its labels and value."""

    labels: Mapping[str, str]
    value: float


Samples = Mapping[str, Sequence[Sample]]


def parse(text: str) -> Samples:
    """Return the samples of the metrics named above. Raises `ProtocolMismatch` where the text is of another
    form."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    for name, labels, value in _SAMPLE.findall(text):
        try:
            samples[name].append(Sample(dict(_LABEL.findall(labels)), float(value)))
        except ValueError as error:
            raise ProtocolMismatch(f"/metrics: {name} has the value {value!r}") from error
    return samples


def pressure(samples: Samples) -> Pressure:
    """Return the counts of requests, summed over everything that the server counts apart."""
    if not samples.get(RUNNING):
        raise ProtocolMismatch(f"/metrics has no {RUNNING}: is this a vLLM, with its metrics on?")
    try:
        running, waiting, finished = (
            int(sum(sample.value for sample in samples.get(name, ())))
            for name in (RUNNING, WAITING, FINISHED)
        )
    except (ValueError, OverflowError) as error:
        raise ProtocolMismatch(f"/metrics has a count that is no number: {error}") from error
    return Pressure(running, waiting, finished)


def has_loras(text: str) -> bool:
    """Tell whether LoRA is switched on: its metric is declared then, though without a sample before the first
    use."""
    return f"# TYPE {LORAS} " in text
