"""Measure what a live engine's work costs, from outside: by the time that a few requests of its own take it.

Only differences of times are used, so that what passes outside of the engine cancels out. The requests are harmless:
fresh random tokens, behind everybody else's where the engine schedules by priority. Like any request they take room in
the prefix cache, so that the engine forgets as many tokens of what was used longest ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import linear_regression, median
from time import perf_counter

from scalesim_adapters.base import EngineAdapter, EngineError, EngineInfo
from scalesim_adapters.http import Http
from scalesim_adapters.openai.routes import COMPLETIONS
from scalesim_adapters.vllm.onetoken import PRIORITY
from scalesim_daemon.doctor import UnusableUrl, examine
from scalesim_daemon.engines import api_key_of, connect
from scalesim_daemon.settings import ConfigError, EngineSettings
from scalesim_daemon.whatif.costs import Costs

LONGEST_TOKENS = 2048
# The longest prompt's share of the prefix cache: all of them together take about half of it.
SHARE_OF_CACHE = 16
REPEATS = 3
SHORT_TOKENS = 32
ANSWER_TOKENS = 16
TOGETHER = 4
DEADLINE_SECONDS = 120.0
# Any tokens do; these are in every vocabulary, and none of them is likely to have a meaning of its own.
TOKENS = range(100, 1000)
DEFAULT_BATCH_TOKENS = 2048
# A cached prompt must take at most this share of the time that it took at first.
CACHED_SHARE = 0.8


class CalibrationError(Exception):
    """The engine can't be measured; the message is for people."""


@dataclass(frozen=True, slots=True)
class Programme:
    """What will be sent to one engine: prompts of these lengths, each `REPEATS` times, once cold and once cached; then
    short ones with answers, alone and `TOGETHER` at once."""

    url: str
    kind: str
    key_file: Path | None
    info: EngineInfo
    block_tokens: int
    device_tokens: int
    lengths: tuple[int, ...]

    @property
    def requests(self) -> int:
        """How many requests in all."""
        return 1 + REPEATS * (2 * len(self.lengths) + 3 + 3 * TOGETHER)

    @property
    def tokens(self) -> int:
        """How many tokens of the prefix cache they take, at most."""
        short = (1 + TOGETHER) * (SHORT_TOKENS + ANSWER_TOKENS)
        return SHORT_TOKENS + REPEATS * (sum(self.lengths) + short)

    def described(self) -> str:
        """Say what will be sent."""
        return (
            f"{self.requests} requests of random token ids to {self.url} ({self.info.engine} {self.info.version}), "
            f"with prompts of up to {self.lengths[-1]} tokens and answers of up to {1 + ANSWER_TOKENS}, at most "
            f"{TOGETHER} at once. They take at most {self.tokens:,} of the {self.device_tokens:,} tokens of the "
            "engine's prefix cache, where what was used longest ago goes, and change nothing else. (Asking what it is "
            "took one of one token.)"
        )


async def prepare(url: str, key_file: Path | None = None) -> Programme:
    """Ask the engine what it is; with the API key in `key_file`, where it wants one. Raises `CalibrationError` where it
    can't be measured."""
    try:
        found = await examine(url, key_file)
    except (UnusableUrl, ConfigError) as error:
        raise CalibrationError(str(error)) from None
    info = found.info
    if info is None:
        raise CalibrationError("; ".join(part for part in (found.problem, found.remedy) if part))
    if not info.block_size or not info.device_blocks:
        raise CalibrationError(f"{found.url} doesn't tell how large its prefix cache is")
    counts = next((lack.remedy for lack in info.missing if lack.what == "counts of finished requests"), None)
    if counts is not None:
        raise CalibrationError(
            f"{found.url} doesn't tell whether it served others meanwhile: start it with {counts}"
        )
    device_tokens = info.device_blocks * info.block_size
    room = (info.max_model_len or LONGEST_TOKENS) - 1
    longest = min(LONGEST_TOKENS, room, device_tokens // SHARE_OF_CACHE) // info.block_size * info.block_size
    lengths = tuple(longest * part // 4 for part in (1, 2, 3, 4))
    if lengths[0] < SHORT_TOKENS or room < SHORT_TOKENS + 1 + ANSWER_TOKENS:
        raise CalibrationError(
            f"{found.url} has room for prompts of {longest} tokens only: too short to time"
        )
    kind = "sglang" if info.engine == "sglang" else "vllm"
    return Programme(found.url, kind, key_file, info, info.block_size, device_tokens, lengths)


async def measure(programme: Programme, tick: Callable[[str], None]) -> Costs:
    """Send the requests and return what they tell; `tick` is told what is measured before each. What a load from host
    memory costs can't be seen from outside: it is left unknown. Raises `CalibrationError`."""
    told = {"kind": programme.kind, "url": programme.url, "api_key_file": programme.key_file}
    engine = EngineSettings.model_validate(told)
    adapter = connect(engine)
    http = Http(engine.url, "calibrate", api_key_of(engine), None)
    try:
        present, before = await _counts(adapter)
        if present:
            raise CalibrationError(
                f"{programme.url} is serving requests: they would wait, and the times mean little"
            )
        costs = await _measure(_Sender(http, programme, tick), programme)
        _, after = await _counts(adapter)
        if after - before != programme.requests:
            raise CalibrationError(
                "the engine served others meanwhile, so that the times mean little: try again"
            )
    except EngineError as error:
        raise CalibrationError(f"{programme.url}: {error}") from None
    finally:
        await http.close()
        await adapter.close()
    return costs


async def _counts(adapter: EngineAdapter) -> tuple[int, int]:
    """Return how many requests the engine has, and how many it has finished."""
    pressure = await adapter.pressure()
    if pressure is None or pressure.finished is None:
        raise CalibrationError("the engine doesn't count its requests")
    return pressure.running + pressure.waiting, pressure.finished


async def _measure(sender: _Sender, programme: Programme) -> Costs:
    await sender.warm_up()
    cold, cached = await sender.prefills()
    if cached[-1] > CACHED_SHARE * cold[-1]:
        raise CalibrationError(
            f"a prompt that was sent before takes {cached[-1]:.3f} s instead of {cold[-1]:.3f} s: "
            "is the prefix cache on?"
        )
    per_token = linear_regression(programme.lengths, cold).slope
    alone, together = await sender.between_tokens(1), await sender.between_tokens(TOGETHER)
    decode = max(0.0, (together - alone) / (TOGETHER - 1))
    if per_token <= 0 or alone <= decode:
        raise CalibrationError(
            "the times are too uneven to tell costs from them: try again on a quieter machine"
        )
    info = programme.info
    return Costs(
        name=f"{info.engine}-measured",
        source=f"measured on {info.engine} {info.version} at {programme.url}, {datetime.now(UTC):%Y-%m-%d}; "
        f"steps of {DEFAULT_BATCH_TOKENS} tokens are assumed",
        block_tokens=programme.block_tokens,
        batch_tokens=DEFAULT_BATCH_TOKENS,
        device_tokens=programme.device_tokens,
        step_seconds=alone - decode,
        prefill_token_seconds=per_token,
        decode_request_seconds=decode,
    )


class _Sender:
    def __init__(self, http: Http, programme: Programme, tick: Callable[[str], None]) -> None:
        self._http = http
        self._programme = programme
        self._tick = tick
        self._random = Random()

    async def warm_up(self) -> None:
        """Send one request that doesn't count: the first of a kind may have code to compile."""
        await self._timed([self._prompt(SHORT_TOKENS)], 1)

    async def prefills(self) -> tuple[list[float], list[float]]:
        """Return the seconds that a prompt of each length takes: computed, and cached."""
        cold, cached = [], []
        for length in self._programme.lengths:
            self._tick(f"prompts of {length} tokens")
            prompts = [self._prompt(length) for _ in range(REPEATS)]
            cold.append(median([await self._timed([prompt], 1) for prompt in prompts]))
            cached.append(median([await self._timed([prompt], 1) for prompt in prompts]))
        return cold, cached

    async def between_tokens(self, together: int) -> float:
        """Return the seconds of a step in which so many requests get their next token."""
        self._tick(f"answers, {together} at once")
        seconds = []
        for _ in range(REPEATS):
            prompts = [self._prompt(SHORT_TOKENS) for _ in range(together)]
            await self._timed(prompts, 1)
            first = await self._timed(prompts, 1)
            seconds.append((await self._timed(prompts, 1 + ANSWER_TOKENS) - first) / ANSWER_TOKENS)
        return median(seconds)

    def _prompt(self, tokens: int) -> list[int]:
        return self._random.choices(TOKENS, k=tokens)

    async def _timed(self, prompts: Sequence[Sequence[int]], output: int) -> float:
        """Send prompts at once; return the seconds until all are answered."""
        began = perf_counter()
        await asyncio.gather(*(self._send(prompt, output) for prompt in prompts))
        return perf_counter() - began

    async def _send(self, prompt: Sequence[int], output: int) -> None:
        body = {
            "model": self._programme.info.base_models[0],
            "prompt": list(prompt),
            "max_tokens": output,
            "temperature": 0,
            "ignore_eos": True,
        }
        if self._programme.kind == "vllm":
            # There a larger number is less urgent; to SGLang it is more.
            body["priority"] = PRIORITY
        await self._http.json("POST", COMPLETIONS, body, deadline=DEADLINE_SECONDS)
