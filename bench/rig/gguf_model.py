"""Make a small Llama with random weights in one GGUF file, as llama.cpp serves it. Nothing is downloaded.

Run with the Python of `make engine-llamacpp`: `python -m bench.rig.gguf_model FILE`. What is made depends on a seed
alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

VOCABULARY = 4096
CONTEXT = 4096
LAYERS, HIDDEN, HEADS, KV_HEADS, INTERMEDIATE = 2, 128, 4, 2, 256
EPSILON = 1e-5
MARKS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_letters() -> list[str]:
    """Return how byte-level BPE writes each byte: printable ones as themselves, the others as letters from 256 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


KNOWN = [*MARKS, *byte_letters(), "th", "the"]


def add_tokenizer(writer: GGUFWriter) -> None:
    """Write a byte-level tokenizer: any text is encoded byte by byte, with two merges, and the rest of the vocabulary
    is for prompts of token ids."""
    tokens = [*KNOWN, *(f"<|{number}|>" for number in range(len(KNOWN), VOCABULARY))]
    kinds = [TokenType.CONTROL if token in MARKS else TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h", "th e"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_weights(writer: GGUFWriter, seed: int = 7) -> None:
    """Write random weights of the shape above."""
    rng = np.random.default_rng(seed)
    kv = HIDDEN // HEADS * KV_HEADS

    def matrix(name: str, rows: int, columns: int, silent: int = 0) -> None:
        weights = rng.normal(0, 0.05, (rows, columns)).astype(np.float32)
        weights[:silent] = 0
        writer.add_tensor(f"{name}.weight", weights)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))

    matrix("token_embd", VOCABULARY, HIDDEN)
    # Bytes in a random order are no text, which the server doesn't put into an answer.
    matrix("output", VOCABULARY, HIDDEN, silent=len(KNOWN))
    norm("output_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        norm(f"{block}.ffn_norm")
        for part, rows in (("q", HIDDEN), ("k", kv), ("v", kv), ("output", HIDDEN)):
            matrix(f"{block}.attn_{part}", rows, HIDDEN)
        for part, rows, columns in (
            ("gate", INTERMEDIATE, HIDDEN),
            ("up", INTERMEDIATE, HIDDEN),
            ("down", HIDDEN, INTERMEDIATE),
        ):
            matrix(f"{block}.ffn_{part}", rows, columns)


def main() -> None:
    """Write the model to the file that the command line names."""
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_vocab_size(VOCABULARY)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    add_tokenizer(writer)
    add_weights(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
