"""What is read from headers, and what is written into them."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.headers import (
    answer_lines,
    api_key,
    priority_wish,
    safe,
    sane_request_id,
    session_hint,
)
from meshd.core.ports import AnswerHead


@pytest.mark.parametrize("value", ["req-1", "a" * 96, "0af7651916cd43dd-8448eb211c80319c:1/x@y"])
def test_a_sane_request_id_is_kept(value):
    """So that a client finds its request in our log."""
    assert sane_request_id(value) == value


@pytest.mark.parametrize("value", [None, "", "a" * 97, "a b", "é", 'a"b', "a\r\nx: y", "a\n"])
def test_any_other_request_id_is_not(value):
    """It goes into headers, logs and URLs."""
    assert sane_request_id(value) is None


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ({}, ""),
        ({"session-id": "s"}, "s"),
        ({"x-claude-code-session-id": "c"}, "c"),
        ({"x-session-affinity": "a", "session-id": ""}, "a"),
    ],
)
def test_agents_name_their_conversation_in_a_header(headers, hint):
    """Several names for one thing."""
    assert session_hint(headers) == hint


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer k1"}, "k1"),
        ({"authorization": "bearer  k1 "}, "k1"),
        ({"x-api-key": "k2"}, "k2"),
        ({"authorization": "Bearer k1", "x-api-key": "k2"}, "k1"),
        ({"authorization": "Basic abc"}, None),
        ({"authorization": "Bearer "}, None),
        ({}, None),
    ],
)
def test_a_key_comes_in_either_header(headers, key):
    """OpenAI's clients send the first, Anthropic's the second, Jan both."""
    assert api_key(headers) == key


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("attic, 2nd floor: #1", "attic, 2nd floor: #1"),
        ("Büro", "B%C3%BCro"),
        ("a\r\nset-cookie: b", "a%0D%0Aset-cookie: b"),
        ("100%é", "100%25%C3%A9"),
        ("\ud800", "?"),
    ],
)
def test_a_header_value_is_printable_ascii(value, written):
    """A model's name is the client's, a node's its owner's: neither can write headers."""
    assert safe(value) == written


def test_an_answer_says_who_gave_it_and_why():
    """One line each, in the names that people and tests rely on."""
    head = AnswerHead("r", "attic", "ab", "org/tiny:q4", 2, "fastest of 3", 120, 15)
    assert answer_lines(head).splitlines() == [
        "x-mesh-node: attic",
        "x-mesh-model: org/tiny:q4",
        "x-mesh-attempts: 2",
        "x-mesh-route-reason: fastest of 3",
        "x-mesh-load-age-ms: 120",
        "x-mesh-queue-ms: 15",
    ]


def test_an_emulated_answer_is_labelled():
    """Nobody takes numbers for a model."""
    head = AnswerHead("r", "attic", "ab", "tiny", 1, "only", 0, 0, emulated=True)
    assert answer_lines(head).endswith("x-mesh-emulated: true\r\n")


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ({}, "interactive"),
        ({"x-mesh-priority": "batch"}, "batch"),
        ({"x-mesh-priority": "interactive"}, "interactive"),
    ],
)
def test_a_request_may_say_that_it_can_wait(headers, wish):
    """Nobody has to."""
    assert priority_wish(headers) == wish


def test_an_unknown_wish_is_refused_with_those_there_are():
    """A misspelt `batch` would quietly stand in everybody's way."""
    with pytest.raises(ApiError, match="interactive or batch"):
        priority_wish({"x-mesh-priority": "Batch"})
