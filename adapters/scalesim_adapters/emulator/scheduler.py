"""Continuous batching as in vLLM V1: who computes how many tokens in each step, over a prefix cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sortedcontainers import SortedKeyList

from scalesim_adapters.emulator import tokens
from scalesim_adapters.emulator.cache import PrefixCache
from scalesim_adapters.emulator.chain import Chain
from scalesim_adapters.emulator.config import EmulatorConfig
from scalesim_adapters.emulator.loras import Lora


@dataclass(eq=False, slots=True)
class Sequence:
    """One request. `arrival` is its place in the order of arrival; a lower `priority` goes first.

    `cached` is how many of its prompt's tokens were cached when it was first admitted.
    """

    arrival: int
    chain: Chain
    max_tokens: int
    priority: int = 0
    report_hits: bool = False
    prompt_tokens: int = 0
    cached: int | None = None
    computed: int = 0
    stored: int = 0
    blocks: list[int] = field(default_factory=list)
    seed: bytes = b""

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.chain.tokens)
        self.seed = tokens.seed_of(self.chain.tokens, self.chain.lora.name if self.chain.lora else None)

    @property
    def outputs(self) -> int:
        """How many tokens were generated."""
        return len(self.chain.tokens) - self.prompt_tokens


@dataclass(slots=True)
class Step:
    """What one step computes: its sequences, each with its count of prompt tokens, 0 where it generates."""

    sequences: dict[Sequence, int] = field(default_factory=dict)
    preempted: int = 0

    @property
    def prefill_tokens(self) -> int:
        """How many prompt tokens the step computes."""
        return sum(self.sequences.values())

    @property
    def decodes(self) -> int:
        """How many of its sequences generate."""
        return sum(count == 0 for count in self.sequences.values())

    @property
    def loras(self) -> list[Lora]:
        """The LoRAs that the step needs, each once, in the order of its sequences."""
        return list(dict.fromkeys(sequence.chain.lora for sequence in self.sequences if sequence.chain.lora))


@dataclass(frozen=True, slots=True)
class Output:
    """A token that a sequence generated, and why it ended, where it did."""

    sequence: Sequence
    token: int
    finished: str | None


@dataclass(slots=True)
class Totals:
    """Counts since the engine's start: tokens, preemptions, and requests that finished, by reason."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt: int = 0
    generated: int = 0
    preemptions: int = 0
    finished: Counter[str] = field(default_factory=Counter)


class Scheduler:
    """Requests that wait and run. `schedule` starts a step, `finish` ends it; `abort` comes between steps.

    A request is admitted when its whole prompt fits and its LoRA finds a slot. Blocks become findable when
    the step that computes them is scheduled. Where a running request finds no block, the least urgent one
    goes back to waiting.
    """

    def __init__(self, config: EmulatorConfig, cache: PrefixCache) -> None:
        self._config = config
        self._cache = cache
        self._rank: Callable[[Sequence], tuple[int, int]] = (
            (lambda s: (s.priority, s.arrival))
            if config.scheduling_policy == "priority"
            else (lambda s: (0, s.arrival))
        )
        self.waiting: SortedKeyList = SortedKeyList(key=self._rank)
        self.running: list[Sequence] = []
        self.totals = Totals()

    @property
    def deferred(self) -> list[Sequence]:
        """Those that wait for a LoRA slot while others run in all of them."""
        return [sequence for sequence in self.waiting if not self._slot_for(sequence)]

    def add(self, sequence: Sequence) -> None:
        """Let a request wait."""
        self.waiting.add(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Drop a request; the blocks that it filled stay cached. Harmless where it has ended."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)

    def schedule(self) -> Step:
        """Choose the tokens of the next step and give them blocks."""
        step = Step()
        budget = self._continue_running(step, self._config.max_num_batched_tokens)
        if not step.preempted:
            self._admit_waiting(step, budget)
        return step

    def finish(self, step: Step) -> list[Output]:
        """End a step: every sequence whose tokens are all computed generates one more."""
        outputs = []
        for sequence in step.sequences:
            if sequence.computed < len(sequence.chain.tokens):
                continue
            token = tokens.output_token(sequence.seed, sequence.outputs)
            sequence.chain.append(token)
            self.totals.generated += 1
            if sequence.outputs == 1:
                self.totals.prompt += sequence.prompt_tokens
            full = len(sequence.chain.tokens) >= self._config.max_model_len
            ended = "length" if full or sequence.outputs >= sequence.max_tokens else None
            if ended:
                self.running.remove(sequence)
                self._release(sequence)
                self.totals.finished[ended] += 1
            outputs.append(Output(sequence, token, ended))
        return outputs

    def _continue_running(self, step: Step, budget: int) -> int:
        for sequence in list(self.running):
            count = min(len(sequence.chain.tokens) - sequence.computed, budget)
            if count == 0 or sequence not in self.running:
                continue
            while not self._compute(step, sequence, count):
                victim = max(self.running, key=self._rank)
                self._preempt(step, victim)
                if victim is sequence:
                    break
            else:
                budget -= count
        return budget

    def _admit_waiting(self, step: Step, budget: int) -> None:
        for sequence in list(self.waiting):
            if budget == 0 or len(self.running) >= self._config.max_num_seqs:
                return
            if not self._slot_for(sequence):
                continue
            hits = self._cache.match(sequence.chain.hashes, len(sequence.chain.tokens))
            needed = self._blocks_of(len(sequence.chain.tokens)) - len(hits) + self._cache.idle(hits)
            if needed > self._cache.free:
                return
            self._admit(sequence, hits)
            count = min(len(sequence.chain.tokens) - sequence.computed, budget)
            self._compute(step, sequence, count)
            budget -= count

    def _admit(self, sequence: Sequence, hits: list[int]) -> None:
        self.waiting.remove(sequence)
        self.running.append(sequence)
        if sequence.report_hits:
            self._cache.report(sequence.chain, len(hits))
        self._cache.hold(hits)
        sequence.blocks = hits
        sequence.stored = len(hits)
        sequence.computed = len(hits) * self._cache.block_size
        if sequence.cached is None:
            sequence.cached = sequence.computed
            self.totals.prefix_queries += len(sequence.chain.tokens)
            self.totals.prefix_hits += sequence.computed

    def _compute(self, step: Step, sequence: Sequence, count: int) -> bool:
        reached = sequence.computed + count
        missing = self._blocks_of(reached) - len(sequence.blocks)
        if missing > self._cache.free:
            return False
        sequence.blocks += self._cache.take(missing)
        full = reached // self._cache.block_size
        self._cache.store(sequence.chain, sequence.blocks, sequence.stored, full)
        step.sequences[sequence] = 0 if count == 1 and sequence.computed >= sequence.prompt_tokens else count
        sequence.stored = full
        sequence.computed = reached
        return True

    def _preempt(self, step: Step, victim: Sequence) -> None:
        self.running.remove(victim)
        step.sequences.pop(victim, None)
        self._release(victim)
        victim.computed = victim.stored = 0
        self.waiting.add(victim)
        step.preempted += 1
        self.totals.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self._cache.release(sequence.blocks)
        sequence.blocks = []

    def _slot_for(self, sequence: Sequence) -> bool:
        if sequence.chain.lora is None:
            return True
        used = {running.chain.lora.id for running in self.running if running.chain.lora}
        return sequence.chain.lora.id in used or len(used) < self._config.max_loras

    def _blocks_of(self, count: int) -> int:
        return -(-count // self._cache.block_size)
