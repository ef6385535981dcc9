"""Make the rig's models: small Llamas with random weights, a tokenizer of their own, and LoRAs for them.

Nothing is downloaded. Run with the engine environment's Python: `python -m bench.rig.models .engines/models`.
What is made depends on seeds alone, so that two machines get the same tokens from the same prompts.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 4096
END = "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

SHAPES: dict[str, dict[str, int]] = {
    # About 6 million parameters: starts fast, computes fast.
    "tiny": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 1024,
    },
    # About 90 million parameters and 12 KiB of KV per token: a cold prefill costs what one can see.
    "mid": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "intermediate_size": 2304,
    },
}
# The same shape with other weights, to take its place in a running engine.
SHAPES["tiny-other"] = SHAPES["tiny"]
TINY_LORAS = 50
LORA_RANK = 8

_SUBJECTS = "the baker, the miller, a teacher, the old sailor, my neighbour, a painter, the doctor, our mayor"
_VERBS = (
    "walks to, talks about, remembers, looks for, plans, paints, asks about, waits at, repairs, dreams of"
)
_OBJECTS = "the market, a harbour, the library, an old bridge, the festival, a letter, the garden, two boats"
_WHENS = "in the morning, after lunch, before dawn, at noon, on Sunday, when it rains, every evening, today"


def corpus(lines: int = 4000, seed: int = 7) -> list[str]:
    """Return `lines` generated English-like sentences, with numbers and rare words, to train a tokenizer
    on."""
    rng = random.Random(seed)
    parts = [text.split(", ") for text in (_SUBJECTS, _VERBS, _OBJECTS, _WHENS)]
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "an", "er", "ol")]
    sentences = []
    for _ in range(lines):
        name = "".join(rng.choices(syllables, k=rng.randint(2, 4))).capitalize()
        words = " ".join(rng.choice(choice) for choice in parts)
        sentences.append(f"{name}, {rng.randint(1, 999)}: {words}. ")
    return sentences


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of at most `VOCABULARY` tokens; any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def make_model(path: Path, shape: dict[str, int], seed: int) -> int:
    """Save a random Llama of this shape with its tokenizer under `path`; return its number of parameters."""
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        **shape,
        dtype=torch.bfloat16,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        head_dim=64,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return sum(parameter.numel() for parameter in model.parameters())


def make_lora(base: Path, path: Path, seed: int, rank: int = LORA_RANK) -> None:
    """Save under `path` a random LoRA of this rank over the attention of the model at `base`, in PEFT's file
    form."""
    config = json.loads((base / "config.json").read_text())
    hidden, head = config["hidden_size"], config["head_dim"]
    widths = {
        "q_proj": (hidden, config["num_attention_heads"] * head),
        "k_proj": (hidden, config["num_key_value_heads"] * head),
        "v_proj": (hidden, config["num_key_value_heads"] * head),
        "o_proj": (config["num_attention_heads"] * head, hidden),
    }
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module, (wide_in, wide_out) in widths.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(rank, wide_in, generator=generator) * 0.1
            tensors[f"{key}.lora_B.weight"] = torch.randn(wide_out, rank, generator=generator) * 0.1
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path / "adapter_model.safetensors")
    adapter = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(widths),
    }
    (path / "adapter_config.json").write_text(json.dumps(adapter, indent=1))


def main() -> None:
    """Make every model and the LoRAs of `tiny` under the folder given on the command line."""
    root = Path(sys.argv[1])
    for seed, (name, shape) in enumerate(SHAPES.items(), start=1):
        parameters = make_model(root / name, shape, seed)
        print(f"{name}: {parameters / 1e6:.1f} million parameters")
    for number in range(TINY_LORAS):
        make_lora(root / "tiny", root / "tiny-loras" / f"lora{number:02}", seed=1000 + number)
    print(f"tiny-loras: {TINY_LORAS} LoRAs of rank {LORA_RANK}")


if __name__ == "__main__":
    main()
