"""Texts to vectors: of a model that generates, the mean over the tokens of its last layer; of one
made for nothing else (BERT, Qwen3-Embedding), what its file says.

Texts are read in pieces, one for each pass of the worker, so that they do not freeze anybody's
stream. A model whose attention looks ahead needs the whole text in one piece; nobody's stream runs
there. Each job has a reader of its own, opened when its turn comes and closed when it is over, so
that embeddings cost nobody's conversation its cache, and one that waits holds no memory. Vectors
have length 1, so that a dot product is a cosine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from meshd.engine.failures import failure_of
from meshd.engine.turn import Tokenizer, prepare_texts
from protocol.jobs import Event, Failure, Finish, Job, Vector

PIECE_TOKENS = 256
"""Tokens in one pass: about a tenth of a second with an 8B model on a small machine's processor."""


class EmbeddingError(Exception):
    """The engine refused; the text is for the owner."""


class TextReader(Protocol):
    """A model that reads one text at a time and tells what it makes of it."""

    piece_tokens: int
    """The most that it reads at once."""

    def read(self, piece: Sequence[int]) -> NDArray[np.float64]:
        """The next tokens of the text: what all that was read of it comes to, a vector of any
        length. Raises EmbeddingError."""
        ...

    def rewind(self) -> None:
        """The next piece begins another text."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


@dataclass(slots=True)
class _Reading:
    """One job's texts on their way to vectors."""

    key: int
    texts: Sequence[Sequence[int]]
    reader: TextReader | None = None
    index: int = 0
    read: int = 0

    @property
    def is_over(self) -> bool:
        return self.index == len(self.texts)


class EmbeddingQueue:
    """The embedding jobs of one worker. As many as the daemon lets in: it bounds all that wait."""

    def __init__(self, open_reader: Callable[[int], TextReader]) -> None:
        """`open_reader` makes one for texts of at most so many tokens, or raises EmbeddingError."""
        self._open = open_reader
        self._jobs: deque[_Reading] = deque()

    def __bool__(self) -> bool:
        """Is there anything to read?"""
        return bool(self._jobs)

    def accept(self, key: int, job: Job, model: Tokenizer) -> Failure | None:
        """Let a job wait for its turn, or why not."""
        texts = prepare_texts(job, model)
        if isinstance(texts, Failure):
            return texts
        self._jobs.append(_Reading(key, texts))
        return None

    def step(self) -> tuple[int, list[Event]]:
        """One piece more of the job that came first: its key, and what became known by it."""
        job = self._jobs[0]
        try:
            events = self._read(job)
        except EmbeddingError as error:
            events = [failure_of("engine_failed", str(error), elsewhere=True)]
            self.drop(job.key)
        if job.is_over:
            self.drop(job.key)
        return job.key, events

    def drop(self, key: int) -> None:
        """Forget a job, waiting or begun."""
        for job in [each for each in self._jobs if each.key == key]:
            self._jobs.remove(job)
            if job.reader is not None:
                job.reader.close()

    def _read(self, job: _Reading) -> list[Event]:
        if job.reader is None:
            job.reader = self._open(max(map(len, job.texts)))
        text = job.texts[job.index]
        piece = text[job.read : job.read + job.reader.piece_tokens]
        so_far = job.reader.read(piece)
        job.read += len(piece)
        if job.read < len(text):
            return []
        vector = Vector(job.index, _normal(so_far).astype("<f4").tobytes())
        job.reader.rewind()
        job.index, job.read = job.index + 1, 0
        if not job.is_over:
            return [vector]
        return [vector, Finish("stop", sum(map(len, job.texts)), 0)]


def _normal(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Its direction."""
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
