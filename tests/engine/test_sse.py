"""Claims of meshd.engine.sse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.sse import EVENT_MAX_BYTES, SseError, SseSplitter

STREAM = (
    b": keepalive 1/7\n\n"
    b'data: {"a": 1}\n\n'
    b"event: message\r\ndata: crlf\r\n\r\n"
    b"data:no space\n\n\n"
    b"id: 4\nretry: 10\ndata: two\ndata: lines\n\n"
    b"data:\n\n"
    b"data: [DONE]\n\n"
)
PAYLOADS = [b'{"a": 1}', b"crlf", b"no space", b"two\nlines", b"", b"[DONE]"]


def test_only_data_is_read():
    """Comments, names, ids, CRLF, several lines: as the standard has them."""
    assert SseSplitter().feed(STREAM) == PAYLOADS


@pytest.mark.parametrize("cut", range(12))
def test_a_byte_order_mark_costs_no_event(cut):
    """Servers on Windows write one, and the first word of the answer came behind it."""
    stream = b"\xef\xbb\xbfdata: a\n\ndata: b\n\n"
    splitter = SseSplitter()
    assert splitter.feed(stream[:cut]) + splitter.feed(stream[cut:]) == [b"a", b"b"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cut_of_the_bytes_gives_the_same_payloads(cuts):
    """Networks cut where they like."""
    splitter, found, last = SseSplitter(), [], 0
    for cut in [*sorted(cuts), len(STREAM)]:
        found += splitter.feed(STREAM[last:cut])
        last = cut
    assert found + splitter.finish() == PAYLOADS


LINES = st.lists(st.sampled_from([b"{}", b"data: ", b"data: x", b"", b"event: y"]), max_size=3)


@given(st.lists(LINES, max_size=6), st.lists(st.integers(0, 200), max_size=4))
def test_many_events_at_once_are_what_they_are_one_by_one(events, cuts):
    """Whether their payloads are of one line or of several, and whatever words are in them."""
    stream = b"".join(b"".join(b"data: %b\n" % line for line in event) + b"\n" for event in events)
    splitter, found, last = SseSplitter(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        found += splitter.feed(stream[last:cut])
        last = max(last, cut)
    assert found == [b"\n".join(event) for event in events if event]


def test_an_event_may_mix_its_line_ends():
    """Begun with CRLF, ended with LF, and cut in between."""
    splitter = SseSplitter()
    assert splitter.feed(b"data: a\r\n") == []
    assert splitter.feed(b"data: b\n\n") == [b"a\nb"]


@pytest.mark.parametrize("stream", [b"data: last", b"data: last\n", b"data: last\r\n"])
def test_an_event_without_its_last_empty_line_still_counts(stream):
    """Some servers close the connection in a hurry."""
    splitter = SseSplitter()
    assert splitter.feed(stream) + splitter.finish() == [b"last"]


@pytest.mark.parametrize("junk", [b"x" * (EVENT_MAX_BYTES + 1), b"data: x\r\n" * 70_000])
def test_an_endless_event_is_refused(junk):
    """Neither one line nor many may grow without bound."""
    splitter = SseSplitter()
    with pytest.raises(SseError, match="longer than"):
        splitter.feed(junk)
