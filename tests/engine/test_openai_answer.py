"""Claims of meshd.engine.openai_answer and openai_wire."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.openai_answer import PLAIN_MAX_BYTES, AnswerStream, PlainAnswer
from meshd.engine.openai_calls import CALLS_MAX
from meshd.engine.openai_failures import MESSAGE_MAX_CHARS
from meshd.engine.openai_wire import BYTES_PER_TOKEN, request_body, request_path
from protocol.jobs import Failure, Finish, Job, ReasoningDelta, Sampling, TextDelta, ToolCallDelta

CHAT = Job("r", "chat", "m", messages=({"role": "user", "content": "12345678"},), stream=True)


def sse(*chunks) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def delta(reason=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}


def stream(*pieces: bytes, job: Job = CHAT):
    """All events of a stream whose bytes arrive in `pieces`, one second apart, and then end."""
    reader = AnswerStream(job, began=0.0)
    events, now = [], 0.0
    for piece in (*pieces, b""):
        now += 1.0
        events += reader.take(piece, now)
        if reader.is_over:
            break
    return events


def plain(body: bytes):
    """All events of a plain body."""
    reader = PlainAnswer(CHAT, began=0.0)
    return [*reader.take(body, 1.0), *reader.take(b"", 2.0)]


def test_a_stream_becomes_text_and_one_finish():
    """Roles and empty deltas say nothing; usage and times are in the account."""
    events = stream(
        sse(delta(role="assistant", content=""), delta(content="Hel")),
        sse(delta(content="lo"), delta("stop", role="assistant")),
        sse({"choices": [], "usage": USAGE}) + DONE,
    )
    finish = Finish("stop", 9, 2, cached_tokens=4, prompt_s=1.0, generation_s=2.0)
    assert events == [TextDelta("Hel"), TextDelta("lo"), finish]


def test_the_logprobs_of_a_text_completion_become_those_of_a_chat():
    """Four lists, of which servers leave out the last two; what cannot be read is left out, and a
    prompt's first token has none."""
    lists = {"tokens": ["x", "a", "é"], "token_logprobs": [None, -1, -0.5], "text_offset": [0]}
    tops = [None, {"a": -1, "b": -2.0}, None]
    texts = [
        {"choices": [{"text": "aé", "logprobs": logprobs}]}
        for logprobs in (lists, {**lists, "top_logprobs": tops}, {"tokens": "a"}, None)
    ]
    first, second, *others = stream(sse(*texts, delta("stop")) + DONE)
    assert [(each["token"], each["logprob"]) for each in first.logprobs] == [("a", -1), ("é", -0.5)]
    assert first.logprobs[1]["bytes"] == [0xC3, 0xA9]
    assert [len(each["top_logprobs"]) for each in second.logprobs] == [2, 0]
    assert others[:2] == [TextDelta("aé")] * 2


def test_thinking_is_known_by_both_its_names():
    """vLLM says reasoning_content, others reasoning."""
    events = stream(sse(delta(reasoning_content="hm"), delta(reasoning="so"), delta("stop")) + DONE)
    assert events[:2] == [ReasoningDelta("hm"), ReasoningDelta("so")]


def test_tool_calls_pass_piece_by_piece():
    """The first piece carries id and name, the others arguments."""
    call = {"index": 1, "id": "c1", "function": {"name": "f", "arguments": ""}}
    more = {"index": 1, "function": {"arguments": "{}"}}
    events = stream(
        sse(delta(tool_calls=[call]), delta(tool_calls=[more]), delta("tool_calls")) + DONE
    )
    assert events[:2] == [ToolCallDelta(1, "c1", "f", ""), ToolCallDelta(1, "", "", "{}")]
    assert events[-1].reason == "tool_calls"


def test_logprobs_travel_with_their_text():
    """Only the list inside is kept."""
    chunk = delta(content="a")
    chunk["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -1.0}]}
    events = stream(sse(chunk, delta("stop")) + DONE)
    assert events[0].logprobs == [{"token": "a", "logprob": -1.0}]


def test_a_completion_stream_speaks_in_text():
    """The older format has no delta."""
    chunks = sse(
        {"choices": [{"text": "Par"}]}, {"choices": [{"text": "", "finish_reason": "length"}]}
    )
    events = stream(chunks + DONE)
    assert events[0] == TextDelta("Par")
    assert events[-1].reason == "length"


@pytest.mark.parametrize("index", [{}, {"index": 0}])
def test_calls_that_share_a_number_are_told_apart_by_their_ids(index):
    """Some servers give none, or all the same: two calls would melt into one."""
    first, second = ({**index, "id": f"c{n}", "function": {"name": f"f{n}"}} for n in (1, 2))
    more = {**index, "function": {"arguments": "{}"}}
    deltas = [delta(tool_calls=[call]) for call in (first, more, second, more)]
    *calls, _ = stream(sse(*deltas, delta("tool_calls")) + DONE)
    assert [(call.index, call.call_id, call.arguments) for call in calls] == [
        (0, "c1", ""), (0, "", "{}"), (1, "c2", ""), (1, "", "{}"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "text"), [('{"a":1}', '{"a":1}'), ({"a": 1}, '{"a":1}'), ({}, "{}"), (None, "")]
)
def test_a_calls_arguments_are_a_text(arguments, text):
    """Some servers give the object itself."""
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    choice = {"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    told, finish = plain(json.dumps({"choices": [choice]}).encode())
    assert told == ToolCallDelta(0, "c", "f", text)
    assert finish.completion_tokens == round(len(text) / BYTES_PER_TOKEN)


def test_a_call_that_waits_is_told_at_the_end():
    """However the stream says that it is over, and before it does."""
    late = delta(tool_calls=[{"index": 0, "id": "c", "function": {"arguments": "{}"}}])
    for end in (DONE, sse(delta("tool_calls"))):
        *told, finish = stream(sse(late) + end)
        assert told == [ToolCallDelta(0, "c", "", "{}")]
        assert isinstance(finish, Finish)


def test_calls_are_bounded():
    """Each takes memory until the answer is over, here and at the client."""
    function = {"name": "f", "arguments": "{}"}
    calls = [delta(tool_calls=[{"id": f"c{n}", "function": function}]) for n in range(1_025)]
    *told, failure = stream(sse(*calls))
    assert len(told) == CALLS_MAX
    assert "number 1024" in failure.message
    (failure,) = stream(sse(delta(tool_calls=[{"index": 2**40, "id": "c"}])))
    assert failure.code == "engine_failed"


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": "9", "completion_tokens": 2.0}, True),
        ({"prompt_tokens": [], "completion_tokens": {}}, False),
        ("none", False),
        ([1], False),
    ],
)
def test_an_odd_count_does_not_break_an_answer(usage, counted):
    """It comes when all has been said."""
    text, finish = stream(sse(delta(content="a"), delta("stop"), {"usage": usage}) + DONE)
    assert (text, finish.reason, finish.counted) == (TextDelta("a"), "stop", counted)
    if counted:
        assert (finish.prompt_tokens, finish.completion_tokens) == (9, 2)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 9, "completion_tokens": 2**64 - 1},
        {"prompt_tokens": 10**12, "completion_tokens": 2},
        {"prompt_tokens": -1, "completion_tokens": 2},
    ],
)
def test_a_count_that_cannot_be_is_not_believed(usage):
    """Nor would it fit into a message to a peer."""
    *_, finish = stream(sse(delta(content="x" * 36), delta("stop"), {"usage": usage}) + DONE)
    assert (finish.prompt_tokens, finish.completion_tokens, finish.counted) == (2, 10, False)


def test_no_more_of_a_prompt_is_cached_than_there_is():
    """Some servers count a cache of their own."""
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 10**9}}
    *_, finish = stream(sse(delta(content="a"), delta("stop"), {"usage": usage}) + DONE)
    assert finish.cached_tokens == finish.prompt_tokens == 9


def test_an_answer_nested_without_end_is_a_failure_like_any_other():
    """Whether Python's own stack ends while it is read, or while it is to be shown, or not at all:
    its guards are others in each version."""
    for depth in [*range(600, 1_000), 9_000, 100_000]:
        (failure,) = stream(b'data: {"error": ' + b"[" * depth + b"]" * depth + b"}\n\n")
        assert failure.code == "engine_failed"
        assert len(failure.message) < 2 * MESSAGE_MAX_CHARS


def test_without_usage_counts_are_estimated_and_say_so():
    """Nobody may take an estimate for a measurement."""
    for words in (1, 9):
        said = [delta(content="x" * (36 // words))] * words
        finish = stream(sse(*said, delta("stop")) + DONE)[-1]
        assert (finish.prompt_tokens, finish.completion_tokens, finish.counted) == (2, 10, False)


@pytest.mark.parametrize(("said", "ours"), [("END", "END"), ("other", ""), (2, ""), (None, "")])
def test_the_sequence_that_ended_it_is_told_where_the_server_tells_it(said, ours):
    """vLLM does, in a field of its own; only what the job named counts."""
    last = delta("stop")
    last["choices"][0]["stop_reason"] = said
    events = stream(sse(last) + DONE, job=replace(CHAT, stop=("END",)))
    assert events[-1].stop == ours


@pytest.mark.parametrize(
    ("reason", "ours"),
    [("eos", "stop"), ("function_call", "tool_calls"), ("max_tokens", "length"), ("stop", "stop")],
)
def test_foreign_finish_reasons_are_translated(reason, ours):
    """One vocabulary for everybody."""
    assert stream(sse(delta(reason)) + DONE)[-1].reason == ours


def test_a_finish_reason_is_enough_without_done():
    """Some servers just close the connection."""
    assert isinstance(stream(sse(delta(content="a"), delta("stop")))[-1], Finish)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([sse(delta(content="a"))], "ended its answer in the middle"),
        ([b""], "ended its answer in the middle"),
        ([sse(delta(content="a")) + b"data: {broken\n\n"], "broken stream"),
        ([b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'], "broken stream"),
        ([b'data: {"choices": "none"}\n\n'], "broken stream"),
        ([sse({"error": {"message": "out of memory"}})], "out of memory"),
        ([sse({"error": "plain words"})], "plain words"),
        ([sse(delta("abort"))], "broke its answer off"),
        ([sse({"object": "error", "message": "boom", "code": 400}) + DONE], "boom"),
        ([sse({"detail": "no engine"}) + DONE], "no engine"),
        ([DONE], "without saying a word"),
        ([sse(delta(content="a")) + b'error: {"code":500,"message":"boom"}\n\n' + DONE], "boom"),
        ([b'error: {"code":500,"message":"boom"}\r\n\r\n', DONE], "boom"),
        ([sse({"choices": [], "usage": USAGE}, delta(role="assistant")) + DONE], "without saying"),
    ],
)
def test_a_broken_stream_is_a_failure_that_others_may_repair(pieces, said):
    """It never looks like a short answer."""
    last = stream(*pieces)[-1]
    assert last.code == "engine_failed"
    assert last.elsewhere
    assert said in last.message


def test_a_context_overflow_in_a_stream_keeps_its_meaning():
    """Another machine of the same kind would say the same."""
    error = {"message": "too long", "code": "context_length_exceeded"}
    (failure,) = stream(sse({"error": error}))
    assert (failure.code, failure.elsewhere) == ("context_length_exceeded", False)


WHOLE = (
    b": ping\n\n"
    + sse(delta(role="assistant", content=None), delta(content="h\u00e9"), delta(content="llo"))
    + sse(delta("stop"), {"choices": [], "usage": USAGE})
    + DONE
)


@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=10, unique=True))
def test_any_cut_of_a_stream_gives_the_same_events(cuts):
    """Half a character or half a number at the end of a read is no event."""
    borders = [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[at:end] for at, end in itertools.pairwise(borders)]
    events = stream(*pieces)
    assert events[:-1] == [TextDelta("h\u00e9"), TextDelta("llo")]
    assert events[-1].completion_tokens == 2


def test_a_plain_answer_is_one_batch():
    """Text and account come together."""
    message = {"role": "assistant", "content": "hi", "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    events = plain(json.dumps({"choices": [choice], "usage": USAGE}).encode())
    assert events == [TextDelta("hi"), Finish("stop", 9, 2, cached_tokens=4, generation_s=2.0)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "broken answer"),
        (b"<html>", "broken answer"),
        (b'{"choices": [{"message": {"content": "a"}}]}', "no finish_reason"),
        (b'{"error": {"message": "boom"}}', "boom"),
        (b'{"object": "error", "message": "boom"}', "boom"),
        (b'{"object": "chat.completion"}', "no finish_reason"),
        (b"x" * (PLAIN_MAX_BYTES + 1), "exceeds"),
    ],
)
def test_a_broken_plain_answer_is_a_failure(body, said):
    """Whatever the server meant, it did not answer."""
    failure = plain(body)[0]
    assert (failure.code, failure.elsewhere) == ("engine_failed", True)
    assert said in failure.message


def test_a_request_holds_what_was_asked_and_nothing_else():
    """Fields that nobody gave are not invented; extras pass, but override nothing."""
    job = Job(
        "r",
        "chat",
        "alias",
        messages=({"role": "user", "content": "hi"},),
        max_tokens=5,
        stop=("x",),
        sampling=Sampling(temperature=0.0, seed=3, logit_bias=((5, -1.0),)),
        extras={"mirostat": 2, "model": "sneaky", "stream": True},
    )
    assert request_path(job) == "/chat/completions"
    assert json.loads(request_body(job, "real")) == {
        "mirostat": 2,
        "model": "real",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "stop": ["x"],
        "temperature": 0.0,
        "seed": 3,
        "logit_bias": {"5": -1.0},
    }


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("chat", {"logprobs": True, "top_logprobs": 2}), ("completion", {"logprobs": 2})],
)
def test_logprobs_are_asked_for_in_the_words_of_each_kind(kind, asked):
    """A text completion has one number where a chat has two fields."""
    body = json.loads(request_body(replace(CHAT, kind=kind, logprobs=True, top_logprobs=2), "m"))
    assert {name: body[name] for name in body if "logprobs" in name} == asked


def test_a_streamed_request_asks_for_usage():
    """Counts are wanted even when the client did not ask: the router learns from them."""
    body = json.loads(request_body(CHAT, "m"))
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("job", "prompt"),
    [
        (Job("r", "completion", "m", prompt="once"), "once"),
        (Job("r", "completion", "m", prompt_tokens=(1, 2)), [1, 2]),
    ],
)
def test_a_completion_is_posted_with_its_prompt(job, prompt):
    """Text or token ids."""
    assert request_path(job) == "/completions"
    assert json.loads(request_body(job, "m"))["prompt"] == prompt


def test_a_refusal_is_said():
    """OpenAI's own servers put it beside the text; the client read an empty answer."""
    events = stream(sse(delta(refusal="I "), delta(refusal="will not"), delta("stop")) + DONE)
    assert events[:2] == [TextDelta("I "), TextDelta("will not")]


def test_an_event_without_data_says_nothing():
    """Some proxies keep a stream alive with it; by the standard it is no event."""
    streamed = b"data:\n\n" + sse(delta(content="a")) + b"data: \n\n" + sse(delta("stop")) + DONE
    assert stream(streamed)[0] == TextDelta("a")


def test_an_answer_may_be_empty():
    """A model that has nothing to say ends at once; its server says that it did."""
    odd = b'data: {"timings": "\xff"}\n\n'
    for chunks in (sse(delta("stop")) + DONE, odd + sse(delta("length"), {"timings": {}})):
        (finish,) = stream(chunks)
        assert isinstance(finish, Finish)


def test_a_failure_is_never_followed_by_anything():
    """The first error ends the answer."""
    events = stream(sse({"error": "boom"}, delta(content="more"), delta("stop")) + DONE)
    assert [type(event) for event in events] == [Failure]
