"""A reader who has the pages alone gets a real vLLM and a simulation going.

docs/vllm.md is typed block by block in an empty folder, with the small model, and the flags that a CPU and a small
cache take.
"""

from __future__ import annotations

import os

import pytest

from bench.rig import vllm
from bench.rig.process import MODELS
from tests.docs.blocks import of_scene
from tests.docs.reader import Reader

BLOCK = 32
# Too few for the village's eight prompts.
BLOCKS = 64
FLAGS = (
    f"--enforce-eager --max-model-len {BLOCK * BLOCKS} --kv-cache-memory-bytes {1 << 30} "
    f"--block-size {BLOCK} --num-gpu-blocks-override {BLOCKS + 1}"
)
PATIENCE = 300.0


@pytest.mark.engine
def test_a_reader_gets_a_vllm_and_a_simulation_going() -> None:
    if not vllm.installed():
        pytest.skip(vllm.REMEDY)
    environment = {
        **vllm.ENVIRONMENT,
        **vllm.thread_binding(),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(vllm.SHIM), os.environ.get("PYTHONPATH")))),
        "MODEL": str(MODELS / "tiny"),
        "FLAGS": FLAGS,
    }
    village = next(block for block in of_scene("start") if block.kind == "file")
    with Reader(path=[vllm.VENV / "bin"], environment=environment, patience=PATIENCE) as reader:
        reader.follow([village, *of_scene("vllm")])
        reader.wait(lambda: reader.ask("/v1/report")["prefetches_used"] > 0)
        (engine,) = reader.ask("/v1/engines")["engines"]
        agents = reader.ask("/v1/agents")["agents"]
    assert engine["known"] and engine["version"].startswith(vllm.VERSION)
    places = [place for agent in agents for place in agent["engines"].values()]
    assert any(place["resident_blocks"] == place["blocks"] > 0 for place in places)
