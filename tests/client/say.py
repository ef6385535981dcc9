"""The Python publisher behind the same commands as the other languages' `say`: what they are held against."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import msgpack

from scalesim_client import EVENT_TYPES, Curve, Event, Publisher
from scalesim_client.codec import pack_event

LISTS = ("agents", "probabilities", "xy", "destination", "token_ids")
TEXTS = (
    "agent",
    "agents",
    "request",
    "activity",
    "place",
    "lora",
    "lora_name",
    "text",
    "cache_salt",
    "model",
)


def parse(line: str) -> tuple[type[Event], dict[str, Any]]:
    """Return the type and the fields of the event that a line says."""
    verb, *words = line.split(" ")
    return EVENT_TYPES[verb], dict(_field(*word.split("=", 1)) for word in words)


def _field(key: str, text: str) -> tuple[str, Any]:
    def value(item: str) -> Any:
        return item if key in TEXTS else number(item)

    name = "for_" if key == "for" else key
    return name, [value(item) for item in text.split(",")] if key in LISTS else value(text)


def number(text: str) -> float:
    """Return what a text says, whole numbers as such."""
    return int(float(text)) if float(text).is_integer() else float(text)


def answer(publisher: Publisher, verb: str, amount: str) -> str:
    """Carry out what isn't an event."""
    match verb:
        case "flush":
            return f"flushed {int(publisher.flush(float(amount)))}"
        case "count":
            return f"{publisher.sent} {publisher.dropped} {publisher.invalid}"
        case _:
            began = time.monotonic()
            for index in range(int(amount)):
                publisher.activity(str(index % 1000), until=index)
            return str(time.monotonic() - began)


def main(mode: str, address: str = "", simulation: str = "", snapshot_every: str = "30", *keys: str) -> None:
    """Say what is read, one event a line."""
    if mode == "say":
        curve = Curve.load(*keys) if keys else None
        with Publisher(
            simulation, address=address, snapshot_every=float(snapshot_every), curve=curve
        ) as publisher:
            for line in map(str.rstrip, sys.stdin):
                verb, _, rest = line.partition(" ")
                if verb in EVENT_TYPES:
                    kind, fields = parse(line)
                    publisher._say(kind, **fields)
                else:
                    print(answer(publisher, verb, rest), flush=True)
        return
    for line in map(str.rstrip, sys.stdin):
        if mode == "decode":
            print(json.dumps(msgpack.unpackb(bytes.fromhex(line))))
        else:
            kind, fields = parse(line)
            print(pack_event(kind(**fields)).hex())


if __name__ == "__main__":
    main(*sys.argv[1:])
