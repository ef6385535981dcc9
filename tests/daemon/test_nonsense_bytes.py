"""What fuzzing (`make fuzz`) has found, each with the bytes that showed it."""

from __future__ import annotations

import io
from pathlib import Path
from time import thread_time

import msgspec
import pytest

from scalesim_adapters import metrics
from scalesim_adapters.base import FeedLost
from scalesim_adapters.http import read_json
from scalesim_adapters.kvevents.decode import Decoder
from scalesim_daemon.recording.format import BadRecording, read_header, read_records
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError

STORED = {
    "type": "BlockStored",
    "block_hashes": [11],
    "parent_block_hash": None,
    "token_ids": [1, 2],
    "block_size": 2,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": "alice",
}


@pytest.mark.parametrize(
    "batch",
    [
        msgspec.msgpack.encode([1.0, [STORED], 0]).replace(b"alice", b"al\xff\xfee"),
        msgspec.msgpack.encode([1.0, [{**STORED, "token_ids": [2**32]}], 0]),
        msgspec.msgpack.encode([1.0, [{**STORED, "token_ids": [-1]}], 0]),
        msgspec.msgpack.encode([1.0, [STORED], 0]).replace(b"lora_id\xc0", b"lora_id" + b"\x91" * 5000),
        b"\x93\x00\xdd\xff\xff\xff\xff",
    ],
    ids=["no UTF-8", "token too large", "token below 0", "nested deep", "longer than memory"],
)
def test_a_batch_that_is_none_loses_the_feed_and_not_the_daemon(batch: bytes) -> None:
    (event,) = Decoder().decode(batch)
    assert isinstance(event, FeedLost)
    assert event.reason.startswith("a KV event of a form we don't know: ")


def test_labels_are_read_in_one_pass() -> None:
    wanted = metrics.parser(("running",))
    page = "running{" + "a" * 200_000 + '} 1\nrunning{model="base",engine="0"} 2\n'
    began = thread_time()
    samples = metrics.parse(page, wanted)["running"]
    # By the square of its length it would take minutes.
    assert thread_time() - began < 5
    assert [(dict(sample.labels), sample.value) for sample in samples] == [
        ({}, 1.0),
        ({"model": "base", "engine": "0"}, 2.0),
    ]


@pytest.mark.parametrize("answer", [b'{"a": "\\ud800"}', b"[" * 100_000, b'{"a": "\xff"}', b"NaN", b""])
def test_an_answer_that_is_no_json_is_a_value_error(answer: bytes) -> None:
    with pytest.raises(ValueError):
        read_json(answer)


def test_a_recording_with_text_that_has_no_form_in_utf_8_is_damaged() -> None:
    header = b'{"scalesim": "recording", "version": 1, "at": 0.0, "content": false}\n'
    file = io.BytesIO(header + b'{"after": 1.0, "source": "\\ud800", "seq": 0, "events": []}\n')
    _, offset = read_header(file)
    with pytest.raises(BadRecording, match="the line is damaged"):
        list(read_records(file, offset))


@pytest.mark.parametrize(
    "text",
    [
        "api: {port: 2001-99-99}",
        "api: {port: !!int ''}",
        "api: {port: !!timestamp x}",
        "api: {port: !!bool x}",
        "log: " + "[" * 600,
        "api: {port: " + "9" * 5000 + "}",
        "api: !!python/object/apply:os.system [x]",
    ],
)
def test_a_configuration_that_yaml_chokes_on_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "scalesim.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"is no YAML: "):
        load_settings(file)
