"""MLX as a reader of texts that are to become vectors. Worker process only.

A model of mlx-lm is a body, which gives the last layer's rows, and a head, which makes words of
them. The body has the same place in almost all; a model that has it elsewhere makes no vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from numpy.typing import NDArray

from meshd.engine.embedding import PIECE_TOKENS, EmbeddingError

BODIES = (("model",), ("language_model", "model"))
"""Where the body is, by attributes: of a model of words, and of one that also sees."""


class MlxReader:
    """`embedding.TextReader` on a loaded network; keys and values are kept for one text. Its
    vector is the sum of the last layer's rows."""

    piece_tokens = PIECE_TOKENS

    def __init__(self, network: Any) -> None:
        """Raises EmbeddingError where the network has no body that is known."""
        body = _body_of(network)
        if body is None:
            raise EmbeddingError(
                "mlx-lm keeps this model's last layer where meshd does not find it"
            )
        self._network, self._body = network, body
        self._cache: Any = make_prompt_cache(network)
        self._total: NDArray[np.float64] = np.zeros(())

    def read(self, piece: Sequence[int]) -> NDArray[np.float64]:
        """As the protocol says."""
        try:
            rows = self._body(mx.array([list(piece)]), cache=self._cache)
            added = rows.astype(mx.float32).sum(axis=(0, 1))
            mx.eval(added, [layer.state for layer in self._cache])
        except Exception as error:
            raise EmbeddingError(f"MLX failed at a text: {str(error)[:400]}") from error
        self._total = self._total + np.array(added, dtype=np.float64)
        return self._total

    def rewind(self) -> None:
        """As the protocol says."""
        self._cache = make_prompt_cache(self._network)
        self._total = np.zeros(())

    def close(self) -> None:
        """As the protocol says."""
        self._cache = None


def makes_vectors(network: Any) -> bool:
    """Whether this network can be read so: tried with one token."""
    try:
        return MlxReader(network).read([0]).ndim == 1
    except EmbeddingError:
        return False


def _body_of(network: Any) -> Callable[..., Any] | None:
    for path in BODIES:
        part = network
        for name in path:
            part = getattr(part, name, None)
        if callable(part):
            return part  # type: ignore[no-any-return]
    return None
