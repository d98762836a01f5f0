"""Claims of meshd.engine.logits."""

from __future__ import annotations

import math

import numpy as np

from meshd.engine.logits import LOGPROB_MIN, describe, forbid, log_softmax


def row(*scores: float):
    """One row of scores."""
    return np.array(scores, np.float32)


def test_only_what_is_allowed_can_be_chosen():
    """Bits are read lowest first; tokens beyond them are ruled out."""
    logits = row(*range(10))
    forbid(logits, bytes([0b0000_0101]))
    assert [index for index in range(10) if math.isfinite(logits[index])] == [0, 2]


def test_probabilities_sum_to_one():
    """However large the scores."""
    logits = row(1000.0, 1000.0, -1000.0)
    assert math.isclose(float(np.exp(log_softmax(logits)).sum()), 1.0, rel_tol=1e-5)
    assert logits[0] == 1000.0


def test_a_token_is_described_in_openais_words():
    """With the likeliest tokens beside it, best first, and half a character as bytes."""
    pieces = (b"a", b"\xc3", b"c")
    told = describe(row(-1.0, -0.5, -2.0), 0, 2, pieces.__getitem__)
    assert told["token"] == "a"
    assert told["logprob"] == -1.0
    assert [other["bytes"] for other in told["top_logprobs"]] == [[0xC3], [97]]
    assert told["top_logprobs"][0]["token"] == "\ufffd"


def test_impossible_is_a_number():
    """JSON has no infinity."""
    told = describe(row(-math.inf, 0.0), 0, 0, lambda _token: b"x")
    assert told["logprob"] == LOGPROB_MIN
    assert told["top_logprobs"] == []
