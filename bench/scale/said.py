"""What is written in these measurements: names, records and texts of the length that simulations have."""

from __future__ import annotations

from random import Random

from scalesim_daemon.board import DueRecord

SIMULATION = "smallville-2026-11-26"
ENGINE = "vllm-rack07-host13"
BARE_BYTES = 100
"""What is written to compare with."""
PREFIX_BYTES = 2_400
"""Of a persona of 600 tokens, as text."""
CONTENT_HASH = 32
"""Hexadecimal digits of a content's hash."""


def name_of(agent: int) -> str:
    """Return an agent's name."""
    return f"persona-{agent:07d}"


def simulation_of(number: int) -> str:
    """Return the name of one simulation of many."""
    return f"{SIMULATION}-{number:04d}"


def key_of(agent: int, simulation: str = SIMULATION) -> str:
    """Return the key by which the daemon knows an agent."""
    return f"{simulation}/{name_of(agent)}"


def record_of(agent: int, rng: Random) -> DueRecord:
    """Return what is written of an agent with a LoRA and a prefix of its own."""
    items = (f"lora:{name_of(agent)}", "prefix_kv")
    return DueRecord(1e6 * rng.random(), "sim_seconds", 0.9, "activity ends", items)


def decision_of(agent: int) -> dict[str, object]:
    """Return what is written of a decision."""
    return {
        "at": 1795651200.25,
        "engine": ENGINE,
        "action": "load",
        "kind": "prefix_kv",
        "key": key_of(agent),
        "reason": "due in 12 s, sooner than smallville-2026-11-26/persona-0004711 in 340 s",
        "result": "done: 256 tokens",
    }
