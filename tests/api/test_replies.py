"""Heads, byte for byte."""

from meshd.api.errors import ApiError
from meshd.api.replies import HeadWriter, error_reply, json_reply


def test_a_head_byte_for_byte():
    """Status, date, the lines given, an empty line."""
    heads = HeadWriter()
    heads.tick(1_700_000_000.9)
    assert heads.head(200, "x: y\r\n") == (
        b"HTTP/1.1 200 OK\r\ndate: Tue, 14 Nov 2023 22:13:20 GMT\r\nx: y\r\n\r\n"
    )


def test_the_date_follows_the_clock():
    """Made anew once a second, and only then."""
    heads = HeadWriter()
    heads.tick(0.0)
    heads.tick(1.5)
    assert b"00:00:01 GMT" in heads.head(499, "")


def test_an_error_carries_its_headers():
    """Those of the error after those of the attempt, with the wish to close."""
    error = ApiError(405, "no", code="x", headers=(("allow", "GET"),), close=True)
    error.lines = "x-mesh-node: attic\r\n"
    reply = error_reply(error)
    assert (reply.status, reply.close) == (405, True)
    assert reply.lines == "x-mesh-node: attic\r\nallow: GET\r\n"


def test_an_error_takes_the_shape_of_its_dialect():
    """Status and body are the dialect's to choose."""
    error = ApiError(503, "full", code="overloaded")
    reply = error_reply(error, lambda error, name: (529, f"{name}: {error.message}".encode()), "r1")
    assert (reply.status, reply.body) == (529, b"r1: full")


def test_a_json_reply_is_compact():
    """No spaces: it is for programs."""
    assert json_reply({"a": [1, None]}).body == b'{"a":[1,null]}'
