"""Clients that know nothing of the gateway stream through it what they stream from the engine itself."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from scalesim_adapters.emulator import EmulatorServer
from tests.daemon.gateway_rig import gateway
from tests.daemon.live import WITHIN, emulator

ASK = {"model": "base", "messages": [{"role": "user", "content": "what now?"}], "max_tokens": 8}
NODE = """
const OpenAI = require("openai");
const client = new OpenAI({ baseURL: process.argv[1] + "/v1", apiKey: "none", maxRetries: 0 });
(async () => {
  const parts = [];
  const stream = await client.chat.completions.create({ ...JSON.parse(process.argv[2]), stream: true });
  for await (const part of stream) parts.push(part.choices[0].delta.content ?? "");
  console.log(JSON.stringify(parts));
})();
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmulatorServer]:
    with emulator(tmp_path) as running:
        yield running


def both_ways(folder: Path, engine: EmulatorServer, stream: Callable[[str], list[str]]) -> None:
    async def scene() -> None:
        async with gateway(folder, engine.url) as through:
            urls = (engine.url, str(through.base_url).rstrip("/"))
            texts = [await asyncio.to_thread(stream, url) for url in urls]
            assert texts[0] == texts[1] and len(texts[0]) >= ASK["max_tokens"]

    asyncio.run(scene())


def test_openais_client_for_python(tmp_path: Path, engine: EmulatorServer) -> None:
    def stream(url: str) -> list[str]:
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            parts = client.chat.completions.create(**ASK, user="rosa", stream=True)  # type: ignore[call-overload]
            return [part.choices[0].delta.content or "" for part in parts]

    both_ways(tmp_path, engine, stream)


def test_openais_client_for_node(tmp_path: Path, engine: EmulatorServer) -> None:
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('openai')"], capture_output=True).returncode:
        pytest.skip("node or its package openai is not installed (NODE_PATH names where it is)")

    def stream(url: str) -> list[str]:
        command = [node, "-e", NODE, url, json.dumps({**ASK, "user": "rosa"})]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    both_ways(tmp_path, engine, stream)


@pytest.mark.filterwarnings("ignore")
def test_litellm(tmp_path: Path, engine: EmulatorServer) -> None:
    litellm = pytest.importorskip("litellm")

    def stream(url: str) -> list[str]:
        ask = {**ASK, "model": "openai/base"}
        parts = litellm.completion(**ask, api_base=f"{url}/v1", api_key="none", user="rosa", stream=True)
        return [part.choices[0].delta.content or "" for part in parts]

    both_ways(tmp_path, engine, stream)


@pytest.mark.filterwarnings("ignore")
def test_langchain(tmp_path: Path, engine: EmulatorServer) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")

    def stream(url: str) -> list[str]:
        chat = langchain_openai.ChatOpenAI(
            base_url=f"{url}/v1", api_key="none", model="base", max_tokens=8, model_kwargs={"user": "rosa"}
        )
        return [part.content for part in chat.stream("what now?")]

    both_ways(tmp_path, engine, stream)
