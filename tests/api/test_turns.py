"""Pieces of turns, put together."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.turns import Turns, left_out, picture_part, text_of_file, text_part

PICTURE = picture_part("data:image/png;base64,AA==", "p")
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def said(turns):
    return [(turn["role"], turn["content"]) for turn in turns.messages("input")]


def test_system_texts_before_the_conversation_are_one_turn():
    """Many templates know one system turn, and only at the beginning."""
    turns = Turns("a")
    turns.system("b")
    turns.user([text_part("hi")])
    turns.system("c")
    assert said(turns) == [("system", "a\nb"), ("user", "hi"), ("system", "c")]


def test_pieces_of_one_side_run_together():
    """Two turns of one side in a row are refused by some templates."""
    turns = Turns()
    turns.user([text_part("a")])
    turns.user([text_part("b")])
    turns.assistant(thought="hm")
    turns.assistant("c")
    turns.assistant("d", calls=[CALL])
    assert turns.messages("input") == (
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "c\nd",
            "reasoning_content": "hm",
            "tool_calls": [CALL],
        },
    )


def test_an_assistant_that_says_nothing_is_no_turn():
    """A thought that cannot be read leaves nothing behind."""
    turns = Turns()
    turns.user([text_part("a")])
    turns.assistant()
    assert said(turns) == [("user", "a")]


def test_a_thought_alone_is_a_turn_with_empty_text():
    """Templates join contents; null would be printed as a word."""
    turns = Turns("s")
    turns.assistant(thought="hm")
    assert said(turns)[-1] == ("assistant", "")


def test_pictures_of_tools_follow_the_last_answer_of_their_row():
    """Chat has no pictures in a tool's turn, and answers of one round belong together."""
    turns = Turns()
    turns.assistant(calls=[CALL])
    turns.tool("c1", [text_part("seen"), PICTURE])
    turns.tool("c2", [text_part("too")])
    turns.user([text_part("well?")])
    assert said(turns)[1:] == [
        ("tool", "seen"),
        ("tool", "too"),
        ("user", [PICTURE, text_part("well?")]),
    ]


def test_pictures_of_the_last_answer_are_not_dropped():
    """Also where nobody says anything after it."""
    turns = Turns()
    turns.tool("c1", [PICTURE])
    assert said(turns) == [("tool", ""), ("user", [PICTURE])]


@pytest.mark.parametrize("url", ["https://example.org/a.png", "data:text/plain;base64,AA==", None])
def test_only_pictures_in_the_request_are_taken(url):
    """Nothing is fetched: data never leaves the house."""
    with pytest.raises(ApiError, match="send the picture itself") as raised:
        picture_part(url, "input[0].image_url")
    assert (raised.value.code, raised.value.param) == ("unsupported", "input[0].image_url")


def test_a_picture_keeps_its_detail():
    """Vision models use it."""
    assert picture_part("data:image/png;base64,AA==", "p", "low")["image_url"]["detail"] == "low"


def test_a_text_file_is_read():
    """Base64 of UTF-8."""
    assert text_of_file("text/markdown", "IyBow6k=", "p") == "# hé"


@pytest.mark.parametrize(
    ("media_type", "data", "code"),
    [
        ("application/pdf", "AA==", "unsupported"),
        ("text/plain", "?", "invalid_value"),
        ("text/plain", "/w==", "invalid_value"),
    ],
)
def test_a_file_that_is_no_text_is_refused(media_type, data, code):
    """Rather than given to a model as noise."""
    with pytest.raises(ApiError) as raised:
        text_of_file(media_type, data, "p")
    assert raised.value.code == code


def test_what_was_left_out_is_named_once():
    """In a header that is safe whatever the names are."""
    assert left_out([]) == ""
    assert left_out(["tool a", "tool a", "tool b\r\n"]) == (
        "x-mesh-left-out: tool a, tool b%0D%0A\r\n"
    )


@pytest.mark.parametrize(
    ("words", "calls", "is_begun"), [("It is", [], True), ("It is", [CALL], False), ("", [], False)]
)
def test_an_answer_has_begun_where_the_assistant_spoke_last(words, calls, is_begun):
    """And called nothing: calls wait for their answers."""
    turns = Turns()
    turns.user([text_part("a")])
    turns.assistant(words, calls=calls)
    assert turns.is_begun is is_begun


def test_a_conversation_that_says_nothing_is_refused():
    """A model would make something up."""
    with pytest.raises(ApiError, match="'input' says nothing"):
        Turns().messages("input")


def test_a_conversation_has_a_bound():
    """What the relay carries."""
    turns = Turns()
    for _ in range(4097):
        turns.tool("c", [])
    with pytest.raises(ApiError, match="at most 4096"):
        turns.messages("input")


def test_a_turn_that_ran_together_has_a_bound():
    """Nothing is accepted here that the relay would refuse."""
    turns = Turns()
    for _ in range(2):
        turns.user([PICTURE] * 8193)
    with pytest.raises(ApiError, match="out of bounds"):
        turns.messages("input")
