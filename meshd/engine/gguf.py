"""What a GGUF file says of itself, read without llama.cpp.

The daemon must know a model's name, context length, memory and abilities before it starts a worker,
and a wrong file must be refused with one clear line rather than by a crash. So the head of the file
is read here: magic, version, and all key-value pairs, of which long lists are passed over. Tensors
are left to llama.cpp, which checks that they lie within the file.

Everything read is bounded: a hostile file costs at most `HEAD_MAX_BYTES` and never recursion.

The fingerprint stands for the weights: equal files have equal fingerprints, so a token id means the
same on both machines. It hashes the size, the head and evenly spaced blocks: a 40 GB file is read
in milliseconds, and two different models never share all of those bytes.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from meshd.core.ports import EngineError
from meshd.core.residency.footprint import UNKNOWN_SHAPE, ModelShape
from protocol.frozen import frozen

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEAD_MAX_BYTES = 64 * 1024 * 1024
"""Key-value pairs beyond this are not read; the largest vocabularies take about 15 MB."""

PAIRS_MAX = 4_096
"""Key-value pairs; real files hold 20 to 60."""

LAYERS_MAX = 1_024
"""Entries of a list of numbers that is kept: one for each layer; the deepest models have 200."""

TEXTS_BLOCK_BYTES = 256 * 1024
"""Read at a time while a list of texts is passed over: 150,000 tokens then take 40 ms."""

FINGERPRINT_BLOCKS = 16
FINGERPRINT_BLOCK_BYTES = 64 * 1024

STRING, ARRAY = 8, 9
TEXT_LENGTH = struct.Struct("<Q")
SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i",
    6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
"""GGUF value types and how they are packed (ggml/include/gguf.h)."""

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 38: "MXFP4",
}  # fmt: skip
"""general.file_type (llama.h, enum llama_ftype); what is not listed is shown as nothing."""

ATTENTION_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
"""Of how many layers one attends and has a cache, where the file does not say; the others are
recurrent (src/models/qwen35.cpp)."""

STATE_BYTES = 4
"""One number that a recurrent layer remembers: f32."""

STATE_MAX_BYTES = 2**40
"""Of one conversation; real ones take 20 to 80 MB."""


EMBEDDERS = re.compile(r"bert$|bert-|embedding|^llama-embed$|^t5encoder$")
"""Architectures that make vectors only: nomic-bert-moe, eurobert, gemma-embedding."""

RANKS = 4
"""The pooling of a reranker, which gives a score (llama.h, enum llama_pooling_type)."""


@frozen
class GgufHead:
    """The wanted facts. 0 or empty where the file does not say."""

    architecture: str
    name: str
    context_length: int
    quantisation: str
    size_bytes: int
    fingerprint: str
    kind: str = ""
    """`model`, `mmproj`, `adapter`, `reranker`; empty in older files, which are models."""
    shape: ModelShape = UNKNOWN_SHAPE
    template: str = ""
    embeds: bool = False
    """The model makes vectors of texts, and no text."""


@frozen
class Passed:
    """A list that was passed over."""

    count: int


def inspect(path: Path) -> GgufHead:
    """Read the head of a model file. Raises EngineError with one line for the owner.

    Blocks on the disk for a few milliseconds: call it from a thread.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            values = _Reader(file, path).head()
            return _head(values, size, _fingerprint(file, size))
    except FileNotFoundError:
        raise EngineError(
            f"model file not found: {path}; check the path given to --engine"
        ) from None
    except OSError as error:
        raise EngineError(f"model file {path} cannot be read: {error.strerror}") from None


def _head(values: Mapping[str, object], size: int, fingerprint: str) -> GgufHead:
    architecture = str(values.get("general.architecture", ""))
    file_type = values.get("general.file_type", -1)
    pooling = _count(values, f"{architecture}.pooling_type")
    return GgufHead(
        architecture=architecture,
        name=str(values.get("general.name", "")),
        context_length=_count(values, f"{architecture}.context_length"),
        quantisation=FILE_TYPES.get(file_type, "") if isinstance(file_type, int) else "",
        size_bytes=size,
        fingerprint=fingerprint,
        kind="reranker" if pooling == RANKS else str(values.get("general.type", "")),
        shape=_shape(values, architecture),
        template=str(values.get("tokenizer.chat_template", "")),
        embeds=only_embeds(architecture, pooling),
    )


def only_embeds(architecture: str, pooling: int) -> bool:
    """Does a model make vectors and no text? Its kind does, or its file names a pooling."""
    return pooling > 0 or bool(EMBEDDERS.search(architecture))


def _shape(values: Mapping[str, object], architecture: str) -> ModelShape:
    """What memory depends on. Files leave out what follows from the rest."""

    def count(name: str) -> int:
        return _count(values, f"{architecture}.{name}")

    layers, width = count("block_count"), count("embedding_length")
    heads = max(1, count("attention.head_count"))
    own = values.get(f"{architecture}.attention.head_count_kv", heads)
    if isinstance(own, tuple):
        kv_heads, recurrent = sum(map(_whole, own)), own.count(0) or layers
    else:
        interval = count("full_attention_interval") or ATTENTION_INTERVALS.get(architecture, 1)
        # The last layers may only predict further tokens: these are not run here.
        trunk = max(0, layers - count("nextn_predict_layers")) if interval > 1 else layers
        kv_heads = trunk // interval * _whole(own)
        recurrent = trunk - trunk // interval or layers
    tokens = values.get("tokenizer.ggml.tokens")
    known = tokens.count if isinstance(tokens, Passed) else 0
    return ModelShape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=min(kv_heads, 2**31),
        key_length=count("attention.key_length") or width // heads,
        value_length=count("attention.value_length") or width // heads,
        feed_forward=count("feed_forward_length"),
        vocabulary=count("vocab_size") or known,
        state_bytes=min(recurrent * _state_bytes(count), STATE_MAX_BYTES),
    )


def _state_bytes(count: Callable[[str], int]) -> int:
    """What one recurrent layer remembers of a conversation: the last inputs of its convolution and
    its state (llama.cpp's n_embd_r and n_embd_s). 0 for a model without such layers."""
    inner, state = count("ssm.inner_size"), count("ssm.state_size")
    inputs = max(0, count("ssm.conv_kernel") - 1)
    return STATE_BYTES * (inputs * (inner + 2 * count("ssm.group_count") * state) + state * inner)


def _count(values: Mapping[str, object], key: str) -> int:
    """A number of the file, or the largest of a list of one for each layer; 0 where none is."""
    value = values.get(key)
    return max(map(_whole, value), default=0) if isinstance(value, tuple) else _whole(value)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0


class _Reader:
    """The key-value pairs of one open file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def head(self) -> dict[str, object]:
        """Scalars, texts and short lists by their keys; longer lists as their length."""
        if self._take(4) != MAGIC:
            raise EngineError(
                f"{self._path} is not a GGUF model (it does not begin with GGUF); "
                "download it again, or name another file"
            )
        version = self._number("<I")
        if version not in VERSIONS:
            raise EngineError(
                f"{self._path}: GGUF version {version} is not supported (2 and 3 are)"
            )
        self._number("<Q")
        pairs = self._number("<Q")
        if pairs > PAIRS_MAX:
            raise self._corrupt(f"{pairs} key-value pairs")
        values: dict[str, object] = {}
        for _ in range(pairs):
            key = self._text()
            values[key] = self._value(self._number("<I"))
        return values

    def _value(self, kind: int) -> object:
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            return self._array()
        if kind not in SCALARS:
            raise self._corrupt(f"value type {kind}")
        return struct.unpack(SCALARS[kind], self._take(struct.calcsize(SCALARS[kind])))[0]

    def _array(self) -> object:
        kind, count = self._number("<I"), self._number("<Q")
        if kind == STRING:
            self._pass_texts(count)
        elif kind in SCALARS:
            size = struct.calcsize(SCALARS[kind])
            if count <= LAYERS_MAX:
                return struct.unpack(f"<{count}{SCALARS[kind][1]}", self._take(count * size))
            self._pass(count * size)
        else:
            raise self._corrupt(f"array of value type {kind}")
        return Passed(count)

    def _pass_texts(self, count: int) -> None:
        """Each text is its length and its bytes; they are hopped over, a block at a time."""
        start, block, at = self._file.tell(), b"", 0
        if count * 8 > HEAD_MAX_BYTES:
            raise self._corrupt("a head that is too long")
        for _ in range(count):
            if at + 8 > len(block):
                start, at = start + at, 0
                if start > HEAD_MAX_BYTES:
                    raise self._corrupt("a head that is too long")
                self._file.seek(start)
                block = self._file.read(TEXTS_BLOCK_BYTES)
                if len(block) < 8:
                    raise self._corrupt("an end in the middle of the head")
            at += 8 + TEXT_LENGTH.unpack_from(block, at)[0]
        self._file.seek(start)
        self._pass(at)

    def _text(self) -> str:
        return self._take(self._number("<Q")).decode("utf-8", "replace")

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _pass(self, size: int) -> None:
        if size > HEAD_MAX_BYTES or self._file.tell() + size > HEAD_MAX_BYTES:
            raise self._corrupt("a head that is too long")
        self._file.seek(size, 1)

    def _take(self, size: int) -> bytes:
        if size > HEAD_MAX_BYTES or self._file.tell() + size > HEAD_MAX_BYTES:
            raise self._corrupt("a head that is too long")
        taken = self._file.read(size)
        if len(taken) < size:
            raise self._corrupt("an end in the middle of the head")
        return taken

    def _corrupt(self, found: str) -> EngineError:
        return EngineError(
            f"{self._path} is not a whole GGUF model (found {found}); download it again"
        )


def _fingerprint(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    for index in range(FINGERPRINT_BLOCKS):
        file.seek(max(0, size - FINGERPRINT_BLOCK_BYTES) * index // (FINGERPRINT_BLOCKS - 1))
        digest.update(file.read(FINGERPRINT_BLOCK_BYTES))
    return f"gguf-{digest.hexdigest()[:32]}"
