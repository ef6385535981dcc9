"""The golden bytes and the page of the wire say what the Python client does."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from scalesim_client.codec import decode, encode, pack_event, unpack_frames
from scalesim_client.events import EVENT_TYPES
from scalesim_daemon.wire import parse
from tests.client.wire_page import GOLDEN, PAGE, golden_text, page

FILE: dict[str, Any] = json.loads(GOLDEN.read_text())
every_event = pytest.mark.parametrize("case", FILE["events"], ids=lambda case: case["name"])


def test_every_type_of_event_has_golden_bytes() -> None:
    assert {case["event"]["type"] for case in FILE["events"]} == set(EVENT_TYPES)


@every_event
def test_golden_bytes_are_decoded_to_their_event(case: dict[str, Any]) -> None:
    topic, seq, payload = unpack_frames([bytes.fromhex(frame) for frame in case["frames"]])
    assert (topic, str(seq)) == (FILE["topic"], case["seq"])
    assert decode(payload) == decode(case["json"].encode()) == (FILE["ts"], [case["event"]])
    assert msgpack.unpackb(bytes.fromhex(case["msgpack"])) == case["event"]


@every_event
def test_the_event_is_encoded_to_its_golden_bytes(case: dict[str, Any]) -> None:
    assert pack_event(case["event"]).hex() == case["msgpack"]
    assert encode(FILE["ts"], [case["event"]]).hex() == case["frames"][2]
    assert encode(FILE["ts"], [case["event"]], json=True).decode() == case["json"]


@every_event
def test_the_daemon_takes_the_event(case: dict[str, Any]) -> None:
    assert type(parse(case["event"])) is EVENT_TYPES[case["event"]["type"]]


def test_the_golden_file_is_up_to_date() -> None:
    assert GOLDEN.read_text() == golden_text(), "run `make wire`"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make wire`"
