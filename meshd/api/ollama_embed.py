"""Ollama's embeddings: `/api/embed` for many texts, and the older `/api/embeddings` for one.

Vectors of `/api/embed` have length 1, as Ollama makes them; those of the older route are as the
model gave them. A text that is too long is an error: `truncate`, which is true by default at
Ollama, would make a vector of something else than was sent. `dimensions` other than the model's own
are one too (`meshd.api.embeddings`). Without a text the model is loaded.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Mapping
from typing import Any

from meshd.api.body import check_free_form
from meshd.api.dialect import Asked, Asker, Dialect, EventEncoder, Opening
from meshd.api.embeddings import check_width
from meshd.api.errors import bad_type, bad_value, from_failure
from meshd.api.fields import Fields, json_type
from meshd.api.job import TOKENS_MAX, session_key
from meshd.api.ollama import read_model, refuse
from meshd.api.ollama_answer import NANOSECONDS
from meshd.api.ollama_options import read_keep_alive, read_options, unused_lines
from meshd.api.writing import INCOMPLETE, encode
from meshd.core.ports import Batch
from protocol import limits
from protocol.jobs import Failure, Finish, Job, Vector

INPUTS_MAX = 2_048
"""Texts in one request: OpenAI's bound."""

LOADING_INPUT = ("Hi",)
"""What a model is given that is only to be loaded."""


class AskedVectors(Asked, frozen=True):
    """A request: which route, and how many of the vectors were asked for."""

    is_older: bool = False
    count: int = 0
    dimensions: int | None = None


def read_embed(body: Mapping[str, Any], asker: Asker) -> AskedVectors:
    """The body of `/api/embed`. Raises ApiError (400)."""
    fields = Fields(body)
    check_free_form(fields.rest)
    model = read_model(fields)
    texts = _texts(fields.take("input"))
    fields.flag("truncate")
    dimensions = fields.integer("dimensions", 0, TOKENS_MAX)
    return _asked(fields, asker, model, texts, is_older=False, dimensions=dimensions)


def read_embeddings(body: Mapping[str, Any], asker: Asker) -> AskedVectors:
    """The body of `/api/embeddings`. Raises ApiError (400)."""
    fields = Fields(body)
    check_free_form(fields.rest)
    model = read_model(fields)
    prompt = fields.text("prompt", limits.JOB_MAX_BYTES)
    return _asked(fields, asker, model, (prompt,) if prompt else (), is_older=True)


class VectorsAnswer:
    """Builds one whole answer."""

    def __init__(self, asked: AskedVectors, opening: Opening) -> None:
        self._asked = asked
        self._model = opening.head.model
        self._vectors: dict[int, bytes] = {}
        self._finish: Finish | None = None

    def add(self, batch: Batch) -> None:
        """Take in a batch. Raises ApiError when it holds a failure."""
        for event in batch:
            match event:
                case Vector() if event.index < len(self._asked.job.inputs):
                    self._vectors[event.index] = event.values
                case Finish():
                    self._finish = event
                case Failure():
                    raise from_failure(event)
                case _:
                    pass

    def body(self) -> bytes:
        """The answer as JSON. Raises ApiError when it never finished or lacks a vector."""
        finish = self._finish
        if finish is None or len(self._vectors) != len(self._asked.job.inputs):
            raise from_failure(INCOMPLETE)
        check_width(self._vectors.values(), self._asked.dimensions)
        vectors = [
            _numbers(values) for _, values in sorted(self._vectors.items())[: self._asked.count]
        ]
        if self._asked.is_older:
            return encode({"embedding": vectors[0] if vectors else []})
        waited, read = [round(spent * NANOSECONDS) for spent in (finish.queue_s, finish.prompt_s)]
        return encode(
            {
                "model": self._model,
                "embeddings": [_of_length_1(vector) for vector in vectors],
                "total_duration": waited + read,
                "load_duration": waited,
                "prompt_eval_count": finish.prompt_tokens if vectors else 0,
            }
        )


def _asked(
    fields: Fields,
    asker: Asker,
    model: str,
    texts: tuple[str, ...],
    *,
    is_older: bool,
    dimensions: int | None = None,
) -> AskedVectors:
    options = read_options(fields)
    keep_alive = read_keep_alive(fields.take("keep_alive"))
    job = Job(
        request_id=asker.request_id,
        kind="embedding",
        model=model,
        inputs=texts or LOADING_INPUT,
        session=session_key(asker.session),
        person=asker.person,
        priority=asker.priority,
    )
    lines = unused_lines(keep_alive, options, fields.rest)
    wanted = dimensions if texts else None
    return AskedVectors(job, lines=lines, is_older=is_older, count=len(texts), dimensions=wanted)


def _texts(value: Any) -> tuple[str, ...]:
    texts = [value] if type(value) is str else [] if value is None else value
    if type(texts) is not list:
        raise bad_type(
            "input", f"'input' must be a string or an array of strings, not {json_type(value)}."
        )
    if len(texts) > INPUTS_MAX:
        raise bad_value("input", f"'input' has {len(texts)} texts; at most {INPUTS_MAX} go in one.")
    for index, text in enumerate(texts):
        if type(text) is not str:
            raise bad_type(
                f"input[{index}]", f"'input[{index}]' must be a string, not {json_type(text)}."
            )
        if not text and type(value) is list:
            raise bad_value(f"input[{index}]", f"'input[{index}]' is empty.")
    return tuple([text for text in texts if text])


def _numbers(values: bytes) -> list[float]:
    numbers = array("f", values[: len(values) // 4 * 4])
    if sys.byteorder == "big":  # pragma: no cover - no such machine is left
        numbers.byteswap()
    return numbers.tolist()


def _of_length_1(vector: list[float]) -> list[float]:
    length = math.sqrt(math.fsum([number * number for number in vector]))
    return [number / length for number in vector] if length > 0 else vector


def _no_stream(_asked: AskedVectors, _opening: Opening) -> EventEncoder:
    raise AssertionError("embeddings are never streamed")


OLLAMA_EMBED: Dialect[AskedVectors] = Dialect(
    read=read_embed, stream=_no_stream, whole=VectorsAnswer, refuse=refuse
)
OLLAMA_EMBEDDINGS: Dialect[AskedVectors] = Dialect(
    read=read_embeddings, stream=_no_stream, whole=VectorsAnswer, refuse=refuse
)
