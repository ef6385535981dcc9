"""Inputs close to valid ones: bytes changed here and there, or single values exchanged for odd ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

MOST_CHANGES = 4
LONGEST = 4096
"""In bytes: what grows beyond is cut. Inputs of full size are the bombs' part."""

BYTES = tuple(bytes((value,)) for value in range(256))
NUMBERS = (0, -1, 1, 255, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 1e308, -0.0, 5e-324)
TEXTS = ("", "a", "/", "..", "\x00", "x" * 300, "ä" * 100, "sim/agent", "{", "1e9", "\ud7ff", "lora\n")
ODD: tuple[Any, ...] = (
    *NUMBERS,
    *TEXTS,
    *(None, True, False, [], {}, [[]], [None] * 40, {"": None}, {"type": "x"}, math.inf, -math.inf, math.nan),
)


@dataclass(frozen=True, slots=True)
class Form:
    """How bytes become values and the other way round, the pieces that are odd in it, and the largest inputs that a
    message may be, in bytes, made to cost as much as they can."""

    pieces: Sequence[bytes]
    bombs: Callable[[int], Sequence[bytes]]
    loads: Callable[[bytes], Any] | None = None
    dumps: Callable[[Any], bytes] | None = None


class Mutator:
    """An endless row of inputs: equal seeds give equal rows.

    All that is drawn is drawn by `Random.random`, which costs a fifth of `choice` and `randint`: what takes the time is
    to be the readers.
    """

    def __init__(self, random: Random, examples: Sequence[bytes], form: Form) -> None:
        self._random = random.random
        self._examples = examples
        self._form = form
        loads = form.loads
        self._values = [] if loads is None else [loads(example) for example in examples]

    def next(self) -> bytes:
        """Return the next input."""
        if self._values and self._random() < 0.5:
            value = self._pick(self._values)
            for _ in range(1 + self._below(MOST_CHANGES)):
                value = self._exchange(value)
            try:
                return self._form.dumps(value) if self._form.dumps is not None else b""
            except (OverflowError, ValueError, TypeError):
                pass  # The form has no word for it.
        data = self._pick(self._examples)
        for _ in range(1 + self._below(MOST_CHANGES)):
            data = self._change(data)
        return data

    def _below(self, bound: int) -> int:
        return int(self._random() * bound)

    def _pick(self, some: Sequence[T]) -> T:
        return some[int(self._random() * len(some))]

    def _exchange(self, value: Any) -> Any:
        """Return a copy with one value somewhere in it exchanged, left out or said twice."""
        if isinstance(value, dict) and value and self._random() < 0.9:
            key = self._pick(list(value))
            match self._below(8):
                case 0:
                    return {name: inner for name, inner in value.items() if name != key}
                case 1:
                    return {**value, self._pick(TEXTS): value[key]}
                case _:
                    return {**value, key: self._exchange(value[key])}
        if isinstance(value, list) and value and self._random() < 0.9:
            index = self._below(len(value))
            match self._below(8):
                case 0:
                    return value[:index] + value[index + 1 :]
                case 1:
                    return [*value[:index], value[index], *value[index:]]
                case _:
                    return [*value[:index], self._exchange(value[index]), *value[index + 1 :]]
        return self._pick(ODD)

    def _change(self, data: bytes) -> bytes:
        """Return the bytes with one place changed."""
        start = self._below(len(data) + 1)
        end = min(len(data), start + self._below(17))
        match self._below(6):
            case 0:
                return data[:start] + data[end:]
            case 1:
                return (data[:end] + data[start:])[:LONGEST]
            case 2:
                return (data[:start] + self._pick(self._form.pieces) + data[start:])[:LONGEST]
            case 3:
                return (data[:start] + self._pick(self._form.pieces) + data[end:])[:LONGEST]
            case 4:
                return (data[:start] + self._pick(self._examples)[start:])[:LONGEST]
            case _:
                return data[:start] + BYTES[self._below(256)] + data[start + 1 :]


def _msgpack_bombs(size: int) -> list[bytes]:
    count = (size - 16).to_bytes(4, "big")
    head = b"\x92\x00"
    return [
        head + b"\xdd" + count + b"\x90" * (size - 16),
        head + b"\x91" * (size - 16),
        head + b"\xdd\xff\xff\xff\xff" * (size // 5 - 4),
        head + b"\x91" + (b"\xdb" + count + b"x" * (size - 16)),
        head + b"\xdc\x03\xe8" + (b"\x81\xa1a\x91" * (size // 4 - 8)),
        head + b"\x91\x82\xa4type\xacagent.woken\xa5agent" + b"\xdd\x00\x10\x00\x00" + b"\xc0" * (1 << 20),
    ]


def _json_bombs(size: int) -> list[bytes]:
    return [
        b"[0,[" + b"[]," * (size // 3 - 4) + b"[]]]",
        b"[" * size,
        b'{"a":' * (size // 5),
        b"[0,[" + b'"' + b"\\u0041" * (size // 6 - 4) + b'"]]',
        b"[" + b"9" * (size - 8) + b",[]]",
        b'[0,["' + b"\xc3\xa4" * (size // 2 - 8) + b'"]]',
    ]


def _text_bombs(size: int) -> list[bytes]:
    head = b"vllm:num_requests_running"
    rest = size - len(head) - 8
    return [
        head + b"{" + b"a" * rest + b"} 1\n",
        head + b"{" + b'a="' * (rest // 3) + b"} 1\n",
        head + b"{" + b"}" * rest + b" x\n",
        head + b"{" + b'a="\\' * (rest // 4) + b"} 1\n",
        head + b" " + b"9" * rest + b"\n",
        (head + b"{} 1\n") * (size // (len(head) + 5)),
    ]


def _yaml_bombs(size: int) -> list[bytes]:
    doubled = b"a0: &a0 [x, x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (level, level, b", ".join([b"*a%d" % (level - 1)] * 9))
        for level in range(1, 25)
    )
    # PyYAML, in Python, takes the square of how deep lists stand in each other, up to the depth that it gives up at.
    return [b"[" * 600, b"{a: " * (size // 4), b"- " * (size // 2), doubled, b"api: " + b"9" * size]


MSGPACK = Form(
    pieces=(
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdc\xff\xff",
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\xd6\xff\xff\xff\xff\xff",
        b"\xc1",
        b"\x91" * 2000,
        b"\x81\xa1a" * 1200,
        b"\x80",
        b"\x90",
        b"\xc0",
        b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
        b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
        b"\xcf" + b"\xff" * 8,
        b"\xd3\x80" + b"\x00" * 7,
        b"\xa3\xed\xa0\x80",
        b"\xa2\xff\xfe",
    ),
    bombs=_msgpack_bombs,
    loads=msgspec.msgpack.decode,
    dumps=msgspec.msgpack.encode,
)

JSON = Form(
    pieces=(
        b"[" * 2000,
        b'{"a":' * 800,
        b"9" * 4000,
        b"1e999",
        b"-1e-999",
        b"NaN",
        b"Infinity",
        b"null",
        b'"\\ud800"',
        b'"\\u0000"',
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"//",
        b"\n",
        b",",
        b"}",
        b'"',
        b"\\",
        b'"type":"agent.woken",',
    ),
    bombs=_json_bombs,
    loads=json.loads,
    dumps=lambda value: json.dumps(value, separators=(",", ":")).encode(errors="surrogatepass"),
)

LINES = Form(pieces=(*JSON.pieces, b"\n\n", b"{}\n", b'{"after":0,"end":"closed"}\n'), bombs=_json_bombs)

TEXT = Form(
    pieces=(
        b"{",
        b"}",
        b'="',
        b'"',
        b"\\",
        b"\n",
        b" ",
        b"NaN",
        b"-Inf",
        b"1e999",
        b"\xff",
        b"a" * 900,
        b'a="' * 300,
    ),
    bombs=_text_bombs,
)

YAML = Form(
    pieces=(
        b"\n",
        b": ",
        b"- ",
        b"  ",
        b"{",
        b"[" * 500,
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!int ''",
        b"!!float ''",
        b"!!timestamp x",
        b"!!bool x",
        b"!!binary x",
        b"!!python/object/apply:os.system [x]",
        b"2001-99-99",
        b"190:20:30.15",
        b"0x",
        b"9" * 4400,
        b"\xff",
        b'"\\ud800"',
        b"? [a]\n: b",
        b"\t",
        b"%YAML 9.9\n---\n",
    ),
    bombs=_yaml_bombs,
)
