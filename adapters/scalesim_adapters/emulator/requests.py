"""What requests ask for: bodies checked as vLLM checks them, and refused in its words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from scalesim_adapters.emulator import tokens
from scalesim_adapters.emulator.config import EmulatorConfig

DEFAULT_MAX_TOKENS = 16
"""What a completion without `max_tokens` gets; a chat gets what the context leaves."""

UNSUPPORTED = ("echo", "logprobs", "prompt_logprobs", "best_of", "suffix")
"""Fields that change the answer's form and that the emulator doesn't have."""

Body = dict[str, Any]
T = TypeVar("T")


class Refused(Exception):
    """A request that gets an error: its status, vLLM's name for its kind, and the field that it is about."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None
    ):
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param


@dataclass(frozen=True, slots=True)
class Generation:
    """One prompt to continue, and how to answer."""

    prompt: list[int]
    max_tokens: int
    priority: int
    session: str | None
    cache_salt: str | None
    report_hits: bool
    stream: bool
    include_usage: bool
    return_token_ids: bool


def parse_body(raw: bytes) -> Body:
    """Return a JSON object. Raises `Refused`."""
    try:
        body = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise _invalid("json_invalid", "body", f"JSON decode error: {error}") from error
    if not isinstance(body, dict):
        raise _invalid("model_attributes_type", "body", "Input should be a valid dictionary")
    return body


def required(body: Body, name: str) -> Any:
    """Return a field that must be there. Raises `Refused`."""
    if name not in body:
        raise _invalid(
            "missing",
            f"body.{name}",
            "Field required",
            param=f"body.{name}",
            given=f"<dict of {len(body)} items>",
        )
    return body[name]


def model_of(body: Body) -> str:
    """Return the name of the model that is asked for, empty for the base model. Raises `Refused`."""
    return _field(body, "model", str, "")


def text_field(body: Body, name: str) -> str:
    """Return a field that must be there and be a text. Raises `Refused`."""
    value = required(body, name)
    if not isinstance(value, str):
        raise _invalid("string_type", f"body.{name}", "Input should be a valid string")
    return value


def parse_completion(body: Body, headers: Mapping[str, str], config: EmulatorConfig) -> Generation:
    """Check the body of a completion. Raises `Refused`."""
    return _generation(body, headers, config, _completion_prompt(body.get("prompt")), DEFAULT_MAX_TOKENS)


def parse_chat(body: Body, headers: Mapping[str, str], config: EmulatorConfig) -> Generation:
    """Check the body of a chat completion. Raises `Refused`."""
    if body.get("max_completion_tokens") is not None:
        body = {**body, "max_tokens": body["max_completion_tokens"]}
    return _generation(body, headers, config, chat_prompt(body), config.max_model_len)


def chat_prompt(body: Body) -> list[int]:
    """Return the tokens of a conversation, its tools before it as in chat templates. Raises `Refused`."""
    messages = required(body, "messages")
    if body.get("tool_choice") not in (None, "auto", "none"):
        raise Refused("the emulator calls no tools")
    try:
        add_generation_prompt = body.get("add_generation_prompt", True)
        tools = json.dumps(body["tools"]) if body.get("tools") else ""
        return tokens.encode(
            tools + tokens.render_chat(messages, add_generation_prompt=add_generation_prompt)
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise _invalid("list_type", "body.messages", "Input should be a valid list") from error


def _completion_prompt(prompt: Any) -> list[int]:
    match prompt:
        case str() if prompt:
            return tokens.encode(prompt)
        case [int(), *_] if all(type(token) is int for token in prompt):
            return list(prompt)
        case [str() | [_, *_] as single]:
            return _completion_prompt(single)
        case None | "" | []:
            raise Refused("You must pass at least one prompt")
        case [_, _, *_]:
            raise Refused("the emulator takes one prompt a request")
    raise _invalid("list_type", "body.prompt", "Input should be a valid list")


def _generation(
    body: Body, headers: Mapping[str, str], config: EmulatorConfig, prompt: list[int], default_max_tokens: int
) -> Generation:
    if unsupported := [name for name in UNSUPPORTED if body.get(name)]:
        raise Refused(f"the emulator doesn't have {', '.join(unsupported)}")
    if body.get("n") not in (None, 1):
        raise Refused("the emulator gives one choice a request")
    xargs = _field(body, "vllm_xargs", dict, {})
    stream_options = _field(body, "stream_options", dict, {})
    session = _field(body, "session_id", str, "") or headers.get("x-session-id") or xargs.get("session_id")
    return Generation(
        prompt=_fitting(prompt, config),
        max_tokens=_max_tokens(body, default_max_tokens, config.max_model_len - len(prompt)),
        priority=_integer(headers.get("x-vllm-priority"), lambda: _field(body, "priority", int, 0)),
        session=session if isinstance(session, str) else None,
        cache_salt=_field(body, "cache_salt", str, "") or None,
        report_hits=xargs.get("kv_cache_report_mode") == "full",
        stream=bool(body.get("stream")),
        include_usage=bool(stream_options.get("include_usage")),
        return_token_ids=bool(body.get("return_token_ids")),
    )


def _fitting(prompt: list[int], config: EmulatorConfig) -> list[int]:
    if len(prompt) > config.max_model_len:
        raise Refused(
            f"This model's maximum context length is {config.max_model_len} tokens. However, your prompt "
            f"contains {len(prompt)} input tokens, which exceeds this limit even without any output tokens. "
            f"Please reduce the length of the input prompt. (parameter=input_tokens, value={len(prompt)})",
            param="input_tokens",
        )
    for token in prompt:
        if not 0 <= token < config.vocab_size:
            raise Refused(f"Token id {token} is out of vocabulary")
    return prompt


def _max_tokens(body: Body, default: int, room: int) -> int:
    wanted = min(_field(body, "max_tokens", int, default), room)
    if wanted < 1:
        raise Refused(
            f"max_tokens must be at least 1, got {wanted}. (parameter=max_tokens, value={wanted})",
            param="max_tokens",
        )
    return wanted


def _field(body: Body, name: str, kind: type[T], default: T) -> T:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        message = f"Input should be a valid {kind.__name__}"
        raise _invalid(f"{kind.__name__}_type", f"body.{name}", message, param=f"body.{name}")
    return value


def _integer(text: str | None, otherwise: Callable[[], int]) -> int:
    try:
        return int(text) if text is not None else otherwise()
    except ValueError:
        return otherwise()


def _invalid(kind: str, where: str, message: str, *, param: str | None = None, given: str = "") -> Refused:
    entry = {"type": kind, "loc": where, "msg": message} | ({"input": given} if given else {})
    return Refused(f"1 validation error:\n  {entry}", kind="Bad Request", param=param)
