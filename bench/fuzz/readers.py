"""All that reads what others wrote, each with examples of what it reads and what it may say of nonsense."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from bench.fuzz.mutate import JSON, LINES, MSGPACK, TEXT, YAML, Form
from scalesim_adapters import metrics
from scalesim_adapters.base import ProtocolMismatch
from scalesim_adapters.dues import DueFeed, DueTable
from scalesim_adapters.http import read_json
from scalesim_adapters.kvevents.decode import Decoder
from scalesim_adapters.sglang.probe import server_info
from scalesim_adapters.vllm import metrics as vllm_metrics
from scalesim_client.codec import decode, pack_control, pack_frames, unpack_frames
from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon.blocks import BlockTree
from scalesim_daemon.door import MalformedMessage, events_in
from scalesim_daemon.gate import Gate
from scalesim_daemon.population import Population
from scalesim_daemon.recording.format import BadRecording, read_header, read_records
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError
from scalesim_daemon.sscheduler import BadUpdate, read_update
from scalesim_daemon.view import EngineView
from scalesim_daemon.wire import parse_all, read_plain

ROOT = Path(__file__).parents[2]
BETWEEN_FRAMES = b"\x00\xff\x00\xfe"
SMALL = 64 * 1024
"""Bytes of a bomb for a reader in Python that goes through a file by hand: a second of work."""
LIVES = 500
"""Inputs after which what has a memory begins anew."""

Read = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Reader:
    """`make` returns the function that reads one input after another. It may raise `refuses` and nothing else. `share`
    is its part of all inputs, by weight; `largest` what an input may have, in bytes; `seconds` what the smallest
    may take."""

    name: str
    make: Callable[[], Read]
    examples: Callable[[], Sequence[bytes]]
    form: Form
    refuses: tuple[type[Exception], ...] = ()
    share: float = 1.0
    largest: int = MAX_MESSAGE_BYTES
    seconds: float = 0.5


def _feed() -> Read:
    """The ZeroMQ door: frames to the gate, and what it lets through to the population."""
    gate, population, taken = Gate(), Population(), 0

    def read(data: bytes) -> object:
        nonlocal gate, population, taken
        taken += 1
        if taken % LIVES == 0:
            gate, population = Gate(), Population()
        frames, plain = data.split(BETWEEN_FRAMES), None
        try:
            topic, seq, payload = unpack_frames(frames) if len(frames) > 1 else ("anonymous", None, data)
            plain = read_plain(payload)
            # What is plain has to be valid one by one, too.
            _, raws = decode(payload)
        except ValueError:
            assert not plain
            return None
        if plain:
            assert not parse_all(raws)[1]
            verdict = gate.judge(topic, seq, plain)
        else:
            verdict = gate.admit(topic, seq, raws)
        population.apply(verdict.admitted, float(taken))
        return population.take_changes()

    return read


def _control() -> Read:
    """A publisher's end: what a daemon says to it."""

    def read(data: bytes) -> object:
        return decode(unpack_frames(data.split(BETWEEN_FRAMES))[2])

    return read


def _kv_events() -> Read:
    """An engine's batches, and what becomes of its blocks."""
    decoder, view, taken = Decoder(), _view(), 0

    def read(data: bytes) -> object:
        nonlocal decoder, view, taken
        taken += 1
        if taken % LIVES == 0:
            decoder, view = Decoder(), _view()
        for event in decoder.decode(data):
            view.happened(event)
        return view.known

    return read


def _view() -> EngineView:
    view = EngineView("fuzzed", quiet_share=0.0)
    view.tree = BlockTree(32)
    return view


def _dues() -> Read:
    """The plug-ins' end: what the daemon broadcasts."""
    feed, seq = DueFeed(DueTable()), 0

    def read(data: bytes) -> object:
        nonlocal seq
        seq += 1
        return feed.take([b"dues", seq.to_bytes(8, "big"), data], float(seq))

    return read


def _vllm_metrics() -> Read:
    def read(data: bytes) -> object:
        samples = vllm_metrics.parse(data.decode(errors="replace"))
        return vllm_metrics.pressure(samples), vllm_metrics.weights_discarded(samples)

    return read


def _any_metrics() -> Read:
    wanted = metrics.parser(
        ("llamacpp:requests_deferred", "sglang:num_running_reqs", "vllm:num_requests_running")
    )

    def read(data: bytes) -> object:
        samples = metrics.parse(data.decode(errors="replace"), wanted)
        return [metrics.total(samples, name) for name in samples]

    return read


def _server_info() -> Read:
    """SGLang's account of itself."""

    def read(data: bytes) -> object:
        try:
            answer = read_json(data)
        except ValueError:
            return None
        server = server_info(answer)
        return server.refusal, server.incarnation, server.sleeps, server.plugin, server.kv_events()

    return read


def _recording() -> Read:
    def read(data: bytes) -> object:
        file = io.BytesIO(data)
        _, offset = read_header(file)
        return sum(1 for _ in read_records(file, offset))

    return read


def _settings() -> Read:
    """A configuration, in a file that is in memory alone."""
    number = os.memfd_create("scalesim.yaml")

    def read(data: bytes) -> object:
        os.ftruncate(number, 0)
        os.pwrite(number, data, 0)
        return load_settings(Path(f"/proc/self/fd/{number}"))

    return read


@cache
def _golden(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def _payloads(kind: str) -> list[bytes]:
    said = _golden("client/golden/wire.json")["events"]
    if kind == "json":
        return [event["json"].encode() for event in said]
    return [bytes.fromhex(event["frames"][2]) for event in said]


def _framed() -> list[bytes]:
    said = _golden("client/golden/wire.json")["events"]
    messages = [BETWEEN_FRAMES.join(map(bytes.fromhex, event["frames"])) for event in said]
    opened = messages[0].split(BETWEEN_FRAMES)
    # Most of what is said comes by a stream that is open: its messages have the numbers that follow.
    numbered = [
        [opened[0], seq.to_bytes(8, "big"), payload] for seq, payload in enumerate(_payloads("msgpack"))
    ]
    return [*messages, *(BETWEEN_FRAMES.join(frames) for frames in numbered), *_payloads("json")]


def _controls() -> list[bytes]:
    payloads = [
        pack_control("welcome", last_seq=-1),
        pack_control("welcome", ts=1.5, last_seq=7, resync=True),
        pack_control("resync", last_seq=2**63 - 1),
        pack_control("welcome", last_seq=3, error="schema version 2.0 is not supported"),
    ]
    return [
        BETWEEN_FRAMES.join(pack_frames("scalesimd", seq, payload)) for seq, payload in enumerate(payloads)
    ]


def _batches(engine: str) -> Callable[[], list[bytes]]:
    def examples() -> list[bytes]:
        golden = _golden(f"tests/adapters/golden/{engine}.json")
        batches = [bytes.fromhex(batch["payload"]) for batch in golden["kv_events"]]
        return [*batches, *(_as_arrays(batch) for batch in batches)]

    return examples


def _as_arrays(batch: bytes) -> bytes:
    """The form of earlier versions: an event is an array that begins with its type."""
    ts, events, *rest = msgspec.msgpack.decode(batch)
    return msgspec.msgpack.encode([ts, [list(event.values()) for event in events], *rest])


def _due_messages() -> list[bytes]:
    clocks = {"village": (12.0, 0.5), "town": (3.25, 2.0)}
    dues = {"village/rosa": ("village", 14.0), "town/7": ("town", float("-inf")), "town/8": None}
    messages = [
        {"type": "snapshot", "clocks": clocks, "dues": dues},
        {"type": "delta", "clocks": {"village": (13.0, 0.5)}, "dues": {}},
        {"type": "delta", "clocks": {}, "dues": {"village/rosa": None}},
    ]
    return [msgspec.msgpack.encode(message) for message in messages]


def _metric_pages() -> list[bytes]:
    engines = [_golden(f"tests/adapters/golden/{name}.json") for name in ("vllm-0.32.0", "sglang-0.5.23")]
    lines = [line for engine in engines for line in engine["metrics"]]
    said = [line for line in lines if not line.startswith("#")]
    running = next(line for line in said if line.startswith(vllm_metrics.RUNNING))
    pages = [said[at : at + 3] for at in range(0, len(said), 3)]
    return [
        "\n".join(page).encode() for page in ([*lines, running], *([running, *page, ""] for page in pages))
    ]


def _server_infos() -> list[bytes]:
    return [json.dumps(_golden("tests/adapters/golden/sglang-0.5.23.json")["server_info"]).encode()]


def _recordings() -> list[bytes]:
    header = {"scalesim": "recording", "version": 1, "at": 1795341639.875, "content": False}
    message = {"after": 0.5, "source": "village", "seq": 0, "events": [{"type": "step.advanced", "now": 3.0}]}
    request = {"after": 1.0, "agent": "village/rosa", "path": "/v1/completions", "body": {"model": "base"}}
    lines = [header, message, {**message, "seq": None}, request, {"after": 2.0, "end": "closed"}]
    whole = [json.dumps(line).encode() + b"\n" for line in lines]
    return [b"".join(whole), b"".join(whole[:3]), whole[0] + whole[4]]


def _updates() -> list[bytes]:
    updates: list[Any] = [
        {"agent_data": {"1": 3, "2": 0}, "timestep_data": {"3": ["1"], "0": ["2"]}, "timestep_cnt": 4},
        {"agent_data": {"1": 2.5}, "timestep_cnt": 0},
        {"timestep_data": {"7": [1, 2, 3]}, "timestep_cnt": 2**52},
    ]
    return [json.dumps(update).encode() for update in updates]


def _configs() -> list[bytes]:
    example = (ROOT / "configs" / "example.yaml").read_text(encoding="utf-8")
    lines = [line for line in example.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    sections = [index for index, line in enumerate(lines) if not line.startswith(" ")] + [len(lines)]
    return ["\n".join(lines[start:end]).encode() + b"\n" for start, end in pairwise(sections)]


FRAMES = Form(MSGPACK.pieces + JSON.pieces, MSGPACK.bombs)
READERS = (
    Reader("feed", _feed, _framed, FRAMES, share=3.0),
    Reader("feed-msgpack", _feed, lambda: _payloads("msgpack"), MSGPACK, share=3.0),
    Reader("feed-json", _feed, lambda: _payloads("json"), JSON, share=2.0),
    Reader("door", lambda: events_in, lambda: _payloads("json"), JSON, (MalformedMessage,)),
    Reader("control", _control, _controls, FRAMES, (ValueError,)),
    Reader("kv-vllm", _kv_events, _batches("vllm-0.32.0"), MSGPACK, share=3.0),
    Reader("kv-sglang", _kv_events, _batches("sglang-0.5.23"), MSGPACK, share=2.0),
    Reader("dues", _dues, _due_messages, MSGPACK),
    Reader("vllm-metrics", _vllm_metrics, _metric_pages, TEXT, (ProtocolMismatch,), largest=SMALL),
    Reader("metrics", _any_metrics, _metric_pages, TEXT, (ProtocolMismatch,), largest=SMALL),
    Reader("server-info", _server_info, _server_infos, JSON, (ProtocolMismatch,)),
    Reader("recording", _recording, _recordings, LINES, (BadRecording,), share=2.0),
    Reader("update", lambda: read_update, _updates, JSON, (BadUpdate,)),
    Reader("settings", _settings, _configs, YAML, (ConfigError,), 0.02, SMALL, seconds=10.0),
)


def reader(name: str) -> Reader:
    """Return the reader of a name."""
    return next(known for known in READERS if known.name == name)
