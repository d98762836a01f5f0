"""Claims of meshd.engine.http1."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.http1 import (
    BURST_BYTES,
    HEAD_MAX_BYTES,
    INTERIM_MAX,
    LINE_MAX_BYTES,
    HttpError,
    ResponseReader,
)

COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Thing:  a b \r\n\r\nhello"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKED = (
    CHUNKED_HEAD + b"3\r\nhel\r\n1;name=value\r\nl\r\nA\r\no, chunked\r\n0\r\nTrailer: x\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello until the end"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED


def read(stream: bytes, cuts=()) -> tuple[bytes, ResponseReader]:
    """The body of a whole stream that arrives in pieces."""
    reader, body, last = ResponseReader(), b"", 0
    for cut in [*sorted(cuts), len(stream)]:
        body += reader.feed(stream[last:cut])
        last = cut
    return body, reader


@pytest.mark.parametrize(
    ("stream", "body", "keep_alive"),
    [
        (COUNTED, b"hello", True),
        (CHUNKED, b"hello, chunked", True),
        (UNTIL_CLOSE, b"hello until the end", False),
        (CONTINUED, b"hello", True),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.1 200\r\nConnection: Close\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", True),
    ],
)
def test_every_way_to_end_a_body_is_known(stream, body, keep_alive):
    """A length, chunks, the end of the connection, or no body at all."""
    got, reader = read(stream)
    reader.close()
    assert (got, reader.is_whole, reader.keep_alive) == (body, True, keep_alive)


def test_headers_are_found_by_their_lower_case_names():
    """Values lose the blanks around them."""
    _, reader = read(COUNTED)
    assert reader.status == 200
    assert reader.headers[b"x-thing"] == b"a b"


@pytest.mark.parametrize("stream", [COUNTED, CHUNKED, UNTIL_CLOSE, CONTINUED])
@given(data=st.data())
def test_any_cut_of_the_bytes_gives_the_same_answer(stream, data):
    """Networks cut where they like."""
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10))
    assert read(stream, cuts)[0] == read(stream)[0]


TOKENS = [b"data: %d" % number * 20 + b"\n\n" for number in range(60)]


def chunked(*data: bytes) -> bytes:
    return CHUNKED_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in data)


@pytest.mark.parametrize("odd", [b"\r\n", b"\r\n\r\n", b"a\r\nb", b"7\r\n", b"\r", b"0\r\n\r\n"])
@given(place=st.integers(0, 59), data=st.data())
def test_a_burst_of_chunks_is_cut_as_if_they_came_one_by_one(odd, place, data):
    """Also where a chunk holds what looks like the end of a line, or of another chunk."""
    pieces = [*TOKENS[:place], odd, *TOKENS[place:]]
    stream = chunked(*TOKENS) + chunked(*pieces)[len(CHUNKED_HEAD) :] + b"0\r\n\r\n"
    cut = data.draw(st.integers(0, len(stream)))
    got, reader = read(stream, [cut])
    assert reader.is_whole
    assert got == b"".join([*TOKENS, *pieces])


@pytest.mark.parametrize("size", [b"", b"+1", b"0x1", b"1_", b" 1", b"2", b"g"])
def test_a_wrong_size_in_a_burst_is_refused(size):
    """However many right ones stand before it."""
    stream = chunked(*TOKENS) + size + b"\r\nx\r\n" + chunked(*TOKENS)[len(CHUNKED_HEAD) :]
    assert len(stream) > BURST_BYTES
    with pytest.raises(HttpError):
        read(stream)


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "status line"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "without a colon"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", "not a number"),
        (CHUNKED_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: GZIP\r\n\r\n"), "packed .gzip."),
        (b"x" * (HEAD_MAX_BYTES + 1), "headers are longer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_MAX + 1), "informational answers without end"),
        (CHUNKED_HEAD + b"zz\r\n", "without a size"),
        (CHUNKED_HEAD + b"0x3\r\nhel\r\n", "without a size"),
        (CHUNKED_HEAD + b"3\r\nhello\r\n", "longer than its size"),
        (CHUNKED_HEAD + b"1" * (LINE_MAX_BYTES + 1), "too long"),
        (CHUNKED_HEAD + b"0\r\n" + b"a: b\r\n" * 40, "too many trailers"),
    ],
)
def test_what_is_malformed_is_refused(stream, said):
    """A misread answer would poison the connection for the next request."""
    with pytest.raises(HttpError, match=said):
        read(stream)


@pytest.mark.parametrize("stream", [COUNTED, CHUNKED])
def test_what_follows_an_answer_ends_its_connection(stream):
    """The answer itself is whole, and the next one would not be found behind it."""
    body, reader = read(stream + b"\r\n")
    assert (body, reader.is_whole, reader.keep_alive) == (read(stream)[0], True, False)
    with pytest.raises(HttpError, match="bytes after the end"):
        reader.feed(b"more")


@pytest.mark.parametrize("stream", [b"", COUNTED[:-1], CHUNKED[:-2], CHUNKED[:60]])
def test_an_answer_that_ends_too_early_is_an_error(stream):
    """A server that dies is not a server that is done."""
    _, reader = read(stream)
    with pytest.raises(HttpError, match="in the middle"):
        reader.close()


@given(st.binary(max_size=300), st.sampled_from([b"", COUNTED[:30], CHUNKED[:55]]))
def test_any_bytes_are_an_answer_or_an_http_error(garbage, start):
    """Nothing else is ever raised."""
    with suppress(HttpError):
        read(start + garbage)[1].close()
