"""What the wall itself decides."""

import pytest

from meshd.api.dialect import PREAMBLE, Opening, SseEncoder, notice
from meshd.core.ports import AnswerHead, Note
from protocol.jobs import Failure, Finish, Queued, TextDelta


@pytest.mark.parametrize(
    ("event", "comment"),
    [
        (Queued(2, 3.14159), b": queued position=2 wait_s=3.1\n\n"),
        (Note("continued on\nattic"), b": continued on attic\n\n"),
        (TextDelta("a"), b""),
        (Finish("stop", 1, 1), b""),
        (Failure("timeout", "x", elsewhere=True), b""),
    ],
)
def test_only_remarks_are_comments(event, comment):
    """Every encoder hands on what it does not know."""
    assert notice(event) == comment


def test_what_comes_before_an_answer_is_known():
    """No role is written for it."""
    assert frozenset({Failure, Note, Queued}) == PREAMBLE


def test_an_opening_has_whole_seconds_too():
    """As most dialects print them."""
    head = AnswerHead("r1", "attic", "ab", "tiny", 1, "only", 0, 0)
    assert Opening("r1", 1.9, head).created == 1


def test_a_heartbeat_is_a_comment():
    """Every client of server-sent events skips it."""
    assert SseEncoder().heartbeat() == b": ping\n\n"
