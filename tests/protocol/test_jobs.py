"""Jobs and events: nothing is lost between the dialect, the router, the relay and the engine."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import codec
from protocol.fields import decode_record, encode_record
from protocol.jobs import (
    EVENTS,
    FAILURES,
    FINISH_REASONS,
    JOB_KINDS,
    PRIORITIES,
    Failure,
    Finish,
    Job,
    Sampling,
    TextDelta,
    Vector,
)
from protocol.limits import VECTOR_MAX_BYTES
from tests.protocol.strategies import refusal

SMALLEST = Job("r", "chat", "m")


def test_a_job_needs_three_fields() -> None:
    """Everything else says by its default that the client did not ask for it."""
    assert codec.decode_job(codec.pack(["r", 0, "m"])) == SMALLEST


def test_a_bias_is_a_token_and_a_number() -> None:
    """Token ids stay integers on the way, so an engine can look them up."""
    job = Job("r", "chat", "m", sampling=Sampling(logit_bias=((50_256, -100.0),)))
    ((token, weight),) = codec.decode_job(codec.encode_job(job)).sampling.logit_bias
    assert (type(token), type(weight)) == (int, float)


@pytest.mark.parametrize("bias", [((1,),), ((1, 2.0, 3),), ((-1, 2.0),), ((2**31, 2.0),), [(1, 2)]])
def test_half_a_bias_is_not_sent(bias: Any) -> None:
    """An entry is exactly a token id and a weight."""
    assert refusal(encode_record, Sampling(logit_bias=bias)) in {"type", "range"}


@pytest.mark.parametrize(
    ("cls", "newer", "read"),
    [
        (Finish, [len(FINISH_REASONS), 1, 2], Finish("stop", 1, 2)),
        (Failure, [len(FAILURES), "new", True], Failure("engine_failed", "new", True)),
        (
            Job,
            [*encode_record(SMALLEST)[:17], len(PRIORITIES)],
            Job("r", "chat", "m", priority="interactive"),
        ),
    ],
)
def test_a_word_of_a_later_version_reads_as_the_documented_one(
    cls: type[Any], newer: list[Any], read: Any
) -> None:
    """An answer is not lost because its ending has a name this version does not know."""
    assert decode_record(cls, newer) == read


def test_a_job_of_an_unknown_kind_is_refused() -> None:
    """What nobody here can answer must not be answered as something else."""
    assert refusal(decode_record, Job, ["r", len(JOB_KINDS), "m"]) == "range"


def test_tags_and_words_are_where_they_were() -> None:
    """Order is the wire: these may be appended to and never changed."""
    assert [cls.__name__ for cls in EVENTS.by_tag.values()][:6] == [
        "TextDelta",
        "ReasoningDelta",
        "ToolCallDelta",
        "Vector",
        "Finish",
        "Failure",
    ]
    assert list(EVENTS.by_tag) == list(range(1, len(EVENTS.by_tag) + 1))
    assert JOB_KINDS[:3] == ("chat", "completion", "embedding")
    assert PRIORITIES[:2] == ("interactive", "batch")
    assert FINISH_REASONS[:4] == ("stop", "length", "tool_calls", "content_filter")
    assert FAILURES[:13] == (
        "bad_request",
        "context_length_exceeded",
        "model_not_found",
        "unsupported",
        "overloaded",
        "insufficient_memory",
        "draining",
        "engine_failed",
        "unreachable",
        "timeout",
        "cancelled",
        "rate_limited",
        "unauthorized",
    )


def test_a_vector_always_fits_one_frame() -> None:
    """It is the only event that cannot be cut, so its own bound is below a frame's."""
    assert refusal(encode_record, Vector(0, bytes(VECTOR_MAX_BYTES))) == "accepted"
    assert refusal(encode_record, Vector(0, bytes(VECTOR_MAX_BYTES + 1))) == "length"


def test_a_token_costs_few_bytes() -> None:
    """A streamed token is its text, four bytes of id, and six of framing."""
    packed = codec.pack(EVENTS.encode(TextDelta(" Paris", (3_681,))))
    assert len(packed) == len(" Paris") + 4 + 6
