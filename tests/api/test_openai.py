"""Events to chat completions: golden cases, whole and streamed."""

import json

import pytest

from meshd.api.errors import ApiError
from meshd.api.openai import ChatAnswer, ChatStream
from meshd.api.writing import quote
from meshd.core.ports import Note
from meshd.engine.thoughts import ThinkReader
from meshd.engine.turn import Turn
from protocol.jobs import (
    Failure,
    Finish,
    Job,
    Queued,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Vector,
)
from tests.api.scripted import DONE, events

LOGPROB = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
IDENTITY = ("chatcmpl-1", 1_700_000_000, "tiny")
CALLS = [
    ToolCallDelta(0, "c1", "f", '{"a":'),
    ToolCallDelta(0, "", "", "1}"),
    ToolCallDelta(1, "c2", "g", "{}"),
]


def stream(*batches, include_usage=False, emulated=False):
    encoder = ChatStream(*IDENTITY, include_usage=include_usage, emulated=emulated)
    return events(b"".join([encoder.encode(batch) for batch in batches]))


def whole(*batches, logprobs=False, emulated=False):
    answer = ChatAnswer(*IDENTITY, logprobs=logprobs, emulated=emulated)
    for batch in batches:
        answer.add(batch)
    return json.loads(answer.body())


def chunk(delta, finish_reason=None, logprobs=None):
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "tiny",
        "choices": [
            {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        ],
    }


ROLE = chunk({"role": "assistant", "content": "", "refusal": None})
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 1},
}


def test_a_stream_word_by_word():
    """Role first and once, one chunk per text, one finish, the word DONE last."""
    assert stream([TextDelta("Hel")], [TextDelta("lo"), DONE]) == [
        ROLE,
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        "[DONE]",
    ]


def test_batches_do_not_show():
    """However events were grouped on their way, the client reads the same bytes; and nothing of
    those that say nothing."""
    flow = [TextDelta("a"), TextDelta(""), TextDelta("c"), ReasoningDelta("b"), *CALLS, DONE]
    assert stream(*[[event] for event in flow]) == stream(flow)
    assert chunk({"content": ""}) not in stream(flow)


def test_usage_comes_last_and_without_choices():
    """Every chunk before has the key too, as null."""
    *chunks, usage, done = stream([TextDelta("a"), DONE], include_usage=True)
    assert [part["usage"] for part in chunks] == [None] * 3
    assert (usage["choices"], usage["usage"], done) == ([], USAGE, "[DONE]")


def test_logprobs_ride_on_their_text():
    """The chat dialect has them as objects, with `refusal` beside."""
    _, text, *_ = stream([TextDelta("Hi", logprobs=[LOGPROB]), DONE])
    assert text == chunk({"content": "Hi"}, logprobs={"content": [LOGPROB], "refusal": None})


def test_reasoning_has_its_own_key():
    """DeepSeek's name, which every client reads."""
    assert stream([ReasoningDelta("hm"), DONE])[1] == chunk({"reasoning_content": "hm"})


def test_a_model_s_thoughts_come_as_reasoning():
    """From the tokens of a worker to the chunks of a stream: no mark is left in either text."""
    turn = Turn(1, Job("r", "chat", "tiny"), [1], 99, arrived=0.0, thoughts=ThinkReader())
    said = [b"<think>", b"\nhm", b"\n", b"</think>", b"\n\n", b"Paris", b""]
    batches = [
        turn.token(token, piece, is_end=not piece, now=1.0) for token, piece in enumerate(said)
    ]
    assert stream(*batches)[1:3] == [
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "Paris"}),
    ]
    message = whole(*batches)["choices"][0]["message"]
    assert message["reasoning_content"] == "hm"
    assert message["content"] == "Paris"


def test_a_tool_call_names_itself_in_its_first_piece_only():
    """SDKs concatenate what comes twice."""
    function = {"name": "f", "arguments": '{"a":'}
    pieces = [part["choices"][0]["delta"]["tool_calls"][0] for part in stream(CALLS)[1:]]
    assert pieces == [
        {"index": 0, "id": "c1", "type": "function", "function": function},
        {"index": 0, "function": {"arguments": "1}"}},
        {
            "index": 1,
            "id": "c2",
            "type": "function",
            "function": {"name": "g", "arguments": "{}"},
        },
    ]


def test_a_failure_after_the_first_byte_is_an_error_event():
    """Every SDK raises a chunk with `error`; DONE would say that all is well."""
    *_, last = stream([TextDelta("a")], [Failure("engine_failed", "gone", elsewhere=False)])
    assert last == {
        "error": {
            "message": "gone",
            "type": "server_error",
            "param": None,
            "code": "engine_failed",
        }
    }


@pytest.mark.parametrize("end", [DONE, Failure("timeout", "slow", elsewhere=False)])
def test_nothing_follows_the_end(end):
    """Exactly one finish, whatever an engine says after it."""
    encoder = ChatStream(*IDENTITY, include_usage=False, emulated=False)
    encoder.encode([TextDelta("a"), end])
    assert encoder.ended
    assert encoder.encode([TextDelta("b"), DONE]) == b""


def test_a_failure_in_front_is_nothing_but_the_error():
    """There is no role to announce."""
    assert set(stream([Failure("timeout", "slow", elsewhere=False)])[0]) == {"error"}


def test_events_of_other_kinds_are_passed_over():
    """A vector has no place in a chat."""
    assert stream([Vector(0, b""), DONE]) == [ROLE, chunk({}, "stop"), "[DONE]"]
    assert whole([Vector(0, b""), DONE])["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize("text", ['"', "\\", "\n\r\0", "é\u2028", "😀", "</script>"])
def test_any_text_survives(text):
    """Quotes, control characters and all of Unicode, in one line."""
    assert json.loads(quote(text)) == text
    assert b"\n" not in quote(text)


def test_half_a_surrogate_becomes_a_question_mark():
    """UTF-8 cannot carry it, and a stream must not break on it."""
    broken = "a\ud800"
    assert quote(broken) == b'"a?"'
    assert whole([TextDelta(broken), DONE])["choices"][0]["message"]["content"] == "a?"
    said = stream([TextDelta("b"), TextDelta(""), TextDelta(broken)])
    assert said == [ROLE, chunk({"content": "b"}), chunk({"content": "a?"})]
    entry = LOGPROB | {"token": broken, "top_logprobs": [{"token": broken}]}
    assert stream([TextDelta("a", logprobs=[entry])])[1]["choices"][0]["logprobs"]


def test_a_whole_answer():
    """All required keys, `logprobs` and `refusal` among them."""
    assert whole([TextDelta("Hel"), TextDelta("lo")], [DONE]) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_a_whole_answer_of_tool_calls():
    """Content is null then, and the pieces are put together."""
    choice = whole([*CALLS, Finish("tool_calls", 5, 2)])["choices"][0]
    calls = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert [call["function"]["arguments"] for call in calls] == ['{"a":1}', "{}"]
    assert [call["id"] for call in calls] == ["c1", "c2"]


def test_a_whole_answer_with_reasoning_and_logprobs():
    """Both stand beside the content."""
    answer = whole([ReasoningDelta("hm"), TextDelta("Hi", logprobs=[LOGPROB]), DONE], logprobs=True)
    choice = answer["choices"][0]
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["logprobs"] == {"content": [LOGPROB], "refusal": None}


def test_an_emulated_answer_says_so():
    """In the body too, where logs keep it."""
    assert whole([DONE], emulated=True)["system_fingerprint"] == "emulated"
    assert stream([DONE], emulated=True)[0]["system_fingerprint"] == "emulated"


def test_a_whole_answer_that_fails_is_an_error():
    """Nothing has been written yet, so it is a status."""
    with pytest.raises(ApiError, match="full") as caught:
        whole([TextDelta("a"), Failure("overloaded", "full", elsewhere=True)])
    assert caught.value.status == 503


def test_a_whole_answer_without_an_end_is_an_error():
    """Half an answer is not passed off as one."""
    with pytest.raises(ApiError, match="broke off") as caught:
        whole([TextDelta("a")])
    assert caught.value.status == 502


def test_an_endless_answer_is_cut_off():
    """A peer cannot fill this node's memory."""
    with pytest.raises(ApiError, match="longer than") as caught:
        whole(*[[TextDelta("x" * 2**20)]] * 17)
    assert caught.value.status == 502


def legacy_stream(*batches):
    encoder = ChatStream(*IDENTITY, is_legacy=True)
    return events(b"".join([encoder.encode(batch) for batch in batches]))


def test_where_one_call_is_wanted_one_is_told():
    """Engines do not all know `parallel_tool_calls`, and whoever forbids two reads the first."""
    encoder = ChatStream(*IDENTITY, is_parallel=False)
    told = events(encoder.encode([*CALLS, Finish("tool_calls", 5, 2)]))
    pieces = [event["choices"][0]["delta"].get("tool_calls") for event in told[1:-2]]
    assert [piece[0]["function"]["arguments"] for piece in pieces] == ['{"a":', "1}"]
    answer = ChatAnswer(*IDENTITY, is_parallel=False)
    answer.add([*CALLS, Finish("tool_calls", 5, 2)])
    assert [call["id"] for call in answer.choice()["message"]["tool_calls"]] == ["c1"]


def test_a_call_ends_in_a_call_and_has_a_name_of_its_own():
    """Also where its server said "stop" and gave no id: clients go by both."""
    nameless = [ToolCallDelta(0, "", "f", "{}"), ToolCallDelta(1, "", "g", "{}"), DONE]
    *told, last, _ = stream(nameless)
    calls = [event["choices"][0]["delta"]["tool_calls"][0] for event in told[1:]]
    answer = whole(nameless)["choices"][0]
    ids = ["call_chatcmpl-1_0", "call_chatcmpl-1_1"]
    assert [call["id"] for call in calls] == ids
    assert [call["id"] for call in answer["message"]["tool_calls"]] == ids
    assert last["choices"][0]["finish_reason"] == answer["finish_reason"] == "tool_calls"


def test_a_call_in_the_words_of_2023_streamed():
    """One call at most: that is all those words can say."""
    _, *pieces, finish, _ = legacy_stream([*CALLS, Finish("tool_calls", 5, 2)])
    assert [piece["choices"][0]["delta"] for piece in pieces] == [
        {"function_call": {"name": "f", "arguments": '{"a":'}},
        {"function_call": {"arguments": "1}"}},
    ]
    assert finish["choices"][0]["finish_reason"] == "function_call"


def test_a_call_in_the_words_of_2023_whole():
    """The same, in one piece."""
    answer = ChatAnswer(*IDENTITY, is_legacy=True)
    answer.add([*CALLS, Finish("tool_calls", 5, 2)])
    (choice,) = json.loads(answer.body())["choices"]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"


def test_what_is_no_answer_is_a_comment():
    """Before the role, and without one where nothing else comes."""
    encoder = ChatStream(*IDENTITY)
    assert encoder.encode([Queued(2, 3.14)]) == b": queued position=2 wait_s=3.1\n\n"
    assert encoder.encode([Note("continued on attic")]) == b": continued on attic\n\n"
    assert b'"role"' in encoder.encode([TextDelta("a")])
    assert encoder.heartbeat() == b": ping\n\n"


def test_a_failure_can_be_said_before_anything_else():
    """With no role in front: there is no answer."""
    encoder = ChatStream(*IDENTITY)
    (error,) = events(encoder.encode([Failure("overloaded", "full", elsewhere=True)]))
    assert error["error"]["code"] == "overloaded"
    assert encoder.ended


@pytest.mark.parametrize("said", [TextDelta("d"), ToolCallDelta(0, "c1", "", "d")])
def test_thoughts_are_counted_by_their_share(said):
    """Whole or streamed, also where a call is all that was said; without thoughts nothing is said
    of them."""
    flow = [ReasoningDelta("abc"), said, Finish("stop", 5, 8)]
    *_, streamed, _done = stream(flow, include_usage=True)
    answer = whole(flow)
    details = {"reasoning_tokens": 6}
    assert streamed["usage"]["completion_tokens_details"] == details
    assert answer["usage"]["completion_tokens_details"] == details
