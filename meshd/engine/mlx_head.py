"""What an MLX model folder says of itself, read without MLX.

The daemon must know a model's context length and size before it starts a worker, and a folder that
cannot work must be refused with one clear line. So `config.json` is read here, and the head of each
weight file: a safetensors file begins with an 8-byte length and a JSON object that says where every
tensor lies, so a download that broke off is seen without reading the weights.

Everything read is bounded. A folder that wants to run Python of its own is refused: a model is
data. The fingerprint stands for the weights and the tokenizer: equal folders have equal
fingerprints, so a token id means the same on both machines. Like that of a GGUF file it hashes
sizes, heads and evenly spaced blocks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshd.core.ports import EngineError
from meshd.core.residency.footprint import UNKNOWN_SHAPE, ModelShape
from meshd.engine.tool_calls import takes_calls
from protocol.frozen import frozen

CONTEXT_DEFAULT_TOKENS = 8_192
"""Tokens per sequence unless asked otherwise: an 8B model's cache of that length takes 1 GB."""

KEPT_MAX_BYTES = 2**30
"""Keys and values of ended conversations that a worker keeps beside those of running ones: as much
as one of 8,192 tokens with an 8B model."""

PASS_TOKENS = 2_048
"""The longest piece of prompts that one step of MLX reads."""

JSON_MAX_BYTES = 4 * 1024 * 1024
"""Of config.json, whose size is a few kB; per-layer quantisation may make it some hundred."""

HEAD_MAX_BYTES = 100 * 1024 * 1024
"""Of a weight file's head: the format's own limit."""

LENGTH_BYTES = 8
"""The length that begins a safetensors file, little-endian."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json")
"""One of these must be there."""

FINGERPRINT_BLOCKS = 16
FINGERPRINT_BLOCK_BYTES = 64 * 1024

SHARD = re.compile(r"-\d{5}-of-(?P<parts>\d{5})\.safetensors$")
"""One of several weight files. Their names say how many there are, and unlike the index beside them
they are never left over from the model that this one was made of."""

SNAPSHOT = re.compile(r"models--[^/]+?--([^/]+)/snapshots/[^/]+/?$")
"""Where the Hugging Face cache keeps a model: the folder itself is named by a hash."""


@frozen
class MlxHead:
    """The wanted facts. 0 or empty where the folder does not say."""

    architecture: str
    context_length: int
    quantisation: str
    size_bytes: int
    fingerprint: str
    shape: ModelShape = UNKNOWN_SHAPE
    calls_tools: bool = False


def inspect_folder(path: Path) -> MlxHead:
    """Read the head of a model folder. Raises EngineError with one line for the owner.

    Blocks on the disk for a few milliseconds: call it from a thread.
    """
    try:
        if not path.exists():
            raise EngineError(
                f"model folder not found: {path}; check the path given to --engine mlx:PATH"
            )
        if not path.is_dir():
            raise EngineError(
                f"{path} is a file, and MLX models are folders (config.json, *.safetensors, "
                "tokenizer.json); for a GGUF file use llamacpp:PATH"
            )
        return _head(path)
    except OSError as error:
        raise EngineError(f"model folder {path} cannot be read: {error.strerror}") from None


def folder_title(path: Path) -> str:
    """What people call the model in this folder."""
    found = SNAPSHOT.search(path.as_posix())
    return found.group(1) if found else path.name


def _head(path: Path) -> MlxHead:
    config = _config(path / "config.json")
    weights = sorted(path.glob("model*.safetensors"))
    if not weights:
        raise _incomplete(path, "it holds no model*.safetensors")
    tokenizers = [path / name for name in TOKENIZERS if (path / name).is_file()]
    if not tokenizers:
        raise _incomplete(path, f"it holds no tokenizer ({', '.join(TOKENIZERS)})")
    parts = max(
        (int(found["parts"]) for each in weights if (found := SHARD.search(each.name))), default=0
    )
    if len(weights) < parts:
        raise _incomplete(path, f"it holds {len(weights)} of {parts} weight files")
    for file in weights:
        _check_whole(file)
    return MlxHead(
        architecture=str(config.get("model_type", "")),
        context_length=_count(config, "max_position_embeddings"),
        quantisation=_quantisation(config),
        size_bytes=sum(file.stat().st_size for file in weights),
        fingerprint=_fingerprint([path / "config.json", *tokenizers, *weights]),
        shape=_shape(config),
        calls_tools=takes_calls(_template(path)),
    )


def _template(path: Path) -> str:
    """The chat template, from where transformers looks for it; empty where there is none that it
    would use by itself."""
    own, beside = path / "chat_template.jinja", path / "tokenizer_config.json"
    if own.is_file():
        return _text(own)
    try:
        told = json.loads(_text(beside)) if beside.is_file() else None
    except (ValueError, RecursionError):
        return ""
    template = told.get("chat_template") if isinstance(told, dict) else None
    return template if isinstance(template, str) else ""


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        return stream.read(JSON_MAX_BYTES).decode("utf-8", "replace")


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise _incomplete(file.parent, "it holds no config.json")
    with file.open("rb") as stream:
        text = stream.read(JSON_MAX_BYTES + 1)
    try:
        config = json.loads(text) if len(text) <= JSON_MAX_BYTES else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise _incomplete(file.parent, "its config.json is not a JSON object")
    if "model_file" in config:
        raise EngineError(
            f"the model in {file.parent} wants to run Python of its own "
            f"({str(config['model_file'])[:80]!r} in config.json), which meshd does not do; choose "
            "a model that mlx-lm knows by itself"
        )
    return config


def _count(config: Mapping[str, Any], key: str) -> int:
    """A number of the config, or of the language half of a model that also sees."""
    inner = config.get("text_config")
    value = config.get(key, inner.get(key) if isinstance(inner, dict) else None)
    return value if isinstance(value, int) and 0 < value < 2**31 else 0


def _shape(config: Mapping[str, Any]) -> ModelShape:
    """The numbers that memory depends on; unknown where the config leaves out the first two."""
    layers, width = _count(config, "num_hidden_layers"), _count(config, "hidden_size")
    heads = _count(config, "num_attention_heads") or 1
    if not layers or not width:
        return UNKNOWN_SHAPE
    length = _count(config, "head_dim") or width // heads
    return ModelShape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=layers * (_count(config, "num_key_value_heads") or heads),
        key_length=length,
        value_length=length,
        feed_forward=_count(config, "intermediate_size"),
        vocabulary=_count(config, "vocab_size"),
    )


def _quantisation(config: Mapping[str, Any]) -> str:
    """As the makers of MLX models call it: `4bit`, `mxfp4`; without one, the number format."""
    wanted = config.get("quantization") or config.get("quantization_config")
    if isinstance(wanted, dict):
        mode = wanted.get("mode", "affine")
        if mode != "affine":
            return str(mode)[:16]
        return f"{wanted['bits']}bit" if isinstance(wanted.get("bits"), int) else ""
    kind = config.get("torch_dtype", config.get("dtype"))
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(str(kind), "")


def _check_whole(file: Path) -> None:
    """Does the file end where its own head says?"""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if size < LENGTH_BYTES or length > min(HEAD_MAX_BYTES, size - LENGTH_BYTES):
            raise _incomplete(file.parent, f"{file.name} is not a whole safetensors file")
        try:
            tensors = json.loads(stream.read(length))
            end = max(
                each["data_offsets"][1] for name, each in tensors.items() if name != "__metadata__"
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            raise _incomplete(file.parent, f"the head of {file.name} is broken") from None
    if end != size - LENGTH_BYTES - length:
        raise _incomplete(
            file.parent,
            f"{file.name} has {size} bytes where its head promises {LENGTH_BYTES + length + end}",
        )


def _incomplete(folder: Path, found: str) -> EngineError:
    return EngineError(
        f"{folder} is not a whole MLX model: {found}; download it again, or name another folder"
    )


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(file.name.encode() + b"\0" + size.to_bytes(8, "little"))
        with file.open("rb") as stream:
            for index in range(FINGERPRINT_BLOCKS):
                last = max(0, size - FINGERPRINT_BLOCK_BYTES)
                stream.seek(last * index // (FINGERPRINT_BLOCKS - 1))
                digest.update(stream.read(FINGERPRINT_BLOCK_BYTES))
    return f"mlx-{digest.hexdigest()[:32]}"
