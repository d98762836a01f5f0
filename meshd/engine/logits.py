"""What a model says before a token is chosen: probabilities, and what may not be chosen.

`logits` is one row of raw scores, one for each token of the vocabulary. Log-probabilities are the
model's own, before temperature, penalties and any given form, as OpenAI's are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]


def forbid(logits: Row, allowed: bytes) -> None:
    """Rule out, in place, every token whose bit in `allowed` (lowest first) is not set."""
    bits = np.unpackbits(np.frombuffer(allowed, np.uint8), bitorder="little")
    logits[: bits.size][bits[: logits.size] == 0] = -np.inf
    logits[bits.size :] = -np.inf


def log_softmax(logits: Row) -> Row:
    """Natural logarithms of probabilities; `logits` is left alone."""
    shifted = logits - logits.max()
    result: Row = shifted - np.log(np.exp(shifted).sum())
    return result


def describe(logprobs: Row, token: int, top: int, piece: Callable[[int], bytes]) -> dict[str, Any]:
    """OpenAI's logprob object for `token`, with the `top` likeliest tokens beside it."""
    best = np.argsort(logprobs)[::-1][:top] if top else ()
    others = [_entry(logprobs, int(other), piece) for other in best]
    return {**_entry(logprobs, token, piece), "top_logprobs": others}


def _entry(logprobs: Row, token: int, piece: Callable[[int], bytes]) -> dict[str, Any]:
    said = piece(token)
    return {
        "token": said.decode("utf-8", "replace"),
        "logprob": max(float(logprobs[token]), LOGPROB_MIN),
        "bytes": list(said),
    }


LOGPROB_MIN = -9999.0
"""OpenAI's word for "never": JSON has no infinity."""
