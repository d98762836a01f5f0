"""Claims of meshd.engine.openai_mould."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine import openai_mould
from meshd.engine.openai_mould import BULK, LESSONS_MAX, Mould
from meshd.engine.openai_wire import Translation
from protocol.jobs import ReasoningDelta, TextDelta, ToolCallDelta

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def content(text, **more):
    return {"choices": [{"index": 0, "delta": {"content": text, **more}, "finish_reason": None}]}


def chunk(**choice):
    return {"id": "x", "choices": [{"index": 0, "logprobs": None, **choice}], "usage": None}


SERVERS = {
    "chat": lambda text: chunk(delta={"content": text}),
    "with a role": lambda text: chunk(delta={"role": "assistant", "content": text}),
    "completion": lambda text: chunk(text=text),
    "thinking": lambda text: chunk(delta={"content": None, "reasoning_content": text}),
    "thinking otherwise": lambda text: chunk(delta={"reasoning": text}),
}


def payload(body, *, compact=True) -> bytes:
    return json.dumps(body, separators=(",", ":") if compact else None).encode()


def read(payloads, mould=None):
    """The events of a stream, read with a mould or without."""
    translation, events, at = Translation(), [], 0
    while at < len(payloads):
        if mould is not None:
            at = mould.pour(payloads, at, events)
            if at == len(payloads):
                break
        known = len(events)
        translation.read(payloads[at], events)
        if mould is not None:
            mould.learn(payloads[at], events[known:])
        at += 1
    return events


@pytest.mark.parametrize("server", SERVERS)
@given(texts=st.lists(TEXTS, max_size=8), compact=st.booleans())
def test_with_a_mould_a_stream_says_the_same(server, texts, compact):
    """Whatever the words are, escapes and all."""
    payloads = [payload(SERVERS[server](text), compact=compact) for text in texts]
    assert read(payloads, Mould()) == read(payloads)


@pytest.mark.parametrize("server", SERVERS)
def test_after_the_first_word_only_words_are_read(server, monkeypatch):
    """The rest of a chunk is compared, not decoded."""
    words = [payload(SERVERS[server](f"word {n}")) for n in range(9)]
    mould, events = Mould(), []
    kind = ReasoningDelta if "thinking" in server else TextDelta
    mould.learn(words[0], [kind("word 0")])
    monkeypatch.setattr(openai_mould, "read_chunk", None)
    assert mould.pour(words, 1, events) == 9
    assert events == [kind(f"word {n}") for n in range(1, 9)]
    assert mould.poured_chars == 8 * len("word 1")


ODD = (b"", b'"', b'"b', b"b", b'"b" "c"', b'"b","c"', b'"b","role":"c"', b'"b"]', b'"\xff"', b"1")


@given(st.lists(st.sampled_from([b'"a"', b' "b"', *ODD]), max_size=BULK + 8), st.integers(0, 4))
def test_many_at_once_are_read_like_each_by_itself(middles, others):
    """Up to the first that does not fit, however what is odd in one could be made up for by
    another, and whatever the last chunks of the stream are."""
    mould, each, known, found = Mould(), Mould(), list[TextDelta](), list[TextDelta]()
    mould.learn(payload(content("a")), [TextDelta("a")])
    each.learn(payload(content("a")), [TextDelta("a")])
    before, behind = payload(content("a")).split(b'"a"')
    payloads = [before + middle + behind for middle in middles] + [b"[DONE]"] * others
    poured = [each.pour([alone], 0, known) for alone in payloads]
    fitting = [*poured, 0].index(0)
    assert mould.pour(payloads, 0, found) == fitting
    assert found == [TextDelta("a" if b"a" in word else "b") for word in middles[:fitting]]


CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("odd", "meant"),
    [
        (content("b", tool_calls=[CALL]), [TextDelta("b"), ToolCallDelta(0, "c", "f", "{}")]),
        (content("b", reasoning="hm"), [ReasoningDelta("hm"), TextDelta("b")]),
        (content(None), []),
        (content(""), []),
        ({"choices": []}, []),
    ],
)
def test_what_does_not_fit_is_read_as_a_whole(odd, meant):
    """Also where its beginning and its end do fit."""
    payloads = [payload(content("a")), payload(odd), payload(content("z"))]
    mould = Mould()
    assert read(payloads, mould) == [TextDelta("a"), *meant, TextDelta("z")]


def test_a_chunk_that_fits_around_something_broken_is_not_taken():
    """Between the two ends there must be one string, whole, and nothing beside it."""
    mould, events = Mould(), []
    mould.learn(payload(content("a")), [TextDelta("a")])
    before, behind = payload(content("a")).split(b'"a"')
    for middle in (b"", b'"', b'"b', b"b", b'"b" "c"', b'"b","role":"c"', b'"\xff"', b'"\\ud83d"'):
        assert mould.pour([before + middle + behind], 0, events) == 0
    assert mould.pour([before[:-1] + behind[1:]], 0, events) == 0
    assert mould.pour([before + b'"b"' + behind.replace(b"null", b'"no"')], 0, events) == 0
    assert events == []


@pytest.mark.parametrize(
    "body",
    [
        {**content("stop"), "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
        {"choices": [{"delta": {"content": "stop"}, "finish_reason": "stop"}]},
        {"choices": [{"delta": {"content": "stop"}, "logprobs": {"content": []}}]},
        {"choices": [{"text": "stop", "delta": {"content": "stop"}}]},
        {"object": "stop", **content("stop")},
        {"object": "stop", "choices": []},
    ],
)
def test_what_says_more_than_its_text_makes_no_mould(body):
    """Nor does a chunk in which the text is not the first that looks like it."""
    mould = Mould()
    mould.learn(payload(body), [TextDelta("stop")])
    again = payload(body).replace(b'"stop"', b'"more"', 1)
    assert mould.pour([again], 0, []) == 0


def test_a_server_that_changes_each_chunk_is_soon_read_as_a_whole(monkeypatch):
    """It would cost a second reading of each."""
    tried = []
    real = openai_mould.read_chunk
    monkeypatch.setattr(openai_mould, "read_chunk", lambda raw: tried.append(raw) or real(raw))
    payloads = [payload({"nonce": n, **content("a")}) for n in range(20)]
    assert len(read(payloads, Mould())) == 20
    assert len(tried) == LESSONS_MAX


def test_a_mould_that_was_of_use_may_be_replaced_as_often_as_needed():
    """A server that tells the time changes its chunks once a second."""
    payloads = [payload({"created": n // 3, **content("ab")}) for n in range(60)]
    mould = Mould()
    assert len(read(payloads, mould)) == 60
    assert mould.poured_chars == 2 * 40
