"""Claims of meshd.engine.turn."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from meshd.engine.template import ChatTemplate
from meshd.engine.tool_calls import HERMES, ToolReader
from meshd.engine.turn import Turn, prepare
from protocol.jobs import Failure, Finish, Job, Sampling, TextDelta


class Letters:
    """A model whose tokens are the letters of ASCII."""

    vocabulary_size = 128
    context_length = 20
    template = ChatTemplate(None, lambda _template, turns: turns[-1][1].decode(), {})

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    continuation = tokenize


JOB = Job("r", "completion", "m", prompt="abc")
CHAT = Job("r", "chat", "m", messages=({"role": "user", "content": "abc"},))
BEGUN = replace(
    CHAT,
    messages=(*CHAT.messages, {"role": "assistant", "content": "de"}),
    extras={"continue_final_message": True},
)


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (JOB, b"abc"),
        (CHAT, b"abc"),
        (replace(JOB, prompt=None, prompt_tokens=(97, 98)), b"ab"),
        (replace(CHAT, prefix_text="de"), b"abcde"),
        (replace(CHAT, prefix_text="de", prefix_tokens=(120,)), b"abcx"),
        (BEGUN, b"abcde"),
        (replace(BEGUN, prefix_tokens=(120,)), b"abcdex"),
        (replace(BEGUN, extras={}), b"de"),
        (replace(CHAT, tools=[]), b"abc"),
        (replace(CHAT, tools=[{}], tool_choice="none"), b"abc"),
        (replace(CHAT, response_format={"type": "text"}), b"abc"),
    ],
)
def test_a_job_becomes_tokens(job, text):
    """Text, chat, ids, and what another machine already said."""
    assert bytes(prepare(job, Letters())) == text


@pytest.mark.parametrize(
    ("job", "code", "param"),
    [
        (replace(CHAT, tools=[{"type": "function"}]), "bad_request", "tools"),
        (replace(CHAT, top_logprobs=21), "bad_request", "top_logprobs"),
        (replace(JOB, prompt=""), "bad_request", "prompt"),
        (replace(JOB, prompt_tokens=(500,)), "bad_request", "prompt"),
        (replace(CHAT, sampling=Sampling(logit_bias=((-1.0, 1.0),))), "bad_request", "logit_bias"),
        (replace(CHAT, messages=()), "bad_request", "messages"),
        (replace(JOB, prompt="x" * 20), "context_length_exceeded", "prompt"),
    ],
)
def test_a_job_that_cannot_run_here_says_why(job, code, param):
    """Before it takes a slot."""
    failure = prepare(job, Letters())
    assert (failure.code, failure.param) == (code, param)
    assert not failure.elsewhere


def test_a_prompt_that_is_too_long_is_told_with_both_numbers():
    """The asker can do the arithmetic."""
    failure = prepare(replace(JOB, prompt="x" * 31), Letters())
    assert isinstance(failure, Failure)
    assert "31 tokens" in failure.message
    assert "20 tokens" in failure.message


def turn(**changes) -> Turn:
    made = Turn(1, replace(JOB, **changes), [1, 2, 3], 10, arrived=1.0, cached=2)
    made.placed = 2.0
    return made


def test_an_answer_ends_at_the_models_own_end():
    """The end token is counted and not shown."""
    made = turn()
    assert made.token(104, b"h", is_end=False, now=4.0) == [TextDelta("h", (104,))]
    assert made.token(0, b"", is_end=True, now=5.0) == [
        Finish("stop", 3, 2, cached_tokens=2, prompt_s=2.0, generation_s=1.0, queue_s=1.0)
    ]
    assert made.is_over


def test_an_answer_ends_at_max_tokens():
    """And says that it was cut."""
    (_, finish) = turn(max_tokens=1).token(104, b"h", is_end=False, now=4.0)
    assert finish.reason == "length"


def test_an_answer_ends_when_the_context_is_full():
    """Three tokens of prompt and seven of answer fill ten."""
    made = turn()
    for _ in range(6):
        made.token(104, b"h", is_end=False, now=4.0)
    assert not made.is_over
    assert made.token(104, b"h", is_end=False, now=4.0)[-1].reason == "length"


def test_an_answer_ends_at_a_stop_string():
    """What was held back on its account is dropped."""
    made = turn(stop=("hh",))
    assert made.token(104, b"h", is_end=False, now=4.0) == []
    (finish,) = made.token(104, b"h", is_end=False, now=4.0)
    assert (finish.reason, finish.completion_tokens) == ("stop", 2)


@pytest.mark.parametrize("is_over", [True, False])
def test_an_answer_ends_when_its_form_is_complete(is_over):
    """Nothing may follow a whole object, so no pass is spent on its end."""
    made = turn()
    made.constraint = SimpleNamespace(is_over=is_over)
    events = made.token(125, b"}", is_end=False, now=4.0)
    assert made.is_over == is_over
    assert events[0] == TextDelta("}", (125,))


def test_a_call_is_the_reason_of_the_end():
    """What is no text is not shown as text; ids are not shown where text may be taken away."""
    made = turn()
    made.reader = ToolReader(HERMES, ["f"], "r")
    shown = made.token(1, b'ok <tool_call>{"name": "f"}</tool_call>', is_end=False, now=4.0)
    finish = made.token(0, b"", is_end=True, now=5.0)[-1]
    assert shown[0] == TextDelta("ok ")
    assert (shown[1].name, finish.reason) == ("f", "tool_calls")


def test_logprobs_leave_with_their_tokens():
    """Half a character waits, and its entry with it."""
    made = turn()
    assert made.token(1, b"\xc3", is_end=False, now=4.0, logprob={"n": 1}) == []
    (delta,) = made.token(2, b"\xa4", is_end=False, now=4.0, logprob={"n": 2})
    assert delta == TextDelta("ä", (1, 2), [{"n": 1}, {"n": 2}])


def test_text_that_was_held_back_is_shown_at_the_end():
    """It was no stop string after all."""
    made = turn(stop=("hx",), max_tokens=1)
    (text, _) = made.token(104, b"h", is_end=False, now=4.0)
    assert text == TextDelta("h", (104,))
