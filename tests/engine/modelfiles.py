"""Small GGUF files with a head that says whatever a test needs; with weights, where it must run."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
ALIGNMENT_BYTES = 32
WIDTH, HIDDEN = 32, 48

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("cat", "dog", "sat", "on", "mat", "rates", "rose")
TOKENS = (*MARKS, *(f"\u2581{word}" for word in WORDS))
"""A vocabulary of BERT's kind: each word is one token, and a text stands between two marks."""


def text(value: str) -> bytes:
    """A GGUF text."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, value: object) -> bytes:
    """One key with a number, a text, a list of numbers or a list of texts."""
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", BOOL, value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", F32, value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", U32, value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    assert isinstance(value, list)
    kind = STRING if isinstance(value[0], str) else U32
    packed = [text(each) if kind == STRING else struct.pack("<I", each) for each in value]
    head = struct.pack("<IIQ", ARRAY, kind, len(value))
    return text(key) + head + b"".join(packed)


def head(tensors: int = 0, **said: object) -> bytes:
    """A file's head; `general_name="x"` becomes `general.name`, and so on for the first `_`."""
    said = {"general_architecture": "llama", "llama_context_length": 2048} | said
    pairs = [pair(key.replace("_", ".", 1), value) for key, value in said.items()]
    return struct.pack("<4sIQQ", b"GGUF", 3, tensors, len(pairs)) + b"".join(pairs)


def write(path: Path, weights: bytes = b"", **said: object) -> Path:
    """A model file. Files with equal `weights` and words are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head(**said) + weights)
    return path


def runnable(path: Path, tensors: Mapping[str, NDArray[np.float32]], **said: object) -> Path:
    """A model file with weights, so that llama.cpp can run it."""
    infos, data = b"", b""
    for name, tensor in tensors.items():
        shape = tensor.shape[::-1]
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos += text(name) + dimensions + struct.pack("<IQ", 0, len(data))
        data += _padded(tensor.astype("<f4").tobytes())
    path.write_bytes(_padded(head(len(tensors), **said) + infos) + data)
    return path


def embedder(
    path: Path, architecture: str, vocabulary: Mapping[str, object] = {}, **own: object
) -> Path:
    """A model of one layer and a few words, or another `vocabulary` as large; `own` are facts under
    the architecture's name."""
    own = {
        "context_length": 512,
        "embedding_length": WIDTH,
        "block_count": 1,
        "feed_forward_length": HIDDEN,
        "attention.head_count": 2,
    } | own
    said: dict[str, object] = {f"{architecture}_{key}": value for key, value in own.items()}
    ids = ("padding", "unknown", "bos", "eos")
    said |= {f"tokenizer_ggml.{name}_token_id": at for at, name in enumerate(ids)}
    said |= {
        "general_architecture": architecture,
        "tokenizer_ggml.model": "bert",
        "tokenizer_ggml.tokens": list(TOKENS),
        "tokenizer_ggml.seperator_token_id": MARKS.index("[SEP]"),
        "tokenizer_ggml.token_type_count": 1,
        **vocabulary,
    }
    return runnable(path, LAYERS[architecture](), **said)


def bert(path: Path, **own: object) -> Path:
    """A model that looks at the whole text at once."""
    own = {"attention.causal": False, "attention.layer_norm_epsilon": 1e-12} | own
    return embedder(path, "bert", **own)


def decoder(path: Path, **own: object) -> Path:
    """A model that looks back only, as one that generates does."""
    return embedder(path, "llama", **{"attention.layer_norm_rms_epsilon": 1e-5} | own)


def speller(path: Path, **own: object) -> Path:
    """A decoder whose tokens are letters, its words cut as gpt-oss's are."""
    said = {
        "tokenizer_ggml.model": "gpt2",
        "tokenizer_ggml.pre": "gpt-4o",
        "tokenizer_ggml.tokens": ["<s>", "</s>", "a", "b", "c", "d", "e", "f", "g", "h", "i"],
        "tokenizer_ggml.merges": ["x y"],
        "tokenizer_ggml.bos_token_id": 0,
        "tokenizer_ggml.eos_token_id": 1,
        "tokenizer_ggml.add_bos_token": True,
        "tokenizer_ggml.add_eos_token": True,
    }
    own = {"attention.layer_norm_rms_epsilon": 1e-5} | own
    return embedder(path, "llama", said, **own)


def _bert_layers() -> dict[str, NDArray[np.float32]]:
    names = ("attn_q", "attn_k", "attn_v", "attn_output")
    matrices = {f"blk.0.{name}": (WIDTH, WIDTH) for name in names}
    matrices |= {"blk.0.ffn_up": (HIDDEN, WIDTH), "blk.0.ffn_down": (WIDTH, HIDDEN)}
    norms = ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm")
    shapes = {"position_embd.weight": (512, WIDTH), "token_types.weight": (1, WIDTH)}
    for name, (rows, _) in matrices.items():
        shapes[f"{name}.bias"] = (rows,)
    shapes |= {f"{name}.{part}": (WIDTH,) for name in norms for part in ("weight", "bias")}
    return _random({**shapes, **{f"{name}.weight": shape for name, shape in matrices.items()}})


def _decoder_layers() -> dict[str, NDArray[np.float32]]:
    names = ("attn_q", "attn_k", "attn_v", "attn_output")
    shapes = {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in names}
    shapes |= {f"blk.0.ffn_{name}.weight": (HIDDEN, WIDTH) for name in ("gate", "up")}
    shapes["blk.0.ffn_down.weight"] = (WIDTH, HIDDEN)
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    return _random({**shapes, **{f"{name}.weight": (WIDTH,) for name in norms}})


LAYERS = {"bert": _bert_layers, "llama": _decoder_layers}


def _random(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """The same weights every time."""
    numbers = np.random.default_rng(1)
    shapes = {"token_embd.weight": (len(TOKENS), WIDTH), **shapes}
    return {
        name: (numbers.standard_normal(shape) * 0.5).astype(np.float32)
        for name, shape in shapes.items()
    }


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % ALIGNMENT_BYTES)
