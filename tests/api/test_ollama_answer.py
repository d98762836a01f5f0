"""Events to Ollama's answers: golden cases, whole and streamed."""

import json

import pytest

from meshd.api.dialect import Opening
from meshd.api.errors import ApiError
from meshd.api.ollama_answer import (
    CHAT_WORDS,
    GENERATE_WORDS,
    NOTES_MAX,
    OllamaAnswer,
    OllamaStream,
    timestamp,
)
from meshd.core.ports import AnswerHead, Note
from protocol import limits
from protocol.jobs import Failure, Finish, Queued, ReasoningDelta, TextDelta, ToolCallDelta

CREATED_S = 1_700_000_000.25
IDENTITY = {"model": "tiny", "created_at": "2023-11-14T22:13:20.250000Z"}
DONE = Finish("stop", 5, 2, prompt_s=0.5, generation_s=1.0, queue_s=0.25)
ACCOUNT = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 1_750_000_000,
    "load_duration": 250_000_000,
    "prompt_eval_count": 5,
    "prompt_eval_duration": 500_000_000,
    "eval_count": 2,
    "eval_duration": 1_000_000_000,
}
CALLED = [
    ToolCallDelta(0, "c1", "now", '{"city":'),
    ToolCallDelta(1, "c2", "later", ""),
    ToolCallDelta(0, "", "", '"Ulm"}'),
]
CALLS = [
    {"id": "c1", "function": {"index": 0, "name": "now", "arguments": {"city": "Ulm"}}},
    {"id": "c2", "function": {"index": 1, "name": "later", "arguments": {}}},
]
LOGPROBS = [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]


def opening(*, emulated=False):
    head = AnswerHead("r", "attic", "ab" * 16, "tiny", 1, "only", 0, 0, emulated)
    return Opening("r", CREATED_S, head)


def stream(*batches, words=CHAT_WORDS, emulated=False):
    encoder = OllamaStream(opening(emulated=emulated), words)
    lines = b"".join([encoder.encode(batch) for batch in batches]).split(b"\n")
    assert lines.pop() == b""
    assert encoder.ended
    return [json.loads(line) for line in lines]


def whole(*batches, words=CHAT_WORDS, loads=False, emulated=False):
    answer = OllamaAnswer(opening(emulated=emulated), words, loads=loads)
    for batch in batches:
        answer.add(batch)
    return json.loads(answer.body())


def message(content="", **more):
    return {"message": {"role": "assistant", "content": content, **more}}


def test_a_chat_stream_word_by_word():
    """One object a line, the last one with the account; waiting in a queue shows nowhere."""
    batches = [Queued(1, 2.0)], [ReasoningDelta("hm")], [TextDelta("a"), TextDelta("")], [DONE]
    assert stream(*batches) == [
        IDENTITY | message(thinking="hm") | {"done": False},
        IDENTITY | message("a") | {"done": False},
        IDENTITY | message() | ACCOUNT,
    ]


def test_what_the_gateway_remarks_stands_in_the_last_object():
    """Lines of JSON have no comments, and a seam is not kept secret."""
    last = stream([TextDelta("a")], [Note("continued on attic")], [DONE])[-1]
    assert last["mesh_notes"] == ["continued on attic"]
    assert len(stream([Note("x")] * 99, [DONE])[-1]["mesh_notes"]) == NOTES_MAX


def test_a_generate_stream_word_by_word():
    """The words stand in the object itself."""
    batches = [ReasoningDelta("hm")], [TextDelta("a"), DONE]
    assert stream(*batches, words=GENERATE_WORDS) == [
        IDENTITY | {"response": "", "thinking": "hm", "done": False},
        IDENTITY | {"response": "a", "done": False},
        IDENTITY | {"response": ""} | ACCOUNT,
    ]


def test_whole_answers():
    """The same words in one object."""
    batches = [ReasoningDelta("h"), ReasoningDelta("m")], [TextDelta("a"), TextDelta("b")], [DONE]
    assert whole(*batches) == IDENTITY | message("ab", thinking="hm") | ACCOUNT
    assert whole(*batches, words=GENERATE_WORDS) == (
        IDENTITY | {"response": "ab", "thinking": "hm"} | ACCOUNT
    )


def test_tool_calls_are_put_together_whichever_way_their_pieces_come():
    """With arguments as objects, before the last object, whose reason is still `stop`."""
    end = Finish("tool_calls", 5, 2, prompt_s=0.5, generation_s=1.0, queue_s=0.25)
    assert stream(CALLED, [end]) == [
        IDENTITY | message(tool_calls=CALLS) | {"done": False},
        IDENTITY | message() | ACCOUNT,
    ]
    assert whole(CALLED, [end]) == IDENTITY | message(tool_calls=CALLS) | ACCOUNT


@pytest.mark.parametrize("arguments", ["{", "[1]", "1", "[" * 100_000, '"\ud800"'])
def test_a_call_that_cannot_be_read_is_an_error(arguments):
    """Never a call without its arguments."""
    call = ToolCallDelta(0, "c1", "now", arguments)
    (line,) = stream([call, DONE, TextDelta("late")])
    assert "called 'now' with arguments that are not a JSON object" in line["error"]
    with pytest.raises(ApiError) as caught:
        whole([call, DONE])
    assert caught.value.status == 502


def test_calls_without_end_are_an_error():
    """What is collected for one answer has a bound."""
    calls = [ToolCallDelta(0, "c1", "f", "x" * (limits.JOB_MAX_BYTES // 2))] * 3
    (line,) = stream(calls)
    assert "longer than" in line["error"]


def test_logprobs_stand_beside_the_words():
    """In each piece, and in one list of a whole answer."""
    piece = TextDelta("a", logprobs=LOGPROBS)
    assert stream([piece, DONE])[0] == IDENTITY | message("a") | {
        "logprobs": LOGPROBS,
        "done": False,
    }
    assert whole([piece, piece], [DONE])["logprobs"] == LOGPROBS * 2


def test_a_failure_ends_a_stream_as_a_line():
    """The official clients raise it; nothing follows."""
    failure = Failure("timeout", "slow", elsewhere=False)
    assert stream([TextDelta("a"), failure, TextDelta("b")])[1:] == [{"error": "slow"}]
    assert stream([failure]) == [{"error": "slow"}]


@pytest.mark.parametrize(
    "batch", [[TextDelta("a")], [Failure("engine_failed", "gone", elsewhere=False)]]
)
def test_an_answer_that_fails_or_never_ends_is_an_error(batch):
    """Half an answer is not passed off as one."""
    with pytest.raises(ApiError) as caught:
        whole(batch)
    assert caught.value.status == 502


def test_a_model_that_was_only_loaded_says_nothing():
    """Whatever the one token was."""
    assert whole([TextDelta("H"), DONE], loads=True) == IDENTITY | message() | {
        "done": True,
        "done_reason": "load",
    }


def test_an_emulated_answer_says_so():
    """In the last object."""
    assert whole([DONE], emulated=True)["emulated"] is True
    assert stream([DONE], emulated=True)[-1]["emulated"] is True


def test_nothing_is_written_into_silence():
    """A blank line would be no JSON to clients that read lines."""
    assert OllamaStream(opening(), CHAT_WORDS).heartbeat() == b""


def test_times_are_in_utc():
    """With a Z, as Go writes them."""
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(("reason", "said"), [("length", "length"), ("content_filter",) * 2])
def test_why_an_answer_ended(reason, said):
    """Passed on where Ollama has the same word, or none."""
    assert whole([Finish(reason, 1, 1)])["done_reason"] == said
