"""OpenAI's embeddings: texts or token ids in, vectors out, as numbers or as base64.

`input` is a text, a list of texts, a list of token ids, or a list of such lists. The official SDKs
ask for base64, which is the vector's bytes (little-endian 32-bit floats) as the engine gave them.

`dimensions` is the model's own width, which programs name to be sure of it, or an error: a vector
that was not trained for it must not be cut, and no engine here knows whether its model was.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

from meshd.api.body import check_free_form
from meshd.api.dialect import AnswerBuilder, Asked, Asker, Dialect, EventEncoder, Opening
from meshd.api.errors import bad_type, bad_value, from_failure, missing, unsupported
from meshd.api.fields import Fields, json_type
from meshd.api.job import (
    TOKENS_MAX,
    drop_own_fields,
    read_model,
    read_priority,
    session_key,
)
from meshd.api.replies import refuse
from meshd.api.writing import INCOMPLETE, encode
from meshd.core.ports import Batch
from protocol import limits
from protocol.jobs import Failure, Finish, Job, Vector

INPUTS_MAX = 2_048
"""Texts in one request: OpenAI's own bound."""

FORMATS = ("float", "base64")

NUMBER_BYTES = 4
"""Of a vector's 32-bit float."""


class AskedVectors(Asked, frozen=True):
    """A request: what to compute, and how to print it."""

    is_base64: bool = False
    dimensions: int | None = None


def read_embedding(body: Mapping[str, Any], asker: Asker) -> AskedVectors:
    """The body of `/v1/embeddings`. Raises ApiError (400)."""
    fields = Fields(body)
    inputs = _inputs(fields.take("input"))
    model = read_model(fields)
    form = fields.text("encoding_format", limits.TEXT_MAX_CHARS) or "float"
    if form not in FORMATS:
        raise bad_value("encoding_format", "'encoding_format' must be float or base64.")
    dimensions = fields.integer("dimensions", 1, TOKENS_MAX)
    user = fields.text("user", limits.JOB_MAX_BYTES)
    check_free_form(fields.rest)
    priority = read_priority(fields, asker.priority)
    drop_own_fields(fields)
    job = Job(
        request_id=asker.request_id,
        kind="embedding",
        model=model,
        inputs=inputs,
        session=session_key(asker.session or user or ""),
        priority=priority,
        person=asker.person,
        extras=fields.rest or None,
    )
    return AskedVectors(job, is_base64=form == "base64", dimensions=dimensions)


def check_width(vectors: Iterable[bytes], dimensions: int | None) -> None:
    """Raises ApiError (400) unless every vector has the width that was asked for, if any was."""
    for values in vectors:
        width = len(values) // NUMBER_BYTES
        if dimensions and width != dimensions:
            raise unsupported(
                "dimensions",
                f"'dimensions' is {dimensions}, but this model's vectors have {width} numbers and "
                f"are not cut here. Ask for {width}, or leave it out.",
            )


class EmbeddingAnswer:
    """Builds one whole answer."""

    def __init__(
        self, model: str, count: int, *, is_base64: bool, dimensions: int | None = None
    ) -> None:
        """`count` is how many vectors must come, each of `dimensions` numbers if that is given."""
        self._model = model
        self._count = count
        self._is_base64 = is_base64
        self._dimensions = dimensions
        self._vectors: dict[int, bytes] = {}
        self._finish: Finish | None = None

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure."""
        for event in batch:
            match event:
                case Vector() if event.index < self._count:
                    self._vectors[event.index] = event.values
                case Finish():
                    self._finish = event
                case Failure():
                    raise from_failure(event)
                case _:
                    pass

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished or lacks a vector."""
        if self._finish is None or len(self._vectors) != self._count:
            raise from_failure(INCOMPLETE)
        check_width(self._vectors.values(), self._dimensions)
        tokens = self._finish.prompt_tokens
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": self._printed(values)}
                for index, values in sorted(self._vectors.items())
            ],
            "model": self._model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return encode(answer)

    def _printed(self, values: bytes) -> str | list[float]:
        if self._is_base64:
            return b64encode(values).decode()
        numbers = array("f", values[: len(values) // NUMBER_BYTES * NUMBER_BYTES])
        if sys.byteorder == "big":  # pragma: no cover - no such machine is left
            numbers.byteswap()
        return numbers.tolist()


def _inputs(value: Any) -> tuple[Any, ...]:
    if value is None:
        raise missing("input", "'input' is missing. Send a text, or an array of texts.")
    inputs = [value] if type(value) is str or _is_ids(value) else value
    if type(inputs) is not list:
        raise bad_type("input", f"'input' must be a string or an array, not {json_type(value)}.")
    if not 0 < len(inputs) <= INPUTS_MAX:
        raise bad_value(
            "input", f"'input' has {len(inputs)} entries; it must have 1 to {INPUTS_MAX}."
        )
    for index, entry in enumerate(inputs):
        where = f"input[{index}]"
        if type(entry) is not str and not _is_ids(entry):
            raise bad_type(where, f"'{where}' must be a string or an array of token ids.")
        if not entry:
            raise bad_value(where, f"'{where}' is empty. Every text needs at least one character.")
        if type(entry) is list and not 0 <= min(entry) <= max(entry) <= TOKENS_MAX:
            raise bad_type(where, f"'{where}' must hold token ids only: whole numbers from 0.")
        if type(entry) is list and len(entry) > limits.TOKEN_IDS_MAX:
            raise bad_value(where, f"'{where}' has more than {limits.TOKEN_IDS_MAX} token ids.")
    return tuple(inputs)


def _is_ids(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(each) is int for each in value)


def _whole(asked: AskedVectors, opening: Opening) -> AnswerBuilder:
    count = len(asked.job.inputs)
    return EmbeddingAnswer(
        opening.head.model, count, is_base64=asked.is_base64, dimensions=asked.dimensions
    )


def _no_stream(_asked: AskedVectors, _opening: Opening) -> EventEncoder:
    raise AssertionError("a job for vectors is never streamed")


EMBEDDING = Dialect(read_embedding, _no_stream, _whole, refuse)
"""OpenAI's embeddings."""
