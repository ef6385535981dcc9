"""`docs/configuration.md`: every setting with its values, default and meaning.

They come from `configs/example.yaml`, whose comments say what each means, and from the settings' own types.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from scalesim_daemon.admin.reload import AT_ONCE
from scalesim_daemon.settings import Settings
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "configuration.md"
EXAMPLE = ROOT / "configs" / "example.yaml"
TOP = "mode"
KEY = re.compile(r"(?P<indent> *(?:- )?)(?P<key>\w+):(?: (?P<value>.+))?$")
HEAD = """\
# Configuration

<!-- written by `make reference` from configs/example.yaml and the settings' types; not edited by hand -->

`scalesimd serve --config FILE` reads a YAML file; `configs/example.yaml` is one with every key. A flag overrides a
variable, a variable overrides the file. A variable is named by section and key: `SCALESIM_API__PORT=8701` sets `port`
of `api`; lists and maps in variables are JSON: `SCALESIM_FEED__SUBSCRIBE='[{"endpoint": "tcp://10.0.0.7:5610"}]'`. An
unknown key stops the start, and so does a value that can't be; the message names every one of them.

After `kill -HUP` or `POST /v1/config/reload` the keys marked *at once* hold as they now stand in the file; of all
others that have changed, the answer and the log say that they wait for a restart. What is refused changes nothing.
"""


@dataclass(slots=True)
class Entry:
    """What one comment of the example speaks of: keys with their values there."""

    said: str
    keys: dict[str, str] = field(default_factory=dict)


def entries(text: str) -> dict[str, list[Entry]]:
    """Return the example's entries by section; `mode`, which is in none, is a section of its own."""
    found: dict[str, list[Entry]] = {}
    comment: list[str] = []
    section = TOP
    for line in text.splitlines():
        if not line:
            comment = []
        elif line.lstrip().startswith("#"):
            comment.append(line.lstrip("# "))
        elif (match := KEY.match(line)) is not None:
            if not match["indent"]:
                section = match["key"]
                found[section] = []
            if match["indent"] or match["value"]:
                if comment or not found[section]:
                    found[section].append(Entry(" ".join(comment)))
                found[section][-1].keys[match["key"]] = match["value"] or ""
            comment = []
    return found


def page() -> str:
    """Return the page."""
    text = EXAMPLE.read_text(encoding="utf-8")
    schema = Settings.model_json_schema()
    parts = [HEAD]
    for section, known in entries(text).items():
        parts.append("\n".join(_section(section, known, schema)) + "\n")
    return "\n".join(parts)


def _section(section: str, known: list[Entry], schema: Mapping[str, Any]) -> Iterator[str]:
    properties = _properties(section, schema)
    # Of an engine there is an example, and no default.
    given = "example" if section == "engines" else "default"
    yield f"## {section}\n\n| key | values | {given} | reload | meaning |\n|---|---|---|---|---|"
    for entry in known:
        keys = "<br>".join(f"`{key}`" for key in entry.keys)
        kinds = "<br>".join(_once(_kind(properties[key], schema) for key in entry.keys))
        values = "<br>".join(f"`{value}`" if value else "" for value in _once(entry.keys.values()))
        names = {key if section == TOP else f"{section}.{key}" for key in entry.keys}
        reload = "at once" if names <= set(AT_ONCE) else "restart"
        yield f"| {keys} | {kinds} | {values} | {reload} | {_cell(entry.said)} |"


def _once(words: Iterable[str]) -> list[str]:
    """Return the words, or one or two that come again and again once."""
    said = list(words)
    different = list(dict.fromkeys(said))
    return different if len(different) * 2 < len(said) else said


def _properties(section: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    whole: Mapping[str, Any] = schema["properties"]
    if section == TOP:
        return whole
    found: Mapping[str, Any] = _resolved(whole[section].get("items", whole[section]), schema)["properties"]
    return found


def _resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = part.get("$ref")
    return part if reference is None else schema["$defs"][reference.rpartition("/")[2]]


def _kind(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return in words what values a JSON schema takes."""
    part = _resolved(part, schema)
    if "anyOf" in part:
        choices = [choice for choice in part["anyOf"] if choice.get("type") != "null"]
        said = "size, such as 2GiB" if _is_size(part) else " or ".join(_kind(one, schema) for one in choices)
        return said if len(choices) == len(part["anyOf"]) else f"{said}, or null"
    if "enum" in part:
        return "one of " + ", ".join(f"`{value}`" for value in part["enum"])
    match part["type"]:
        case "boolean":
            return "true or false"
        case "integer" | "number":
            return "whole number" if part["type"] == "integer" else "number" + _range(part)
        case "array":
            return f"list of: {_kind(part['items'], schema)}"
        case "object":
            return "map of " + ", ".join(f"`{key}`" for key in part["properties"])
    return {"path": "path", "password": "token"}.get(part.get("format", ""), "text")


def _is_size(part: Mapping[str, Any]) -> bool:
    return any(choice.get("pattern", "").startswith(r"^\s*(\d*") for choice in part["anyOf"])


def _range(part: Mapping[str, Any]) -> str:
    low, high = part.get("minimum"), part.get("maximum")
    return "" if low is None or high is None else f", {low} to {high}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
