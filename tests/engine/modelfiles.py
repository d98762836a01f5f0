"""Small GGUF files with a head that says whatever a test needs, and no weights."""

from __future__ import annotations

import struct
from pathlib import Path

U32, STRING, ARRAY = 4, 8, 9


def text(value: str) -> bytes:
    """A GGUF text."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, value: object) -> bytes:
    """One key with a number, a text, a list of numbers or a list of texts."""
    if isinstance(value, int):
        return text(key) + struct.pack("<II", U32, value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    assert isinstance(value, list)
    kind = STRING if isinstance(value[0], str) else U32
    packed = [text(each) if kind == STRING else struct.pack("<I", each) for each in value]
    head = struct.pack("<IIQ", ARRAY, kind, len(value))
    return text(key) + head + b"".join(packed)


def head(**said: object) -> bytes:
    """A file's head; `general_name="x"` becomes `general.name`, and so on for the first `_`."""
    said = {"general_architecture": "llama", "llama_context_length": 2048} | said
    pairs = [pair(key.replace("_", ".", 1), value) for key, value in said.items()]
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs)


def write(path: Path, weights: bytes = b"", **said: object) -> Path:
    """A model file. Files with equal `weights` and words are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head(**said) + weights)
    return path
