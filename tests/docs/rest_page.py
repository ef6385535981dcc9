"""`docs/rest.md`: every route of the API and every shape of its answers, from the API's own OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scalesim_daemon.admin.access import allowed
from scalesim_daemon.api import build_api
from tests.daemon.still import still_sidecar
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "rest.md"
SUBJECTS = {
    "reports": "What it knows, does, and why",
    "steering": "Steering",
    "configuration": "Configuration",
    "events": "Events",
    "operation": "Health and metrics",
}
# What FastAPI answers to a request that isn't of the right form.
FORM = ("HTTPValidationError", "ValidationError")
HEAD = """\
# REST API

<!-- written by `make reference` from the API's OpenAPI document; not edited by hand -->

The daemon serves it at `http://127.0.0.1:8700` (`api.host`, `api.port`), with the document that this page is made of at
`/openapi.json`, and a page to try it at `/docs` (which loads Swagger UI from a CDN). Bodies and answers are JSON.
Distances are in units of the simulation's clock, times are wall seconds since the epoch, and what is infinite or
unknown is null.

Where tokens are set, each request but those for a few (below: for everybody) carries `Authorization: Bearer TOKEN`: 401
is no token or a wrong one, 403 a role that may not ([security](security.md)). A request of the wrong form is a 422 that
names the field, anything else that isn't as asked a [Problem](#problem). Lists are paged: `offset`, `limit` (1,000 at
most), and `total` in the answer.
"""


def page() -> str:
    """Return the page."""
    with TemporaryDirectory() as folder:
        document = build_api(still_sidecar(Path(folder))).openapi()
    tags = {tag for of in document["paths"].values() for route in of.values() for tag in route["tags"]}
    assert tags == set(SUBJECTS), "every tag has its heading"
    parts = [HEAD]
    for tag, title in SUBJECTS.items():
        parts.append(f"## {title}\n")
        for path, methods in document["paths"].items():
            parts += [
                "\n".join(_route(method.upper(), path, route)) + "\n"
                for method, route in methods.items()
                if route["tags"] == [tag]
            ]
    shapes = document["components"]["schemas"]
    parts.append("## Shapes\n")
    parts += ["\n".join(_shape(name, shapes[name])) + "\n" for name in sorted(shapes) if name not in FORM]
    return "\n".join(parts)


def _route(method: str, path: str, route: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}\n"
    yield f"{_line(route['description'])}\n"
    roles = allowed(method, path)
    yield f"- For: {'everybody' if roles is None else ', '.join(sorted(roles))}"
    body = route.get("requestBody")
    if body is not None:
        kinds = dict.fromkeys(_type(content["schema"]) for content in body["content"].values())
        yield f"- Body: {' or '.join(kinds)}"
    answers = (_answer(status, answer) for status, answer in sorted(route["responses"].items()))
    yield f"- Answers: {'; '.join(answer for answer in answers if answer)}"
    asked = [one for one in route.get("parameters", ()) if one["in"] == "query"]
    if asked:
        yield "\n| parameter | values | if left out |\n|---|---|---|"
        yield from (_parameter(one, "all" if method == "GET" else "-") for one in asked)


def _answer(status: str, answer: Mapping[str, Any]) -> str:
    schemas = [content["schema"] for content in answer.get("content", {}).values() if content.get("schema")]
    kinds = [_type(schema) for schema in schemas] or ["text"]
    return "" if FORM[0] in kinds[0] else f"{status} {kinds[0]}"


def _parameter(one: Mapping[str, Any], without: str) -> str:
    default = one["schema"].get("default")
    absent = without if default is None else f"`{json.dumps(default).strip(chr(34))}`"
    return f"| `{one['name']}` | {_type(one['schema']).removesuffix(' or null')} | {absent} |"


def _shape(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if schema.get("description"):
        yield f"{_line(schema['description'])}\n"
    if "enum" in schema:
        yield f"One of {', '.join(f'`{value}`' for value in schema['enum'])}."
        return
    yield "| field | type |\n|---|---|"
    yield from (f"| `{field}` | {_type(kind)} |" for field, kind in schema.get("properties", {}).items())


def _type(schema: Mapping[str, Any]) -> str:
    """Return a JSON schema's type in words, with a link to its shape."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name not in FORM else name
    for many in ("anyOf", "oneOf"):
        if many in schema:
            return " or ".join(dict.fromkeys(_type(choice) for choice in schema[many]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
        case "object":
            inner = schema.get("additionalProperties")
            return f"map to {_type(inner)}" if isinstance(inner, dict) and inner else "map"
        case "integer":
            return "whole number"
        case "boolean":
            return "true or false"
        case "string":
            return "bytes" if schema.get("format") == "binary" else "text"
        case "null":
            return "null"
        case "number":
            return "number"
    return "anything"


def _line(text: str) -> str:
    return " ".join(text.split())
