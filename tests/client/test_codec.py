from __future__ import annotations

import gc
import json
import math
import resource
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_client.codec import (
    MAX_JSON_OPENINGS,
    decode,
    encode,
    join_snapshot,
    pack_control,
    pack_event,
    pack_frames,
    unpack_frames,
)
from scalesim_client.events import (
    MAX_EVENTS_PER_MESSAGE,
    MAX_MESSAGE_BYTES,
    ActivityStarted,
    AgentMoved,
    InvocationStarted,
    StepAdvanced,
)

GOLDEN_EVENTS = [
    StepAdvanced(now=7),
    ActivityStarted(agent="Ada", for_=2.5),
    InvocationStarted(agent="Zoë", request="r1"),
]
GOLDEN_MSGPACK = (
    "92cb41dac0af51f8000093"
    "82a474797065ad737465702e616476616e636564a36e6f7707"
    "83a474797065b66167656e742e61637469766974795f73746172746564a56167656e74a3416461a3666f72cb4004000000000000"
    "83a474797065b2696e766f636174696f6e2e73746172746564a56167656e74a45a6fc3aba772657175657374a27231"
)
GOLDEN_JSON = (
    "5b313739353334313633392e3837352c5b"
    "7b2274797065223a22737465702e616476616e636564222c226e6f77223a377d2c"
    "7b2274797065223a226167656e742e61637469766974795f73746172746564222c226167656e74223a22416461222c22666f72223a322e357d2c"
    "7b2274797065223a22696e766f636174696f6e2e73746172746564222c226167656e74223a225a6fc3ab222c2272657175657374223a227231227d"
    "5d5d"
)
GOLDEN_TS = 1795341639.875

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts
values: st.SearchStrategy[Any] = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
wires = st.dictionaries(texts, values, max_size=6)
stamps = st.floats(allow_nan=False, allow_infinity=False)


@given(stamps, st.lists(wires, max_size=5), st.booleans())
def test_what_is_encoded_is_decoded(ts: float, events: list[dict[str, Any]], as_json: bool) -> None:
    assert decode(encode(ts, events, json=as_json)) == (ts, events)


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda tail: b"\x92" + tail))
def test_any_bytes_decode_or_raise_value_error(payload: bytes) -> None:
    try:
        ts, events = decode(payload)
    except ValueError as error:
        assert str(error)
    else:
        assert math.isfinite(ts) and isinstance(events, list)


@given(st.text(max_size=60).map(lambda text: "[" + text))
def test_any_json_text_decodes_or_raises_value_error(text: str) -> None:
    try:
        decode(text.encode(errors="surrogatepass"))
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(("as_json", "golden"), [(False, GOLDEN_MSGPACK), (True, GOLDEN_JSON)])
def test_golden_bytes(as_json: bool, golden: str) -> None:
    assert encode(GOLDEN_TS, GOLDEN_EVENTS, json=as_json).hex() == golden
    assert decode(bytes.fromhex(golden)) == (
        GOLDEN_TS,
        [
            {"type": "step.advanced", "now": 7},
            {"type": "agent.activity_started", "agent": "Ada", "for": 2.5},
            {"type": "invocation.started", "agent": "Zoë", "request": "r1"},
        ],
    )


def test_golden_frames() -> None:
    frames = pack_frames("Stanford@1", 258, b"payload")
    assert [frame.hex() for frame in frames] == ["5374616e666f72644031", "0000000000000102", "7061796c6f6164"]
    assert unpack_frames(frames) == ("Stanford@1", 258, b"payload")


def test_golden_control() -> None:
    assert pack_control("welcome", last_seq=3, resync=True).hex() == (
        "92cb00000000000000009183a474797065a777656c636f6d65a86c6173745f73657103a6726573796e63c3"
    )
    assert decode(pack_control("resync", ts=2.0, last_seq=-1))[1] == [
        {"type": "resync", "last_seq": -1, "resync": True}
    ]
    assert decode(pack_control("welcome", last_seq=0, error="no"))[1] == [
        {"type": "welcome", "last_seq": 0, "resync": False, "error": "no"}
    ]


def test_a_joined_snapshot_is_what_encoding_its_map_gives() -> None:
    events = [event.to_wire() for event in GOLDEN_EVENTS]
    whole = {"type": "state.snapshot", "part": 1, "of": 2, "now": 4.5, "events": events}
    packed = [pack_event(event) for event in GOLDEN_EVENTS]
    assert join_snapshot(GOLDEN_TS, 1, 2, packed, 4.5) == encode(GOLDEN_TS, [whole])


@pytest.mark.parametrize("as_json", [False, True])
def test_numpy_values_become_plain(as_json: bool) -> None:
    numpy = pytest.importorskip("numpy")
    moved = AgentMoved(agent="a", xy=numpy.array([1.5, 2.0], dtype="float32"), speed=numpy.float32(0.5))
    _, events = decode(encode(0.0, [moved], json=as_json))
    assert events == [{"type": "agent.moved", "agent": "a", "xy": [1.5, 2.0], "speed": 0.5}]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("value", [{1, 2}, object(), "\ud800"])
def test_what_has_no_place_on_the_wire_is_refused(value: object, as_json: bool) -> None:
    with pytest.raises(ValueError):
        encode(0.0, [{"type": "x", "value": value}], json=as_json)


@pytest.mark.parametrize("as_json", [False, True])
def test_limits_of_a_message(as_json: bool) -> None:
    event = {"type": "x"}
    assert (
        len(decode(encode(0.0, [event] * MAX_EVENTS_PER_MESSAGE, json=as_json))[1]) == MAX_EVENTS_PER_MESSAGE
    )
    with pytest.raises(ValueError, match="at most 1000 events"):
        encode(0.0, [event] * (MAX_EVENTS_PER_MESSAGE + 1), json=as_json)
    with pytest.raises(ValueError, match="at most 4194304 bytes"):
        encode(0.0, [{"type": "x", "text": "y" * MAX_MESSAGE_BYTES}], json=as_json)


MALFORMED = {
    "empty": (b"", "JSON or msgpack array"),
    "map": (msgpack.packb({"a": 1}), "JSON or msgpack array"),
    "text": (b"hello", "JSON or msgpack array"),
    "truncated": (msgpack.packb([1.0, [{"type": "x"}]])[:-1], "malformed msgpack"),
    "trailing": (msgpack.packb([1.0, []]) + b"\xc0", "malformed msgpack"),
    "reserved byte": (b"\x92\xc1\x90", "malformed msgpack"),
    "bad utf-8": (b"\x92\x01\x91\x81\xa1\xff\x01", "malformed msgpack"),
    "binary": (msgpack.packb([1.0, [{"type": b"x"}]]), "malformed msgpack"),
    "extension": (msgpack.packb([1.0, [msgpack.Timestamp(1)]]), "malformed msgpack"),
    "integer keys": (msgpack.packb([1.0, [{1: 2}]]), "malformed msgpack"),
    "nested too deep": (b"\x92\x01" + b"\x91" * 100_000 + b"\xc0", "malformed msgpack"),
    "three items": (b"[1.0,[],0]", r"must be \[ts"),
    "ts text": (b'["1",[]]', "ts must be"),
    "ts true": (b"[true,[]]", "ts must be"),
    "ts NaN": (msgpack.packb([math.nan, []]), "ts must be"),
    "ts huge": (b"[1" + b"0" * 400 + b",[]]", "ts must be"),
    "events a map": (b"[1,{}]", "must be an array"),
    "json truncated": (b"[1,[", "malformed JSON"),
    "json NaN": (b"[NaN,[]]", "malformed JSON"),
    "json nested too deep": (b"[" * 100_000, "malformed JSON"),
    "json bad utf-8": (b'[1,["\xff"]]', "malformed JSON"),
    "json lone surrogate": (rb'[1,["\ud800"]]', "malformed JSON"),
    "json of many arrays": (b"[1,[" + b"[]," * MAX_JSON_OPENINGS + b"0]]", "at most 262144 '\\['"),
    "msgpack of many arrays": (
        b"\x92\x01\x91\xdd" + (2**18).to_bytes(4, "big") + 2**18 * b"\x94\x90\x80\x90\x80",
        "at most 1048576 arrays and maps",
    ),
    "json utf-16": ("[1,[]]".encode("utf-16-le"), "malformed JSON"),
    "too many events": (json.dumps([1, [{}] * 1001]).encode(), "at most 1000 events"),
    "too long": (b"[" + b" " * MAX_MESSAGE_BYTES, "at most 4194304 bytes"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_payloads_are_refused(name: str) -> None:
    payload, reason = MALFORMED[name]
    with pytest.raises(ValueError, match=reason):
        decode(payload)


def test_the_longest_path_that_fits_is_read() -> None:
    edges = (MAX_MESSAGE_BYTES - 64) // 5
    path = b"\x83\xa4type\xadpath.declared\xa4path\xa1p\xa5edges\xdd" + edges.to_bytes(4, "big")
    assert len(decode(b"\x92\x00\x91" + path + edges * b"\x92\xa1a\xa1b")[1][0]["edges"]) == edges


def test_one_odd_event_is_left_for_its_reader() -> None:
    assert decode(b'[1,[5,{"type":"x"}]]') == (1.0, [5, {"type": "x"}])


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("end", [b"]]", b"]"])
def test_a_large_message_is_not_searched_for_garbage(collects: bool, end: bytes) -> None:
    looks: list[str] = []
    payload = b"[1,[" + b"[]," * 100_000 + b"0" + end

    def note(phase: str, _: dict[str, int]) -> None:
        looks.append(phase)

    gc.callbacks.append(note)
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(ValueError, match="at most 1000 events" if end == b"]]" else "malformed JSON"):
            decode(payload)
        # One look may follow on what was made; while 100,000 arrays are made there would be a hundred.
        assert len(looks) <= 2
        assert gc.isenabled() is collects
    finally:
        gc.callbacks.remove(note)
        gc.enable()


def array_claiming(items: int) -> bytes:
    return b"\xdd" + struct.pack(">I", items)


def test_claimed_lengths_cost_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nested = b"\x92\x01" + array_claiming(2**20) * 1000
    for payload, reason in (
        (nested.ljust(MAX_MESSAGE_BYTES, b"\xdd"), "malformed msgpack"),
        (nested, "exceeds max_array_len"),
        ((b"\x92\x01\x91" + array_claiming(2**20 + 1)).ljust(2 * 2**20, b"\x01"), "exceeds max_array_len"),
        (b"\x92\x01\x91\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\x92\x01\x91\xdb\xff\xff\xff\xff", "malformed msgpack"),
    ):
        with pytest.raises(ValueError, match=reason):
            decode(payload)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 64 * 1024


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"topic"],
        [b"topic", b"\0" * 8],
        [b"topic", b"\0" * 8, b"", b""],
        [b"topic", b"\0" * 7, b""],
        [b"", b"\0" * 8, b""],
        [b"\xff", b"\0" * 8, b""],
        [b"x" * 257, b"\0" * 8, b""],
    ],
)
def test_malformed_frames_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(ValueError):
        unpack_frames(frames)
