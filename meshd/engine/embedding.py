"""Texts to vectors with a model that generates: the mean over the tokens of its last layer.

A context of its own, made for the longest text of a job and freed with the job, so that embeddings
cost nobody's conversation its cache. Texts are read in pieces, one for each pass of the worker, so
that they do not freeze anybody's stream either; the mean is taken over all pieces. Vectors have
length 1, so that a dot product is a cosine.

Left out: models made for nothing but embeddings (BERT and its kind), whose attention needs the
whole text in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from protocol.jobs import Event, Finish, Vector

PIECE_TOKENS = 256
"""Tokens in one pass: about a tenth of a second with an 8B model on a small machine's processor."""


class EmbeddingJob:
    """One job's texts on their way to vectors. `close` it."""

    def __init__(self, key: int, texts: Sequence[Sequence[int]], context: Any, width: int) -> None:
        """`context` comes from `open_context`; `width` is the number of dimensions."""
        self.key = key
        self.is_over = False
        self._texts = texts
        self._context = context
        self._width = width
        self._batch = llama.llama_batch_init(PIECE_TOKENS, 0, 1)
        self._index = 0
        self._read = 0
        self._sum: NDArray[np.float64] = np.zeros(width)

    def step(self) -> list[Event]:
        """One piece more, and what became known by it. Raises EmbeddingError."""
        text = self._texts[self._index]
        piece = text[self._read : self._read + PIECE_TOKENS]
        self._run(piece)
        self._read += len(piece)
        if self._read < len(text):
            return []
        vector = Vector(self._index, self._normal().astype("<f4").tobytes())
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        self._index, self._read = self._index + 1, 0
        self._sum = np.zeros(self._width)
        self.is_over = self._index == len(self._texts)
        if not self.is_over:
            return [vector]
        return [vector, Finish("stop", sum(map(len, self._texts)), 0)]

    def close(self) -> None:
        """Give the memory back."""
        llama.llama_batch_free(self._batch)
        llama.llama_free(self._context)

    def _run(self, piece: Sequence[int]) -> None:
        batch = self._batch
        for at, token in enumerate(piece):
            batch.token[at] = token
            batch.pos[at] = self._read + at
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = 0
            batch.logits[at] = 1
        batch.n_tokens = len(piece)
        status = llama.llama_decode(self._context, batch)
        if status != 0:
            raise EmbeddingError(f"llama_decode returned {status}")
        rows = np.ctypeslib.as_array(
            llama.llama_get_embeddings(self._context), (len(piece), self._width)
        )
        self._sum += rows.sum(axis=0, dtype=np.float64)

    def _normal(self) -> NDArray[np.float64]:
        length = float(np.linalg.norm(self._sum))
        return self._sum / length if length else self._sum


class EmbeddingError(Exception):
    """llama.cpp refused; the text is for the owner."""


def open_context(model: Any, longest: int, threads: int) -> Any:
    """A context for texts of at most `longest` tokens. Raises EmbeddingError."""
    params = llama.llama_context_default_params()
    params.n_ctx = longest
    params.n_batch = params.n_ubatch = params.n_outputs_max = PIECE_TOKENS
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = threads
    params.embeddings = True
    params.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
    context = llama.llama_init_from_model(model, params)
    if not context:
        raise EmbeddingError(f"llama.cpp cannot make a context of {longest} tokens for embeddings")
    return context
