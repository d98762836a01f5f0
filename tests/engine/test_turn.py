"""Claims of meshd.engine.turn."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from meshd.engine.grammar import GrammarError
from meshd.engine.intake import open_turn
from meshd.engine.template import ChatTemplate
from meshd.engine.thoughts import HarmonyReader, ThinkReader
from meshd.engine.tool_calls import HERMES, ToolReader
from meshd.engine.turn import Turn, prepare
from protocol.jobs import Failure, Finish, Job, ReasoningDelta, Sampling, TextDelta


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
    assert bytes(prepare(job, Letters()).tokens) == text


@pytest.mark.parametrize(
    ("job", "code", "param"),
    [
        (replace(CHAT, tools=[{"type": "function"}]), "bad_request", "tools"),
        (replace(CHAT, tools=7), "bad_request", "tools"),
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


def test_a_fault_in_reading_a_job_costs_that_job():
    """The process goes on for everybody else, and the words say where to look."""

    class Broken(Letters):
        def tokenize(self, text):
            raise ZeroDivisionError(text)

    failure = open_turn(1, JOB, Broken(), 0.0)
    assert (failure.code, failure.elsewhere) == ("engine_failed", False)
    assert "ZeroDivisionError: abc" in failure.message


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
    made.constraint = SimpleNamespace(is_over=is_over, broken=lambda: None)
    events = made.token(125, b"}", is_end=False, now=4.0)
    assert made.is_over == is_over
    assert events[0] == TextDelta("}", (125,))


def test_an_answer_whose_form_cannot_be_kept_any_further_fails():
    """The library allows nothing but the end then: that is not an answer, half as it is."""
    made = turn()
    why = GrammarError("too many fields", "tools")
    made.constraint = SimpleNamespace(is_over=True, broken=lambda: why)
    (failure,) = made.token(0, b"", is_end=True, now=4.0)
    assert made.is_over
    assert (failure.code, failure.message, failure.param) == ("bad_request", str(why), "tools")


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


class Thinker(Letters):
    """The same; its prompts begin a thought, and the marks of thoughts are control tokens."""

    context_length = 100
    template = ChatTemplate("{{ messages[0].content }}:{{ '<think>\n' }}", lambda *_: None, {})
    marks = {1: b"<think>", 2: b"</think>", 3: b"<|im_end|>"}

    def piece(self, token: int) -> bytes:
        return b"" if token in self.marks else bytes([token])

    def marked_piece(self, token: int) -> bytes:
        return self.marks.get(token) or self.piece(token)


def opened(**changes) -> Turn:
    """The turn of a conversation with that model."""
    made = open_turn(1, replace(CHAT, **changes), Thinker(), now=1.0)
    assert isinstance(made, Turn)
    return made


def events_of(made: Turn, *tokens: int, **options):
    """What the turn makes of tokens, and of its end."""
    model = Thinker()
    told = [
        event
        for token in tokens
        for event in made.token(token, made.piece(token, model), is_end=False, now=2.0, **options)
    ]
    return [*told, *(() if made.is_over else made.token(0, b"", is_end=True, now=3.0))]


THOUGHT = (*b"hm", 2, *b"\n\n")


def test_a_thought_is_told_apart():
    """Its marks may be control tokens; others still stand for nothing, and all are counted."""
    *told, finish = events_of(opened(), *THOUGHT, *b"Hi", 3)
    assert told == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        TextDelta("H", (72,)),
        TextDelta("i", (105,)),
    ]
    assert (finish.reason, finish.completion_tokens) == ("stop", 9)


def test_an_answer_that_ends_inside_a_thought_has_no_text():
    """What could have been a mark is thought as well."""
    *told, finish = events_of(opened(max_tokens=4), *b"hm</")
    assert "".join(event.text for event in told if isinstance(event, ReasoningDelta)) == "hm</"
    assert len(told) == 3
    assert finish.reason == "length"


def test_an_answer_that_may_have_been_a_thought_is_shown_at_its_end():
    """With the tokens that it came from."""
    made = turn()
    made.thoughts = ThinkReader()
    assert events_of(made, *b" <")[0] == TextDelta(" <", (32, 60))


def test_a_stop_string_ends_the_answer_and_no_thought():
    """Nor the white space between the two."""
    *told, finish = events_of(opened(stop=("\n\n", "hm")), *THOUGHT, *b"A\n\n")
    assert told == [ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("A", (65,))]
    assert finish.stop == "\n\n"


def test_logprobs_are_those_of_the_answer():
    """One for each of its tokens."""
    made = opened()
    told = [
        event
        for token in (*THOUGHT, *b"Hi")
        for event in made.token(
            token, made.piece(token, Thinker()), is_end=False, now=2.0, logprob=token
        )
    ]
    assert told[2:] == [TextDelta("H", (72,), [72]), TextDelta("i", (105,), [105])]


def test_a_call_is_none_inside_a_thought():
    """A model may think about calling."""
    call = b'<tool_call>{"name": "f"}</tool_call>'
    made = opened()
    made.reader = ToolReader(HERMES, ["f"], "r")
    *told, finish = events_of(made, *call, 2, *b"\n", *call)
    assert "".join(event.text for event in told[:-1]) == call.decode()
    assert (told[-1].name, finish.reason) == ("f", "tool_calls")


def test_marks_without_a_thought_leave_with_the_text():
    """Then its ids are all that was said, and another machine goes on from there."""
    (text, more, _) = events_of(opened(), 2, *b"\nHi")
    assert (text, more) == (TextDelta("H", (2, 10, 72)), TextDelta("i", (105,)))
    made = opened(prefix_tokens=text.token_ids, prefix_text=text.text)
    assert bytes(made.prompt) == b"abc:<think>\n\x02\nH"
    assert events_of(made, *b"i<think>")[0] == more


def test_heads_of_channels_leave_with_the_text():
    """Of a model that says something in between."""
    made = turn()
    made.thoughts = HarmonyReader()
    told = []
    for token, piece in enumerate([b"a", b"<|end|>", b"<|start|>", b"x", b"<|message|>", b"b"]):
        told += made.token(token, piece, is_end=False, now=2.0)
    assert told == [TextDelta("a", (0,)), TextDelta("b", (1, 2, 3, 4, 5))]


@pytest.mark.parametrize(
    ("changes", "prompt"),
    [
        ({"prefix_text": "de"}, b"abc:de"),
        ({"messages": BEGUN.messages, "extras": BEGUN.extras}, b"abc:de"),
        ({"kind": "completion", "prompt": "abc<think>"}, b"abc<think>"),
        ({"prompt_tokens": (97, 58)}, b"a:"),
    ],
)
def test_a_text_that_is_gone_on_with_has_no_thoughts(changes, prompt):
    """Nor has a completion, or a prompt that nobody rendered: what is marked there is text."""
    made = opened(**changes)
    assert bytes(made.prompt) == prompt
    assert events_of(made, *b"<think>")[0] == TextDelta("<", (60,))


def test_a_thought_of_another_machine_stands_in_the_prompt():
    """What follows it is more of the thought, then the answer; or the answer alone."""
    made = opened(prefix_thought="hm")
    assert bytes(made.prompt) == b"abc:<think>\nhm"
    *told, _ = events_of(made, *b" so", 2, *b"\n\nHi")
    assert told == [
        ReasoningDelta(" s"),
        ReasoningDelta("o"),
        TextDelta("H", (72,)),
        TextDelta("i", (105,)),
    ]
    made = opened(prefix_thought="hm", prefix_text="de")
    assert bytes(made.prompt) == b"abc:<think>\nhm\n</think>\n\nde"
    assert events_of(made, *b"<think>")[0] == TextDelta("<", (60,))


CALLED = {"tools": [{"function": {"name": "f"}}], "tool_choice": "required"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"response_format": {"type": "json_object"}}, b"abc:"),
        (CALLED, b"abc:<tool_call>\n"),
        ({**CALLED, "messages": BEGUN.messages, "extras": BEGUN.extras}, b"abc:de"),
    ],
)
def test_a_given_form_leads_straight_to_the_answer(changes, text):
    """A thought that the prompt has begun would be the only place for it."""
    model = Thinker()
    source = f"{{% if tools %}}{{# <tool_call> #}}{{% endif %}}{Thinker.template.source}"
    model.template = ChatTemplate(source, lambda *_: None, {})
    prompt = prepare(replace(CHAT, **changes), model)
    assert bytes(prompt.tokens) == text
    assert not prompt.opens_thought


def test_a_call_may_be_marked_by_any_control_token():
    """So where calls are read, all of them stand for their names."""
    made = opened()
    made.reader = ToolReader(HERMES, ["f"], "r")
    assert [made.piece(token, Thinker()) for token in (1, 3, 97)] == [
        b"<think>",
        b"<|im_end|>",
        b"a",
    ]
