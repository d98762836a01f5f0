"""Claims of meshd.engine.script, seen through the emulated machine that plays it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from meshd.engine.emulated import EmulatedEngine
from meshd.engine.prose import OPENING
from meshd.engine.script import DIRECTION, Fault, fault_of
from meshd.engine.spec import EmulatedSpec
from protocol.jobs import Failure, Finish, Job, ReasoningDelta, TextDelta, ToolCallDelta

MACHINE = EmulatedSpec(name="attic", prompt_tps=1e9, generation_tps=1e9)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def asked(text, **changes) -> Job:
    """A question of one message."""
    return replace(
        Job("r", "chat", "emulated", messages=({"role": "user", "content": text},)), **changes
    )


async def played(job, spec=MACHINE):
    """All events of the answer."""
    return [event async for batch in EmulatedEngine(spec).generate(job) for event in batch]


def text_of(events) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(events) -> list[tuple[str, str]]:
    """Name and arguments of each call, put together as a client does it."""
    calls: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            call = calls.setdefault(event.index, [event.name, ""])
            call[1] += event.arguments
    return [(name, arguments) for name, arguments in calls.values()]


async def test_a_line_makes_a_call():
    """The arguments are passed on to the letter."""
    job = asked('What now?\n<<call weather {"city": "Ulm", "days": 2}>>', tools=[WEATHER])
    events = await played(job)
    assert calls_of(events) == [("weather", '{"city": "Ulm", "days": 2}')]
    assert events[-1].reason == "tool_calls"
    assert not text_of(events)


async def test_several_lines_make_parallel_calls():
    """Each with an index and an id of its own, and the name first."""
    job = asked('<<call weather {"city": "Ulm"}>>\n<<call clock>>', tools=[WEATHER, CLOCK])
    events = await played(job)
    assert calls_of(events) == [("weather", '{"city": "Ulm"}'), ("clock", "{}")]
    heads = [event for event in events if isinstance(event, ToolCallDelta) and event.name]
    assert [head.index for head in heads] == [0, 1]
    assert len({head.call_id for head in heads}) == 2


async def test_text_may_come_before_a_call():
    """As models do it that say what they are about to do."""
    events = await played(asked("<<say Let me see.>>\n<<call clock>>", tools=[CLOCK]))
    assert text_of(events) == "Let me see."
    assert calls_of(events) == [("clock", "{}")]


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": None},
        {"tools": [WEATHER]},
        {"tools": [CLOCK], "tool_choice": "none"},
        {"tools": [CLOCK], "messages": (
            {"role": "user", "content": "<<call clock>>"},
            {"role": "tool", "tool_call_id": "a", "content": "<<call clock>>"},
        )},
    ],
)  # fmt: skip
async def test_no_call_is_made_of_a_tool_that_may_not_be_called(changes):
    """Nor after its answer has come: a loop of calls ends."""
    events = await played(asked("<<call clock>>", **changes))
    assert not calls_of(events)
    assert text_of(events).startswith(OPENING)


@pytest.mark.parametrize(
    ("text", "choice", "called"),
    [
        ("hello", "required", [("weather", {"city": "emulated"})]),
        ("<<call clock>>", "required", [("clock", {})]),
        ("hello", {"type": "function", "function": {"name": "clock"}}, [("clock", {})]),
        ('<<call clock {"a": 1}>>\n<<call weather>>',
         {"type": "function", "function": {"name": "clock"}}, [("clock", {"a": 1})]),
    ],
)  # fmt: skip
async def test_a_forced_call_is_made(text, choice, called):
    """The first tool or the named one, with arguments that its schema lets through."""
    events = await played(asked(text, tools=[WEATHER, CLOCK], tool_choice=choice))
    assert [(name, json.loads(arguments)) for name, arguments in calls_of(events)] == called


async def test_thoughts_come_first():
    """As reasoning, then the answer."""
    events = await played(asked("<<think Hm, so so.>>\nHello"))
    thoughts = [event.text for event in events if isinstance(event, ReasoningDelta)]
    assert "".join(thoughts) == "Hm, so so."
    assert isinstance(events[0], ReasoningDelta)
    assert text_of(events).startswith(OPENING)


async def test_an_answer_that_is_carried_on_is_not_thought_over_again():
    """Its reader has seen the thoughts."""
    events = await played(asked("<<think Hm.>>\n<<say one two>>", prefix_text="one"))
    assert not any(isinstance(event, ReasoningDelta) for event in events)
    assert text_of(events) == " two"


@pytest.mark.parametrize("cut", [1, 3, 4, 12, 20])
async def test_a_thought_is_gone_on_with_where_it_was_cut(cut):
    """Inside a word too, and in the second of two; then the answer comes whole."""
    question = "<<think Hm, so so.>>\n<<think And so?>>\n<<say one two>>"
    whole = "Hm, so so.And so?"
    events = await played(asked(question, prefix_thought=whole[:cut]))
    thoughts = [event.text for event in events if isinstance(event, ReasoningDelta)]
    assert "".join(thoughts) == whole[cut:]
    assert text_of(events) == "one two"


async def test_an_answer_can_be_dictated():
    """To the letter, in a message or in a prompt, and cut by `max_tokens` like any other."""
    said = "naïve — 日本語  done"
    assert text_of(await played(asked(f"<<say {said}>>"))) == said
    prompt = replace(asked(""), kind="completion", messages=(), prompt=f"<<say {said}>>")
    assert text_of(await played(prompt)) == said
    events = await played(asked(f"<<say {said}>>", max_tokens=2))
    assert (text_of(events), events[-1].reason) == ("naïve —", "length")


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ({"type": "json_object"}, {"emulated": True}),
        ({"type": "json_schema", "json_schema": {"name": "w", "schema":
            WEATHER["function"]["parameters"]}}, {"city": "emulated"}),
    ],
)  # fmt: skip
async def test_a_form_is_kept(form, value):
    """JSON that the schema lets through, even from a machine that only acts."""
    events = await played(asked("weather?", response_format=form))
    assert json.loads(text_of(events)) == value
    assert events[-1].reason == "stop"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [CLOCK], "tool_choice": {"function": {"name": "gone"}}}, "tool_choice"),
        ({"tools": [{"function": {"name": "f", "parameters": {"type": "odd", "required": 1}}}],
          "tool_choice": "required"}, "tools"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": []}}}},
         "response_format"),
    ],
)  # fmt: skip
async def test_a_request_that_contradicts_itself_is_refused(changes, param):
    """As a bad request, with the field, and without costing a slot."""
    (failure,) = await played(asked("hello", **changes))
    assert isinstance(failure, Failure)
    assert (failure.code, failure.elsewhere, failure.param) == ("bad_request", False, param)


async def test_a_question_can_ask_for_a_fault():
    """On any machine, or on the one of that name alone."""
    for text in ("<<fault crash 3>>", "<<fault crash 3 attic>>"):
        events = await played(asked(text))
        assert text_of(events).split() == OPENING.split()[:3]
        assert events[-1].code == "engine_failed"
    assert isinstance((await played(asked("<<fault crash 3 cellar>>")))[-1], Finish)


@pytest.mark.parametrize("prefix", [{"prefix_text": "This"}, {"prefix_tokens": (1,)}])
def test_a_fault_spares_an_answer_that_is_carried_on(prefix):
    """Or it would strike every machine that takes over."""
    assert fault_of(asked("<<fault stall 1>>"), "") == Fault("stall", 1)
    assert fault_of(asked("<<fault stall 1>>", **prefix), "") is None


def test_an_unknown_fault_is_no_fault():
    """A misspelt one shows as an answer that comes through."""
    assert fault_of(asked("<<fault explode>>"), "") is None


def test_only_whole_lines_are_directions():
    """Text that speaks of them does nothing."""
    assert not DIRECTION.findall("say `<<say x>>` please\n<<shout x>>")


async def test_the_machine_can_be_told_to_misbehave_from_now_on(answer):
    """And to stop it."""
    engine = EmulatedEngine(MACHINE)
    engine.misbehave("crash", after_tokens=2, every=2)
    ends = [(await answer(engine, asked("hi")))[1][-1] for _ in range(4)]
    assert [isinstance(end, Failure) for end in ends] == [False, True, False, True]
    engine.misbehave("")
    assert isinstance((await answer(engine, asked("hi")))[1][-1], Finish)
