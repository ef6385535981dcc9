"""What the emulator's tests share: LoRA folders, and ways to talk to a server and its feed."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import zmq

from scalesim_adapters.emulator import EmulatorConfig

WITHIN = 5.0


def make_lora(path: Path, *, rank: int = 8, weights: bytes | None = None) -> Path:
    """Write a LoRA that holds nothing but looks whole."""
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    header = b"{}"
    whole = len(header).to_bytes(8, "little") + header + bytes(64)
    (path / "adapter_model.safetensors").write_bytes(whole if weights is None else weights)
    return path


def feed_config(folder: Path, **fields: Any) -> EmulatorConfig:
    """Return a configuration whose feed lies in a folder."""
    return EmulatorConfig(
        endpoint=f"ipc://{folder}/kv", replay_endpoint=f"ipc://{folder}/kv-replay", **fields
    )


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again until it holds; every question is a round trip."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, "it never came to hold"


def metric(http: httpx.Client, name: str) -> float:
    """Return the sum of a metric's samples."""
    lines = [
        line for line in http.get("/metrics").text.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    ]
    assert lines, name
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@contextmanager
def listening(config: EmulatorConfig, http: httpx.Client) -> Iterator["Listener"]:
    """Subscribe to a feed, and store blocks until they are heard of, so that nothing after that is missed."""
    with zmq.Context() as context, context.socket(zmq.SUB) as feed, context.socket(zmq.DEALER) as replay:
        assert config.endpoint and config.replay_endpoint
        feed.subscribe(b"")
        feed.connect(config.endpoint)
        replay.connect(config.replay_endpoint)
        fresh = count(20_000)

        def heard() -> bool:
            tokens = [next(fresh)] * config.block_size
            http.post("/v1/completions", json={"prompt": tokens, "max_tokens": 1}).raise_for_status()
            return bool(feed.poll(10))

        until(heard)
        listener = Listener(feed, replay)
        while feed.poll(10):
            listener.batch()
        yield listener


class Listener:
    """Reads batches as (number, events)."""

    def __init__(self, feed: zmq.Socket[bytes], replay: zmq.Socket[bytes]) -> None:
        self._feed = feed
        self._replay = replay
        self.last = -1

    def batch(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the next batch, and remember its number as the last."""
        number, events = _batch(_receive(self._feed)[1:])
        self.last = number
        return number, events

    def replayed(self, first: int) -> list[tuple[int, list[dict[str, Any]]]]:
        """Ask for the batches from a number on."""
        self._replay.send_multipart([b"", first.to_bytes(8, "big")])
        batches = []
        while (frames := _receive(self._replay))[2] != b"\xff" * 8:
            batches.append(_batch(frames[2:]))
        assert frames == [b"", b"", b"\xff" * 8, b""]
        return batches


def _receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    assert socket.poll(WITHIN * 1000), "nothing came"
    return socket.recv_multipart()


def _batch(frames: list[bytes]) -> tuple[int, list[dict[str, Any]]]:
    return int.from_bytes(frames[0], "big"), msgspec.msgpack.decode(frames[1])[1]
