"""The emulator against what a real vLLM said to the same requests: events byte for byte, answers alike."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zmq

from scalesim_adapters.emulator import EmulatorServer
from tests.adapters.emulator_rig import feed_config, make_lora

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vllm-0.32.0.json").read_text())
LORAS = Path(".engines/models/tiny-loras")
CLEARED_AFTER = "completion that needs most of the pool"
# The emulator's tokens are bytes, so the lengths and ids of texts differ; so do names made of random digits.
OWN_VALUES = {
    "id",
    "created",
    "text",
    "content",
    "token_ids",
    "tokens",
    "count",
    "system_fingerprint",
    "root",
    "version",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Send the recorded requests to an emulator of the same sizes; keep what it says."""
    folder = tmp_path_factory.mktemp("golden")
    config = feed_config(
        folder,
        blocks=40,
        max_model_len=1024,
        max_num_batched_tokens=1024,
        max_lora_rank=8,
        dev_mode=True,
    )
    with pytest.MonkeyPatch.context() as patch, EmulatorServer(config) as server, zmq.Context() as context:
        patch.chdir(folder)
        make_lora(LORAS / "lora00")
        make_lora(LORAS / "lora01")
        make_lora(folder / "truncated", weights=(10**6).to_bytes(8, "little"))
        feed, replay = context.socket(zmq.SUB), context.socket(zmq.DEALER)
        feed.connect(f"ipc://{folder}/kv")
        replay.connect(f"ipc://{folder}/kv-replay")
        feed.subscribe(b"")
        with feed, replay, httpx.Client(base_url=server.url) as http:
            before = http.get("/metrics").text
            answers = list(answer_all(http, folder))
            yield {
                "answers": answers,
                "live": list(iter(lambda: receive(feed) if feed.poll(1000) else None, None)),
                "batches": [frames[1:] for frames in ask_replay(replay, 0)],
                "replay": ask_replay(replay, GOLDEN["kv_replay"]["start"]),
                "metrics_before": before.splitlines(),
                "metrics": http.get("/metrics").text.splitlines(),
            }


def answer_all(http: httpx.Client, folder: Path) -> Iterator[httpx.Response]:
    for record in GOLDEN["http"]:
        body = json.loads(json.dumps(record["request"]).replace("/run/engine", str(folder)))
        yield http.request(record["method"], record["path"], json=body)
        if record["what"] == CLEARED_AFTER:
            assert http.post("/reset_prefix_cache").json() == {"success": True}


def receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    assert socket.poll(5000), "a message is missing"
    return socket.recv_multipart()


def ask_replay(socket: zmq.Socket[bytes], first: int) -> list[list[bytes]]:
    socket.send_multipart([b"", first.to_bytes(8, "big")])
    messages = [receive(socket)]
    while messages[-1][1]:
        messages.append(receive(socket))
    return messages


def without_time(payload: bytes) -> bytes:
    """Drop the timestamp: an array of three, then a float of nine bytes."""
    assert payload[:2] == b"\x93\xcb"
    return payload[10:]


@pytest.mark.parametrize(
    "index", range(len(GOLDEN["kv_events"])), ids=[b["what"] for b in GOLDEN["kv_events"]]
)
def test_event_bytes_equal_vllms(run: dict[str, Any], index: int) -> None:
    golden = GOLDEN["kv_events"][index]
    topic, number, payload = run["batches"][index]
    assert topic == golden["topic"].encode()
    assert int.from_bytes(number, "big") == golden["seq"]
    assert without_time(payload) == without_time(bytes.fromhex(golden["payload"]))


def test_the_live_feed_says_what_a_replay_says(run: dict[str, Any]) -> None:
    """A subscriber may miss the first batches while it connects, nothing later."""
    assert run["live"]
    assert run["live"] == run["batches"][:-1][-len(run["live"]) :]


def test_replay_equals_vllms(run: dict[str, Any]) -> None:
    """The emulator's texts have more tokens, so that it also stored blocks of those, later."""
    *golden, golden_end = [
        [bytes.fromhex(frame) for frame in message] for message in GOLDEN["kv_replay"]["messages"]
    ]
    *batches, end = run["replay"]
    assert end == golden_end
    for ours, theirs in zip(batches, golden, strict=False):
        assert ours[:3] == theirs[:3]
        assert without_time(ours[3]) == without_time(theirs[3])
    assert len(batches) >= len(golden)


@pytest.mark.parametrize("index", range(len(GOLDEN["http"])), ids=[a["what"] for a in GOLDEN["http"]])
def test_answer_is_like_vllms(run: dict[str, Any], index: int) -> None:
    golden, answer = GOLDEN["http"][index], run["answers"][index]
    assert answer.status_code == golden["status"], answer.text
    assert answer.headers.get("content-type", "") == golden["content_type"]
    if isinstance(golden["body"], dict):
        check_alike(answer.json(), golden["body"], golden["what"])
    elif "event-stream" in golden["content_type"]:
        ours, theirs = chunks(answer.text), chunks(golden["body"])
        assert len(ours) == len(theirs)
        for chunk, golden_chunk in zip(ours, theirs, strict=True):
            check_alike(chunk, golden_chunk, golden["what"])
    else:
        assert answer.text == golden["body"]


def chunks(text: str) -> list[Any]:
    *parts, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def check_alike(ours: Any, theirs: Any, where: str) -> None:
    """Same keys and types everywhere, and the same values but for those that the emulator makes up itself."""
    key = where.rsplit(": ", 1)[-1]
    of_text = key.endswith("_tokens") and ("text" in where or "chat" in where)
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in theirs.items():
            check_alike(ours[key], value, f"{where}: {key}")
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], dict):
        assert len(ours) == len(theirs), where
        for item, golden in zip(ours, theirs, strict=True):
            check_alike(item, golden, where)
    elif (
        key in OWN_VALUES
        or of_text
        or (key == "root" and "tiny-loras" not in theirs)
        or "/run/" in str(theirs)
    ):
        assert type(ours) is type(theirs), where
    else:
        assert ours == theirs, where


def test_cached_tokens_equal_vllms(run: dict[str, Any]) -> None:
    """The recorded prompts of token ids hit as many tokens, one by one."""
    compared = 0
    for golden, answer in zip(GOLDEN["http"], run["answers"], strict=True):
        of_ids = isinstance((golden["request"] or {}).get("prompt"), list)
        if golden["status"] == 200 and of_ids and not golden["request"].get("stream"):
            assert answer.json()["usage"] == golden["body"]["usage"], golden["what"]
            compared += 1
    assert compared >= 12


@pytest.mark.parametrize("when", ["metrics_before", "metrics"])
def test_metrics_have_vllms_names_labels_and_counts(run: dict[str, Any], when: str) -> None:
    ours = samples(run[when])
    for name, golden in samples(GOLDEN[when]).items():
        assert name in ours, name
        for labels, value in golden.items():
            if name == "vllm:cache_config_info":
                (own,) = ours[name]
                assert set(own) <= set(labels)
            elif name in ("vllm:lora_requests_info", "process_start_time_seconds"):
                assert labels in ours[name]
            else:
                assert ours[name][labels] == value, (name, labels)


def samples(lines: list[str]) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for line in lines:
        if match := re.fullmatch(r"([a-z_:]+)(?:\{(.*)\})? ([0-9.e+]+)", line):
            labels = tuple(sorted(re.findall(r'(\w+)="([^"]*)"', match[2] or "")))
            found.setdefault(match[1], {})[labels] = float(match[3])
    return found


def test_events_decode_with_another_codec(run: dict[str, Any]) -> None:
    events = [event for _, _, payload in run["batches"][:-1] for event in msgspec.msgpack.decode(payload)[1]]
    assert {event["type"] for event in events} == {"BlockStored", "BlockRemoved", "AllBlocksCleared"}
