"""What is known of the figures that the paper reported, with where that is from and how far it can be trusted."""

from __future__ import annotations

from typing import NamedTuple

BAR = 1.74
SECOND_MARK = 2.3
"""Claimed by one automatic summary alone, which contradicts every other source."""
PER_CLASS = {"independent": 1.73, "interaction": 1.31, "path": 1.74}


class Reported(NamedTuple):
    """One figure: what it is, its value, how sure it is, and its source."""

    what: str
    value: str
    confidence: str
    source: str


PAPER = "ScaleSim, arXiv 2601.21473v1"
NOTES = "readers' notes on the paper"
REPORTED = (
    Reported("end to end over SGLang, at best", f"{BAR}x", "high", f"{PAPER}, abstract"),
    Reported(
        "per class, at best: independent, interaction, path",
        ", ".join(f"{ratio}x" for ratio in PER_CLASS.values()),
        "low to medium: the classes' order is inferred",
        NOTES,
    ),
    Reported("TTFT at high concurrency", "48 to 68 % below SGLang with HiCache", "medium", NOTES),
    Reported(
        "model and GPU", "Qwen2.5-7B on one H100", "medium to high", f"{NOTES}; PanZaifeng/KVFlow @7ef897e"
    ),
    Reported("active agents per step", "about 20 %, a chosen setting", "medium", NOTES),
    Reported("agents on the device", "at most 25 % of them, and at most 125", "medium", NOTES),
    Reported(
        "end to end, as one summary has it",
        f"{SECOND_MARK}x",
        "doubtful: an automatic summary on arxivlens, which contradicts all other sources",
        "arxivlens",
    ),
)
NOT_FOUND = (
    "hit rates, prefetch or eviction alone, sensitivity to wrong distances, what the system itself costs, vLLM, "
    "and numbers of agents per figure"
)
