"""What an emulated machine gives where words will not do: vectors, sounds, pictures.

Small, well-formed, the same everywhere, and made of nothing but the request: a vector follows from
its text, a tone and a grey dot stand for speech and pictures, and a transcript says that it is
emulated.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

from protocol.jobs import Event, Job, RawHead, RawPart, Vector

DIMENSIONS = 32
"""Of a vector: enough that no two texts of a test meet."""

TONE_HZ = 440
RATE_HZ = 8_000
TONE_S = 0.1
"""A WAV of 1.6 kB, which every player plays."""

PART_BYTES = 512
"""Of what is not text, per token of time: a sound comes in several pieces."""


def vectors(job: Job) -> list[Event]:
    """A unit vector for each input, which follows from it alone."""
    return [Vector(index, _vector(entry)) for index, entry in enumerate(job.inputs)]


def ability_of(path: str) -> str:
    """What a model must be able to do to answer at a path; empty for one that nobody emulates."""
    return next((word for begin, (word, _) in ANSWERS.items() if path.startswith(begin)), "")


def answer(job: Job) -> list[Event]:
    """The answer to a raw job at a path with an ability."""
    assert job.raw is not None
    path = job.raw.path
    make = next(make for begin, (_, make) in ANSWERS.items() if path.startswith(begin))
    kind, body = make()
    parts = [RawPart(body[at : at + PART_BYTES]) for at in range(0, len(body), PART_BYTES)]
    return [RawHead(200, kind), *parts]


def _vector(entry: object) -> bytes:
    text = json.dumps(entry, ensure_ascii=False).encode()
    numbers = [byte - 127.5 for byte in blake2b(text, digest_size=DIMENSIONS).digest()]
    length = math.hypot(*numbers)
    return array("f", [number / length for number in numbers]).tobytes()


def _speech() -> tuple[str, bytes]:
    count = int(RATE_HZ * TONE_S)
    wave = (round(8_000 * math.sin(2 * math.pi * TONE_HZ * at / RATE_HZ)) for at in range(count))
    sound = struct.pack(f"<{count}h", *wave)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(sound)) + sound
    return "audio/wav", struct.pack("<4sI", b"RIFF", len(body)) + body


def _transcript() -> tuple[str, bytes]:
    return "application/json", b'{"text": "This transcript is emulated: nobody listened."}'


def _picture() -> tuple[str, bytes]:
    data = [{"b64_json": base64.b64encode(_dot()).decode()}]
    return "application/json", json.dumps({"created": 0, "data": data}).encode()


def _dot() -> bytes:
    """A PNG of one grey pixel."""
    chunks: Sequence[tuple[bytes, bytes]] = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\x80")),
        (b"IEND", b""),
    )
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


ANSWERS: Mapping[str, tuple[str, Callable[[], tuple[str, bytes]]]] = {
    "/v1/audio/transcriptions": ("transcription", _transcript),
    "/v1/audio/translations": ("transcription", _transcript),
    "/v1/audio/speech": ("speech", _speech),
    "/v1/images/": ("image", _picture),
}
"""Beginnings of paths: the ability, and content type and body."""
