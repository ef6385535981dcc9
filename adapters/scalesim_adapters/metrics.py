"""The few numbers that we need of an engine's `/metrics`, which is far larger: read by name, the rest skipped."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scalesim_adapters.base import FirstTokens, ProtocolMismatch

# A name is taken whole or not at all: looking for one at each of its letters would take the square of its length.
_LABEL = re.compile(r'\b(\w++)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: its labels and value."""

    labels: Mapping[str, str]
    value: float


Samples = Mapping[str, Sequence[Sample]]


def parser(names: Iterable[str]) -> re.Pattern[str]:
    """Return what finds the samples of the metrics of these names."""
    return re.compile(rf"^({'|'.join(map(re.escape, names))})(?:{{(.*)}})? (\S+)", re.M)


def parse(text: str, wanted: re.Pattern[str]) -> Samples:
    """Return the samples that a `parser` finds. Raises `ProtocolMismatch` where a value is no number."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    for name, labels, value in wanted.findall(text):
        try:
            samples[name].append(Sample(dict(_LABEL.findall(labels)), float(value)))
        except ValueError as error:
            raise ProtocolMismatch(f"/metrics: {name} has the value {value!r}") from error
    return samples


def total(samples: Samples, name: str) -> int:
    """Return the sum of a metric's samples. Raises `ProtocolMismatch` where that is no count."""
    try:
        return int(sum(sample.value for sample in samples.get(name, ())))
    except (ValueError, OverflowError) as error:
        raise ProtocolMismatch(f"/metrics: {name} is no count: {error}") from error


def first_tokens(samples: Samples, histogram: str) -> FirstTokens | None:
    """Return what a histogram of the seconds to first tokens adds up to, None where the engine has none of that name.
    Raises `ProtocolMismatch` where its count is no count."""
    seconds = samples.get(f"{histogram}_sum")
    if not seconds:
        return None
    return FirstTokens(total(samples, f"{histogram}_count"), sum(sample.value for sample in seconds))
