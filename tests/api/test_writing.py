"""JSON that is always UTF-8, and a bound on memory."""

import json

import pytest

from meshd.api.errors import ApiError
from meshd.api.writing import AnswerRoom, encode, quote
from protocol import limits


@pytest.mark.parametrize("text", ['"', "\\", "\n\r\0", "é\u2028", "😀", "</script>"])
def test_any_text_survives(text):
    """Quotes, control characters and all of Unicode, in one line."""
    assert json.loads(quote(text)) == json.loads(encode({"a": text}))["a"] == text
    assert b"\n" not in quote(text)


def test_half_a_surrogate_becomes_a_question_mark():
    """In text, in keys, and however deep."""
    broken = "a\ud800"
    assert quote(broken) == b'"a?"'
    assert encode({broken: [{"b": broken}, 1]}) == b'{"a?":[{"b":"a?"},1]}'


def test_an_answer_has_room_up_to_its_bound():
    """One character more is an error that says what to do."""
    room = AnswerRoom()
    room.take(limits.JOB_MAX_BYTES)
    with pytest.raises(ApiError, match="Set 'max_tokens', or stream it"):
        room.take(1)
