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
_USER_INFO = re.compile(r"(\w+://)[^\s/]*@")
_QUERY = re.compile(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*")


def redacted(text: str) -> str:
    """Return a text without what may be secret in its URLs: what stands before the @, and behind the ?."""
    return _QUERY.sub(r"\1?***", _USER_INFO.sub(r"\1***@", text))


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
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.port == 0
        or re.search(r"\s", url)
    ):
        raise ValueError(f"{url!r} is no URL of an engine: write http://host:port")
    return url.rstrip("/")


def _redis(url: str) -> str:
    if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("write redis://host:port/db, rediss://... or unix:///path")
    return url


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
