"""What agents have bound: found by its LoRA, and the contents of prefixes within a bound. Pure."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection

from scalesim_client.events import MemoryBound
from scalesim_daemon.agents import Agent, Memory
from scalesim_daemon.prefixes import Prefixes, without_content


class Memories:
    """Keeps what each agent's memory is, and who has which LoRA and which prefix."""

    def __init__(self) -> None:
        self.prefixes = Prefixes()
        self.loras: dict[str, dict[str, None]] = {}
        """Per LoRA the agents that have bound it."""

    def bind(self, agent: Agent, memory: Memory) -> bool:
        """Let this be the agent's memory; return whether it was another before."""
        if agent.memory == memory:
            self.prefixes.bound_again(agent.memory)
            return False
        self.give(agent, self.prefixes.shared(memory))
        return True

    def give(self, agent: Agent, memory: Memory | None) -> None:
        """Let this be the agent's memory, found by its LoRA: what `Prefixes.shared` returned, or None for none."""
        if memory is not None:
            self.prefixes.taken(memory)
        if agent.memory is not None:
            self.prefixes.left(agent.memory)
        before = None if agent.memory is None else agent.memory.lora_name
        now = None if memory is None else memory.lora_name
        agent.memory = memory
        if now == before:
            return
        if before is not None:
            del self.loras[before][agent.key]
            if not self.loras[before]:
                del self.loras[before]
        if now is not None:
            self.loras.setdefault(now, {})[agent.key] = None

    def make_room(self, agents: Collection[Agent]) -> list[str]:
        """Where prefixes take too much memory, take some for unknown; return the keys of the agents whose they are."""
        dropped = self.prefixes.make_room()
        changed = []
        for agent in agents if dropped else ():
            if agent.memory is not None and agent.memory.content in dropped:
                self.give(agent, without_content(agent.memory))
                changed.append(agent.key)
        return changed


def memory_bound(event: MemoryBound) -> Memory:
    """Return the memory that a `memory.bound` names."""
    return Memory(
        event.lora,
        event.lora_name,
        None if event.token_ids is None else array("I", event.token_ids),
        event.text,
        None if event.messages is None else tuple(event.messages),
        event.cache_salt,
        None if event.model is None else sys.intern(event.model),
    )
