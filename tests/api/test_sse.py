"""Framing."""

from meshd.api.sse import comment, event, http_chunk


def test_an_event_is_one_line_and_an_empty_one():
    """As the standard has it."""
    assert event(b"{}") == b"data: {}\n\n"


def test_a_chunk_has_its_length_in_hexadecimal():
    """HTTP/1.1's chunked coding."""
    assert http_chunk(b"x" * 31) == b"1f\r\n" + b"x" * 31 + b"\r\n"


def test_a_comment_is_one_line_whatever_is_in_it():
    """A line break would end it, and the rest would be read as an event."""
    assert comment("a\r\n\r\ndata: {}\ud800") == b": a data: {}?\n\n"
