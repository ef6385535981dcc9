"""Publishers of all languages give, and read, the golden bytes."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from scalesim_client.codec import unpack_frames
from tests.client.speakers import line_of, translate
from tests.client.wire_page import GOLDEN

# The first test of a language builds it.
pytestmark = [pytest.mark.publishers, pytest.mark.timeout(180)]
every_language = pytest.mark.parametrize("language", ["python", "node", "c", "rust"])

FILE: dict[str, Any] = json.loads(GOLDEN.read_text())
NOT_SAID = ("stream.opened", "stream.closed", "state.snapshot", "path.declared", "agent.activated")


def is_said(event: dict[str, Any]) -> bool:
    """Return whether `say` can say an event: the publisher's own events and paths it can't, nor nested messages."""
    return event["type"] not in NOT_SAID and "messages" not in event


@every_language
def test_events_are_encoded_to_the_golden_bytes(language: str) -> None:
    cases = [case for case in FILE["events"] if is_said(case["event"])]
    assert len(cases) > 20
    encoded = translate(language, "encode", [line_of(case["event"]) for case in cases])
    assert dict(zip((case["name"] for case in cases), encoded, strict=True)) == {
        case["name"]: case["msgpack"] for case in cases
    }


@every_language
def test_golden_bytes_are_decoded(language: str) -> None:
    frames = [case["frames"] for case in FILE["events"] + FILE["controls"]]
    payloads = [unpack_frames([bytes.fromhex(frame) for frame in three])[2] for three in frames]
    decoded = translate(language, "decode", [payload.hex() for payload in payloads])
    assert [json.loads(text) for text in decoded] == [msgpack.unpackb(payload) for payload in payloads]
