"""llama.cpp as a reader of texts that are to become vectors: a context of its own. Worker only.

Of a model that generates, the last layer's rows are summed up here. One that makes vectors only
does that in its own way, which its file names: the mean, the first token's row, the last one's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from meshd.engine.embedding import PIECE_TOKENS, EmbeddingError
from meshd.engine.gguf import only_embeds

ROWS = llama.LLAMA_POOLING_TYPE_NONE

SAID_MAX_BYTES = 128
"""Read of what a file says of itself: a name or a number."""


class LlamaReader:
    """`embedding.TextReader` on a loaded model, beside the context that answers."""

    def __init__(self, model: Any, longest: int, threads: int, pooling: int = ROWS) -> None:
        """`model` is llama.cpp's; texts have at most `longest` tokens; `pooling` is the model's
        own, ROWS for one that generates. Raises EmbeddingError."""
        at_once = PIECE_TOKENS if pooling == ROWS else longest
        params = llama.llama_context_default_params()
        params.n_ctx = longest
        params.n_batch = params.n_ubatch = params.n_outputs_max = at_once
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.pooling_type = pooling
        self._context = llama.llama_init_from_model(model, params)
        if not self._context:
            raise EmbeddingError(
                f"llama.cpp cannot make a context of {longest} tokens for embeddings"
            )
        looks_back = pooling == llama.LLAMA_POOLING_TYPE_LAST and llama.llama_get_causal_attn(
            self._context
        )
        self.piece_tokens = min(at_once, PIECE_TOKENS) if looks_back else at_once
        self._pooling = pooling
        self._batch = llama.llama_batch_init(at_once, 0, 1)
        self._width = int(llama.llama_model_n_embd_out(model))
        self._position = 0
        self._total: NDArray[np.float64] = np.zeros(())

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
        if self._pooling != ROWS:
            own = llama.llama_get_embeddings_seq(self._context, 0)
            return np.array(np.ctypeslib.as_array(own, (self._width,)), dtype=np.float64)
        rows = np.ctypeslib.as_array(
            llama.llama_get_embeddings(self._context), (len(piece), self._width)
        )
        self._total = self._total + rows.sum(axis=0, dtype=np.float64)
        return self._total

    def rewind(self) -> None:
        """As the protocol says."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)
        self._position = 0
        self._total = np.zeros(())

    def close(self) -> None:
        """As the protocol says."""
        llama.llama_batch_free(self._batch)
        llama.llama_free(self._context)


def pooling_of(model: Any) -> int:
    """How a loaded model makes one vector of a text: as its file says, or the mean. ROWS for one
    that generates."""
    architecture = _said(model, "general.architecture")
    named = _said(model, f"{architecture}.pooling_type")
    pooling = int(named) if named.isdigit() else 0
    if not only_embeds(architecture, pooling):
        return int(ROWS)
    return pooling or int(llama.LLAMA_POOLING_TYPE_MEAN)


def _said(model: Any, key: str) -> str:
    """What the file says under a key, empty where it says nothing."""
    buffer = ctypes.create_string_buffer(SAID_MAX_BYTES)
    llama.llama_model_meta_val_str(model, key.encode(), buffer, SAID_MAX_BYTES)
    return buffer.value.decode("utf-8", "replace")
