"""llama.cpp as a reader of texts that are to become vectors: a context of its own. Worker only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from meshd.engine.embedding import PIECE_TOKENS, EmbeddingError


class LlamaReader:
    """`embedding.TextReader` on a loaded model, beside the context that answers."""

    def __init__(self, model: Any, longest: int, threads: int) -> None:
        """`model` is llama.cpp's; texts have at most `longest` tokens. Raises EmbeddingError."""
        params = llama.llama_context_default_params()
        params.n_ctx = longest
        params.n_batch = params.n_ubatch = params.n_outputs_max = PIECE_TOKENS
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
        self._context = llama.llama_init_from_model(model, params)
        if not self._context:
            raise EmbeddingError(
                f"llama.cpp cannot make a context of {longest} tokens for embeddings"
            )
        self._batch = llama.llama_batch_init(PIECE_TOKENS, 0, 1)
        self._width = int(llama.llama_model_n_embd(model))
        self._position = 0

    def read(self, piece: Sequence[int]) -> NDArray[np.float64]:
        """As the protocol says."""
        batch = self._batch
        for at, token in enumerate(piece):
            batch.token[at] = token
            batch.pos[at] = self._position + at
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = 0
            batch.logits[at] = 1
        batch.n_tokens = len(piece)
        status = llama.llama_decode(self._context, batch)
        if status != 0:
            raise EmbeddingError(f"llama_decode returned {status}")
        self._position += len(piece)
        rows = np.ctypeslib.as_array(
            llama.llama_get_embeddings(self._context), (len(piece), self._width)
        )
        return np.asarray(rows.sum(axis=0, dtype=np.float64))

    def rewind(self) -> None:
        """As the protocol says."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        self._position = 0

    def close(self) -> None:
        """As the protocol says."""
        llama.llama_batch_free(self._batch)
        llama.llama_free(self._context)
