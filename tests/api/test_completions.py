"""Events to text completions: golden cases, whole and streamed."""

import json

import pytest

from meshd.api.choices import Part
from meshd.api.completions import COMPLETION, CompletionAnswer, CompletionStream
from meshd.api.dialect import Asker, Opening
from meshd.api.errors import ApiError
from meshd.api.prompts import read_completion
from meshd.core.ports import AnswerHead
from protocol.jobs import Failure, Queued, ReasoningDelta, TextDelta, Vector
from tests.api.scripted import DONE, events

IDENTITY = ("cmpl-1", 1_700_000_000, "tiny")
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 1},
}


def logprob(token):
    return {"token": token, "logprob": -1.0, "top_logprobs": [{"token": "x", "logprob": -2.0}]}


def stream(*batches, include_usage=False, emulated=False):
    encoder = CompletionStream(*IDENTITY, include_usage=include_usage, emulated=emulated)
    return events(b"".join([encoder.encode(batch) for batch in batches]))


def whole(*batches, logprobs=False, emulated=False):
    answer = CompletionAnswer(*IDENTITY, logprobs=logprobs, emulated=emulated)
    for batch in batches:
        answer.add(batch)
    return json.loads(answer.body())


def chunk(text, finish_reason=None, logprobs=None):
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "tiny",
        "choices": [
            {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
        ],
    }


def test_a_stream_word_by_word():
    """Text in the choice itself, one finish, DONE last."""
    assert stream([TextDelta("a"), TextDelta("")], [ReasoningDelta("b"), DONE]) == [
        chunk("a"),
        chunk("b"),
        chunk("", "stop"),
        "[DONE]",
    ]


def test_usage_comes_last_and_without_choices():
    """As in chat."""
    *chunks, usage, _ = stream([TextDelta("a"), DONE], include_usage=True)
    assert [part["usage"] for part in chunks] == [None, None]
    assert (usage["choices"], usage["usage"]) == ([], USAGE)


def test_a_failure_ends_the_stream_as_an_error():
    """Without DONE, and nothing after it."""
    failure = Failure("timeout", "slow", elsewhere=False)
    assert stream([TextDelta("a"), failure, TextDelta("b")])[1]["error"]["code"] == "timeout"


def test_logprobs_are_four_lists_whose_offsets_run_on():
    """The older API counts characters from the start of the answer."""
    first, second, *_ = stream(
        [TextDelta("ab", logprobs=[logprob("a"), logprob("b")])],
        [TextDelta("c", logprobs=[logprob("c")]), Vector(0, b""), DONE],
    )
    assert first["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-1.0, -1.0],
        "top_logprobs": [{"x": -2.0}, {"x": -2.0}],
        "text_offset": [0, 1],
    }
    assert second["choices"][0]["logprobs"]["text_offset"] == [2]


def test_a_whole_answer():
    """All required keys."""
    assert whole([TextDelta("a"), ReasoningDelta("b"), Vector(0, b"")], [DONE]) == {
        **chunk("ab", "stop"),
        "usage": USAGE,
    }


def test_a_whole_answer_with_logprobs():
    """The pieces' lists, put together."""
    answer = whole([TextDelta("a", logprobs=[logprob("a")]), DONE], logprobs=True)
    assert answer["choices"][0]["logprobs"]["tokens"] == ["a"]


def test_an_emulated_answer_says_so():
    """In the body too."""
    assert whole([DONE], emulated=True)["system_fingerprint"] == "emulated"
    assert stream([DONE], emulated=True)[0]["system_fingerprint"] == "emulated"


@pytest.mark.parametrize(
    "batch", [[TextDelta("a")], [Failure("engine_failed", "gone", elsewhere=False)]]
)
def test_an_answer_that_fails_or_never_ends_is_an_error(batch):
    """Half an answer is not passed off as one."""
    with pytest.raises(ApiError) as caught:
        whole(batch)
    assert caught.value.status == 502


def test_an_echo_comes_first():
    """Once, before the answer, whole or streamed."""
    encoder = CompletionStream(*IDENTITY, echo="Once")
    waiting = encoder.encode([Queued(1, 2.0)])
    first, *_ = events(encoder.encode([TextDelta(" upon"), DONE]))
    answer = CompletionAnswer(*IDENTITY, echo="Once")
    answer.add([TextDelta(" upon"), DONE])
    assert waiting == b": queued position=1 wait_s=2.0\n\n"
    assert first["choices"][0]["text"] == "Once"
    assert json.loads(answer.body())["choices"][0]["text"] == "Once upon"


def opening():
    head = AnswerHead("r1", "attic", "ab", "tiny", 1, "only", 0, 0)
    return Opening("r1", 1_700_000_000.9, head)


@pytest.mark.parametrize(("echo", "text"), [(True, "Once upon"), (False, " upon")])
def test_a_request_is_printed_as_it_was_asked(echo, text):
    """Id and time are the opening's."""
    asked = read_completion({"model": "m", "prompt": "Once", "echo": echo}, Asker("r1"))
    whole = COMPLETION.whole(asked, opening())
    whole.add([TextDelta(" upon"), DONE])
    answer = json.loads(whole.body())
    assert (answer["id"], answer["created"]) == ("cmpl-r1", 1_700_000_000)
    assert answer["choices"][0]["text"] == text


def test_prompts_are_printed_side_by_side():
    """Each with its number, and one last word for all."""
    body = {"model": "m", "prompt": ["a", "b"], "echo": True, "stream": True}
    asked = read_completion(body, Asker("r1"))
    encoder = COMPLETION.stream(asked, opening())
    data = encoder.encode([Part(1, [TextDelta("!"), DONE])]) + encoder.encode([Part(0, [DONE])])
    *chunks, done = events(data)
    choices = [piece["choices"][0] for piece in chunks]
    assert [(each["index"], each["text"]) for each in choices] == [
        (1, "b"),
        (1, "!"),
        (1, ""),
        (0, "a"),
        (0, ""),
    ]
    assert done == "[DONE]"
