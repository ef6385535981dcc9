"""The kinds of values that settings have, each with what it must look like."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

ENDPOINT = re.compile(r"tcp://([^/\s:]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5}|\*)|ipc://\S+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_URL = re.compile(r"\b(\w+://)(\S+)")
# What ends a bracket, a quotation or a sentence in which a URL is the last.
_CLOSING = ")],.;:'\""
_ESCAPED = "with what a password has of /, ?, #, @ and blanks escaped, as in %2F"


def redacted(text: str) -> str:
    """Return a text without what may be secret in its URLs: what stands before the last @, and behind the ?. A
    password that should have been escaped may have either: then nothing is left."""
    return _URL.sub(_hidden, text)


def _hidden(url: re.Match[str]) -> str:
    scheme, text = url.groups()
    rest = text.rstrip(_CLOSING)
    closing = text[len(rest) :]
    secret, at, public = rest.rpartition("@")
    if "?" in secret:
        return f"{scheme}***{closing}"
    where, query, _ = public.partition("?")
    return f"{scheme}{at and '***@'}{where}{query and '?***'}{closing}"


def _absolute(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"{str(path)!r} begins in the home of a user who has none here") from None


def _endpoint(value: str) -> str:
    if not ENDPOINT.fullmatch(value):
        raise ValueError(f"{value!r} is no ZeroMQ endpoint: write tcp://host:port or ipc://path")
    return value


def _publisher(value: str) -> str:
    if "*" in _endpoint(value):
        raise ValueError(f"{value!r} is where a publisher binds: write the host that it can be reached at")
    return value


def is_loopback(host: str) -> bool:
    """Whether only this host reaches what listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(endpoint: str) -> bool:
    """Whether only this host reaches a ZeroMQ endpoint."""
    scheme, _, rest = endpoint.partition("://")
    return scheme == "ipc" or is_loopback(rest.rpartition(":")[0].strip("[]"))


def _loopback(host: str) -> str:
    if not is_loopback(host):
        raise ValueError(
            f"{host!r} is reachable from outside, and the gateway asks nobody who they are: keep it at 127.0.0.1 and "
            "reach it through an SSH tunnel or a proxy on this host that authenticates"
        )
    return host


def _template(text: str) -> str:
    if not re.search(r"\{[^{}]+\}", text):
        raise ValueError(
            f"{text!r} names no field of a request: write one in braces, for example {{metadata.agent}}"
        )
    return text


def _http(url: str) -> str:
    if _scheme(url) not in ("http", "https") or not urlsplit(url).hostname:
        told = redacted("".join(url.split()))
        raise ValueError(f"{told!r} is no URL of an engine: write http://host:port, {_ESCAPED}")
    return url.rstrip("/")


def _redis(url: str) -> str:
    if _scheme(url) not in ("redis", "rediss", "unix"):
        raise ValueError(f"write redis://host:port/db, rediss://... or unix:///path, {_ESCAPED}")
    return url


def _scheme(url: str) -> str:
    """Return a URL's scheme, nothing where it is none; what is wrong with it may be a password, and isn't told."""
    try:
        parts = urlsplit(url)
        odd = parts.port == 0 or "@" in parts.path + parts.fragment or re.search(r"\s", url)
    except ValueError:
        return ""
    return "" if odd else parts.scheme


def _simulation(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r}: use 1 to 64 letters, digits, dots, dashes and underscores")
    return name


def _lora_template(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r}: write an absolute path, such as /models/loras/lora{{agent_id}}")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
PublisherEndpoint = Annotated[str, AfterValidator(_publisher)]
LoopbackHost = Annotated[str, AfterValidator(_loopback)]
RequestTemplate = Annotated[str, AfterValidator(_template)]
HttpUrl = Annotated[str, AfterValidator(_http)]
RedisUrl = Annotated[str, AfterValidator(_redis)]
SimulationName = Annotated[str, AfterValidator(_simulation)]
LoraTemplate = Annotated[str, AfterValidator(_lora_template)]
