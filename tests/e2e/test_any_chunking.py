"""However the network cuts an upstream's stream, a client reads the same bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.chat import read_chat
from meshd.api.dialect import Asker, Opening
from meshd.api.openai import CHAT as DIALECT
from meshd.core.ports import AnswerHead
from meshd.engine.openai_answer import AnswerStream
from protocol.jobs import Job
from tests.api.scripted import CHAT

JOB = Job("r1", "chat", "tiny", messages=tuple(CHAT["messages"]), stream=True)
OPENING = Opening("r1", 1_700_000_000.0, AnswerHead("r1", "attic", "ab", "tiny", 1, "only", 0, 0))
ASKED = read_chat(CHAT | {"stream": True, "stream_options": {"include_usage": True}}, Asker("r1"))


def chunk(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], **more}, ensure_ascii=False)}\n\n"


CALL = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
USAGE = {"prompt_tokens": 5, "completion_tokens": 9}

STREAMS = {
    "text with comments and umlauts": (
        ": keepalive 1/3\n\n"
        + chunk({"role": "assistant", "content": ""})
        + chunk({"role": "assistant", "content": "Grüße 😀"})
        + ": keepalive 2/3\n\n"
        + chunk({"content": ' "und" \\ Zeilen\n'})
        + chunk({}, "stop", usage=USAGE)
        + "data: [DONE]\n\n"
    ),
    "thoughts and calls": (
        chunk({"reasoning_content": "hm"})
        + chunk({"tool_calls": [CALL]})
        + chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]})
        + chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]})
        + chunk({}, "tool_calls")
        + "data: [DONE]\n\n"
    ),
    "carriage returns and no last word": (
        (chunk({"content": "a"}) + chunk({"content": "b"}, "length")).replace("\n", "\r\n")
    ),
    "an error in the middle": (
        chunk({"content": "a"}) + 'data: {"error": {"message": "out of memory"}}\n\n'
    ),
    "a stream that is cut off": chunk({"content": "a"}) + 'data: {"choices": [{"del',
}


def printed(pieces):
    """What a client reads when the upstream's bytes arrive in these pieces."""
    upstream = AnswerStream(JOB, 0.0)
    encoder = DIALECT.stream(ASKED, OPENING)
    data = b""
    for piece in (*pieces, b""):
        events = [] if upstream.is_over else upstream.take(piece, 1.0)
        data += encoder.encode(events) if events else b""
    return data


@pytest.mark.parametrize("name", STREAMS)
@given(data=st.data())
def test_any_chunking_gives_the_same_bytes(name, data):
    """Cut anywhere, in the middle of a character or of a line end, and into single bytes."""
    whole = STREAMS[name].encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = printed([whole])
    assert printed(pieces) == expected
    assert printed([bytes([byte]) for byte in whole]) == expected


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("text with comments and umlauts", b"data: [DONE]\n\n"),
        ("thoughts and calls", b"data: [DONE]\n\n"),
        ("carriage returns and no last word", b"data: [DONE]\n\n"),
        ("an error in the middle", b'"code":"engine_failed"}}\n\n'),
        ("a stream that is cut off", b'"code":"engine_failed"}}\n\n'),
    ],
)
def test_each_stream_has_its_proper_end(name, last):
    """So that the test above compares whole answers."""
    assert printed([STREAMS[name].encode()]).endswith(last)
