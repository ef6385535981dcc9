"""The engine's loop: time, cancelling, LoRAs between steps, and its death."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from scalesim_adapters.emulator import CostModel, EmulatorConfig
from scalesim_adapters.emulator.chain import Chain
from scalesim_adapters.emulator.engine import Engine, EngineDead, Ticket
from scalesim_adapters.emulator.events import BlockStored, KVEvent
from scalesim_adapters.emulator.loras import LoraUnreadable
from tests.adapters.emulator_rig import make_lora

CONFIG = EmulatorConfig(blocks=64, block_size=16, max_model_len=1024, max_num_batched_tokens=64)


class Batches:
    """What an engine published."""

    def __init__(self) -> None:
        self.events: list[KVEvent] = []
        self._new: asyncio.Queue[None] = asyncio.Queue()

    def publish(self, events: list[KVEvent]) -> None:
        self.events += events
        self._new.put_nowait(None)

    async def more(self, count: int) -> None:
        for _ in range(count):
            await self._new.get()


def play(scene: Callable[[Engine, Batches], Awaitable[None]], config: EmulatorConfig = CONFIG) -> None:
    """Run a scene against a running engine; the engine's own error, if any, comes last."""

    async def main() -> None:
        batches = Batches()
        engine = Engine(config, batches.publish)
        running = asyncio.create_task(engine.run())
        try:
            await asyncio.wait_for(scene(engine, batches), 10)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def submit(engine: Engine, first: int, tokens: int, max_tokens: int = 1, lora: str | None = None) -> Ticket:
    chain = Chain(CONFIG.block_size, list(range(first, first + tokens)), engine.loras[lora] if lora else None)
    return engine.submit(chain, max_tokens)


async def outputs(ticket: Ticket) -> list[int]:
    return [output.token async for output in ticket]


def test_tokens_depend_on_the_prompt_alone() -> None:
    async def scene(engine: Engine, _: Batches) -> None:
        alone = await outputs(submit(engine, 0, 100, 8))
        together = await asyncio.gather(*(outputs(submit(engine, first, 100, 8)) for first in (0, 500, 0)))
        assert together[0] == together[2] == alone
        assert together[1] != alone

    play(scene)


def test_an_aborted_request_keeps_its_finished_chunks() -> None:
    async def scene(engine: Engine, batches: Batches) -> None:
        engine.gate.admit(2)
        ticket = submit(engine, 0, 500)
        await batches.more(2)
        engine.abort(ticket)
        engine.gate.open()
        again = submit(engine, 0, 500)
        await outputs(again)
        assert again.sequence.cached == 128
        stored = [event for event in batches.events if isinstance(event, BlockStored)]
        assert sum(len(event.block_hashes) for event in stored) == 500 // 16

    play(scene)


def test_steps_take_the_time_of_the_cost_model() -> None:
    cost = CostModel(step=0.02, prefill_token=0.001, decode_request=0.01)
    config = EmulatorConfig(
        blocks=64, block_size=16, max_model_len=1024, max_num_batched_tokens=64, cost=cost, time_scale=0.5
    )

    async def scene(engine: Engine, _: Batches) -> None:
        started = time.monotonic()
        await outputs(submit(engine, 0, 100, 3))
        # Two steps of prefill, two of generation.
        emulated = 4 * 0.02 + 100 * 0.001 + 2 * 0.01
        assert time.monotonic() - started >= 0.5 * emulated

    play(scene, config)


def test_a_lora_whose_files_are_gone_kills_the_engine_once_it_left_host_memory(tmp_path: Path) -> None:
    config = EmulatorConfig(blocks=64, block_size=16, max_model_len=1024, max_loras=1, max_cpu_loras=2)
    paths = [make_lora(tmp_path / f"lora{index}") for index in range(3)]

    async def scene(engine: Engine, _: Batches) -> None:
        await engine.load_lora("lora0", str(paths[0]))
        for file in paths[0].iterdir():
            file.unlink()
        assert await outputs(submit(engine, 0, 10, lora="lora0"))
        await engine.load_lora("lora1", str(paths[1]))
        await engine.load_lora("lora2", str(paths[2]))
        bystander = submit(engine, 500, 10, 1000)
        with pytest.raises(EngineDead):
            await outputs(submit(engine, 0, 10, lora="lora0"))
        with pytest.raises(EngineDead):
            await outputs(bystander)
        assert engine.dead
        with pytest.raises(EngineDead):
            submit(engine, 0, 10)

    play(scene, config)


def test_unloading_drops_the_name_and_keeps_the_weights(tmp_path: Path) -> None:
    async def scene(engine: Engine, _: Batches) -> None:
        path = str(make_lora(tmp_path / "lora"))
        await engine.load_lora("lora", path)
        warm = submit(engine, 0, 40, lora="lora")
        await outputs(warm)
        engine.unload_lora("lora")
        assert [lora.id for lora in engine.places.device] == [1]
        await engine.load_lora("lora", path)
        assert [lora.id for lora in engine.places.host] == [1, 2]
        again = submit(engine, 0, 40, lora="lora")
        await outputs(again)
        assert again.sequence.cached == 32

    play(scene)


def test_a_failed_load_takes_an_id_and_leaves_no_name(tmp_path: Path) -> None:
    async def scene(engine: Engine, _: Batches) -> None:
        with pytest.raises(LoraUnreadable):
            await engine.load_lora("absent", str(tmp_path / "absent"))
        assert not engine.loras
        await engine.load_lora("lora", str(make_lora(tmp_path / "lora")))
        assert engine.loras["lora"].id == 2

    play(scene)


def test_sizes_that_vllm_would_refuse_are_refused() -> None:
    with pytest.raises(ValueError, match="doesn't fit"):
        EmulatorConfig(blocks=3, block_size=16, max_model_len=64)
    with pytest.raises(ValueError, match="max_cpu_loras"):
        EmulatorConfig(max_loras=4, max_cpu_loras=2)
    with pytest.raises(ValueError, match="scheduling_policy"):
        EmulatorConfig(scheduling_policy="random")
    with pytest.raises(ValueError, match="at least 1"):
        EmulatorConfig(max_num_seqs=0)
    with pytest.raises(ValueError, match="time_scale"):
        EmulatorConfig(time_scale=-1)
