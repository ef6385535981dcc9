"""`python -m bench.fleet.engine PORT FILE`: an emulated engine behind a tap, which adds each act to a file."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bench.fleet.tap import Act, Tap
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer

BLOCK = 32
BLOCKS = 40 * 8
KV_PORTS = 5557, 5558
TIME_SCALE = 0.1


def read(path: Path) -> list[Act]:
    """Return the acts in a file, in order."""
    lines = (line.split() for line in path.read_text().splitlines())
    return [Act(float(at), daemon, None if token == "-" else int(token)) for at, daemon, token in lines]


async def serve(port: int, path: Path) -> None:
    """Serve at a port of all interfaces until cancelled."""
    kv, replay = KV_PORTS
    config = EmulatorConfig(
        endpoint=f"tcp://*:{kv}",
        replay_endpoint=f"tcp://*:{replay}",
        blocks=BLOCKS,
        block_size=BLOCK,
        max_num_batched_tokens=512,
        time_scale=TIME_SCALE,
    )
    with EmulatorServer(config) as engine, path.open("a", buffering=1) as file:

        def note(act: Act) -> None:
            file.write(f"{act.at:.6f} {act.daemon} {act.token or '-'}\n")

        async with Tap(engine.port, note).open("0.0.0.0", port):  # nosec B104  # its host's network has no other
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
