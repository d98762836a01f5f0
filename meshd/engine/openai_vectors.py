"""OpenAI's embeddings, as servers really answer them: one JSON body with a vector for each text.

Asked for as plain numbers, which every server knows; one that sends base64 all the same is
understood. A vector that is missing, or is none, fails the whole answer: the asker counts on one
for each text.
"""

from __future__ import annotations

import binascii
from array import array
from typing import Any

import msgspec

from meshd.engine.failures import failure_of
from meshd.engine.openai_failures import failure_of_bare, failure_of_error
from meshd.engine.openai_wire import is_count, usage_of
from protocol import limits
from protocol.jobs import Event, Finish, Job, Vector

ANSWER_MAX_BYTES = 64 * 1024 * 1024
"""4,096 texts of 1,024 numbers, each of about 12 characters, and some room."""

FLOAT_BYTES = 4


class _Entry(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Entry] | None = None
    usage: Any = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Answer)


def vectors_body(job: Job, model: str) -> bytes:
    """The request. Extras never override a field that we set."""
    extras = job.extras if isinstance(job.extras, dict) else {}
    return msgspec.json.encode(
        {**extras, "model": model, "input": job.inputs, "encoding_format": "float"}
    )


class VectorAnswer:
    """Reads one JSON body."""

    def __init__(self, job: Job, began: float) -> None:
        """`began` is when the request was sent, on the clock of `take`."""
        self.is_over = False
        self._job = job
        self._began = began
        self._body = bytearray()

    def take(self, received: bytes, now: float) -> list[Event]:
        """Nothing until the body is whole, then everything."""
        self._body += received
        if len(self._body) > ANSWER_MAX_BYTES:
            return self._fail(f"its answer exceeds {ANSWER_MAX_BYTES} bytes")
        if received:
            return []
        try:
            answer = _DECODER.decode(self._body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._fail(f"it is no list of embeddings ({error})")
        self.is_over = True
        if answer.error is not None:
            return [failure_of_error(answer.error)]
        bare = failure_of_bare(bytes(self._body)) if answer.data is None else None
        if bare is not None:
            return [bare]
        return self._vectors(answer, now)

    def _vectors(self, answer: _Answer, now: float) -> list[Event]:
        entries = answer.data or []
        vectors = {
            place if entry.index is None else entry.index: _bytes_of(entry.embedding)
            for place, entry in enumerate(entries)
        }
        if sorted(vectors) != list(range(len(self._job.inputs))):
            return self._fail(f"it has {len(entries)} vectors for {len(self._job.inputs)} texts")
        if not all(0 < len(each) <= limits.VECTOR_MAX_BYTES for each in vectors.values()):
            return self._fail("it has a vector that is empty, too long, or not made of numbers")
        told = usage_of(answer.usage).prompt_tokens
        counted = is_count(told)
        account = Finish(
            "stop",
            prompt_tokens=told if counted and told else 0,
            completion_tokens=0,
            prompt_s=now - self._began,
            counted=counted,
        )
        return [*(Vector(index, vectors[index]) for index in sorted(vectors)), account]

    def _fail(self, why: str) -> list[Event]:
        self.is_over = True
        message = f"the upstream server sent a broken answer: {why}"
        return [failure_of("engine_failed", message, elsewhere=True)]


def _bytes_of(embedding: list[float] | str) -> bytes:
    """Little-endian 32-bit floats; empty for what is none."""
    try:
        if isinstance(embedding, str):
            raw = binascii.a2b_base64(embedding, strict_mode=True)
            return raw if len(raw) % FLOAT_BYTES == 0 else b""
        return array("f", embedding).tobytes()
    except ValueError:
        return b""
