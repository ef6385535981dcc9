"""The bodies of answers, with vLLM 0.32's keys."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

from scalesim_adapters.emulator.config import VERSION, EmulatorConfig
from scalesim_adapters.emulator.loras import Lora
from scalesim_adapters.emulator.requests import Generation
from scalesim_adapters.emulator.scheduler import Output, Sequence
from scalesim_adapters.emulator.tokens import decode

Json = dict[str, Any]

FINGERPRINT = f"vllm-{VERSION}"
DONE = b"data: [DONE]\n\n"


def error_body(message: str, kind: str, status: int, param: str | None = None) -> Json:
    """Return the body of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def models(config: EmulatorConfig, loras: list[Lora], created: int) -> Json:
    """Return the list of names that requests can use: the base model, then LoRAs with their paths."""
    base = _model_card(config.model, config.model, None, config.max_model_len, created)
    return {
        "object": "list",
        "data": [base, *(_model_card(lora.name, lora.path, config.model, None, created) for lora in loras)],
    }


def sse(chunk: Json) -> bytes:
    """Return a chunk as one server-sent event."""
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class Answer:
    """Builds the whole answer, or the chunks, of one completion or chat completion."""

    def __init__(self, model: str, ask: Generation, sequence: Sequence, *, chat: bool) -> None:
        self._ask = ask
        self._sequence = sequence
        self._chat = chat
        kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl" if chat else "cmpl"
        self._head: Json = {
            "id": f"{prefix}-{uuid.uuid4().hex[:16]}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, outputs: list[Output]) -> Json:
        """Return the answer to a request that isn't streamed."""
        generated = [output.token for output in outputs]
        ids = {"token_ids": generated if self._ask.return_token_ids else None}
        prompt_ids = self._ask.prompt if self._ask.return_token_ids else None
        ending = {"logprobs": None, "finish_reason": outputs[-1].finished, "stop_reason": None, **ids}
        if self._chat:
            nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
            message = {"role": "assistant", "content": decode(generated), **nothing}
            choice = {"index": 0, "message": message, **ending, "routed_experts": None}
            extra = {"prompt_logprobs": None, "prompt_token_ids": prompt_ids, "prompt_text": None}
        else:
            choice = {"index": 0, "text": decode(generated), **ending, "prompt_logprobs": None}
            choice |= {"prompt_token_ids": prompt_ids, "routed_experts": None}
            extra = {}
        usage = self._usage() | {"completion_tokens_details": None}
        usage["prompt_tokens_details"] = self._cached() | {"multimodal_tokens": None}
        return {
            **self._head,
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": usage,
            **extra,
            **dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics")),
        }

    def opening(self) -> Json | None:
        """Return the chunk that comes before the first token, where there is one."""
        if not self._chat:
            return None
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        prompt_ids = self._ask.prompt if self._ask.return_token_ids else None
        return self._chunk([choice]) | {"prompt_token_ids": prompt_ids, "prompt_text": None}

    def token(self, output: Output, *, first: bool) -> Json:
        """Return the chunk of one token."""
        ids = {"token_ids": [output.token] if self._ask.return_token_ids else None}
        text = decode([output.token])
        choice: Json = {"index": 0, "logprobs": None, "finish_reason": output.finished}
        if self._chat:
            choice |= {"delta": {"content": text}, **ids} | ({"stop_reason": None} if output.finished else {})
        else:
            prompt_ids = self._ask.prompt if first and self._ask.return_token_ids else None
            choice |= {"text": text, "stop_reason": None, "prompt_token_ids": prompt_ids, **ids}
        chunk = self._chunk([choice])
        if output.finished and not self._ask.include_usage:
            chunk["system_fingerprint"] = FINGERPRINT
        return chunk

    def closing(self) -> Json | None:
        """Return the chunk with the usage, where it was asked for."""
        if not self._ask.include_usage:
            return None
        details = {key: value for key, value in self._cached().items() if value is not None}
        usage = self._usage() | {"prompt_tokens_details": details}
        return self._chunk([]) | {"usage": usage, "system_fingerprint": FINGERPRINT}

    def _chunk(self, choices: list[Json]) -> Json:
        head = self._head | ({"object": "chat.completion.chunk"} if self._chat else {})
        return head | {"choices": choices}

    def _usage(self) -> Json:
        prompt, generated = self._sequence.prompt_tokens, self._sequence.outputs
        return {"prompt_tokens": prompt, "total_tokens": prompt + generated, "completion_tokens": generated}

    def _cached(self) -> Json:
        cached, size = self._sequence.cached or 0, self._sequence.chain.block_size
        created = max(0, self._sequence.prompt_tokens // size * size - cached)
        return {"cached_tokens": cached, "created_cache_tokens": created if self._chat else None}


def _model_card(name: str, root: str, parent: str | None, max_model_len: int | None, created: int) -> Json:
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex[:16]}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": max_model_len,
        "permission": [permission],
    }
