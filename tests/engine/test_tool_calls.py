"""Claims of meshd.engine.tool_calls."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.tool_calls import (
    CALL_ID_CHARS,
    HERMES,
    LLAMA3,
    MISTRAL,
    ToolReader,
    form_of,
    read_calls,
)
from protocol.jobs import TextDelta, ToolCallDelta

NAMES = ("weather", "time")

GOLDEN = [
    (HERMES, "Just text.", "Just text.", []),
    (
        HERMES,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>',
        "",
        [("weather", {"city": "Köln"})],
    ),
    (
        HERMES,
        (
            'Let me look.\n<tool_call>{"name": "time", "arguments": {}}</tool_call>\n'
            '<tool_call>{"name": "weather", "arguments": {"city": "a < b"}}</tool_call>\n'
        ),
        "Let me look.\n",
        [("time", {}), ("weather", {"city": "a < b"})],
    ),
    (
        HERMES,
        '<tool_call>{"name": "time", "arguments": {}}',
        "",
        [("time", {})],
    ),
    (
        HERMES,
        '<tool_call>{"name": "time", "arguments": {}}</tool_call> done',
        "done",
        [("time", {})],
    ),
    (HERMES, "<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", []),
    (
        HERMES,
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        [],
    ),
    (HERMES, "a <tool_cal b", "a <tool_cal b", []),
    (HERMES, "a <tool_", "a <tool_", []),
    (
        MISTRAL,
        (
            '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rom"}}, '
            '{"name": "time", "arguments": {}}]'
        ),
        "",
        [("weather", {"city": "Rom"}), ("time", {})],
    ),
    (
        MISTRAL,
        '[TOOL_CALLS]weather[ARGS]{"city": "Rom"}[TOOL_CALLS]time[ARGS]{}',
        "",
        [("weather", {"city": "Rom"}), ("time", {})],
    ),
    (
        MISTRAL,
        '[TOOL_CALLS]weather[CALL_ID]D681PevKs[ARGS]{"city": "Rom"}',
        "",
        [("weather", {"city": "Rom"})],
    ),
    (MISTRAL, "[1, 2] is a list", "[1, 2] is a list", []),
    (MISTRAL, "[TOOL_CALLS] no", "[TOOL_CALLS] no", []),
    (MISTRAL, "[TOOL_CALLS]time[ARGS]NaN", "[TOOL_CALLS]time[ARGS]NaN", []),
    (
        LLAMA3,
        '{"name": "weather", "parameters": {"city": "Oslo"}}',
        "",
        [("weather", {"city": "Oslo"})],
    ),
    (
        LLAMA3,
        (
            '<|python_tag|>{"name": "time", "parameters": {}}; '
            '{"name": "weather", "parameters": {"city": "x"}}'
        ),
        "",
        [("time", {}), ("weather", {"city": "x"})],
    ),
    (LLAMA3, '\n {"answer": 42}', '\n {"answer": 42}', []),
    (LLAMA3, "It is {late}.", "It is {late}.", []),
    (LLAMA3, " ", " ", []),
]


def read(form, parts, **options):
    """The text and the calls of an answer that comes in `parts`."""
    reader = ToolReader(form, NAMES, "r", **options)
    events = [event for part in parts for event in reader.feed(part)] + reader.finish()
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [call.index for call in calls] == list(range(reader.called))
    return text, [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize(("form", "answer", "text", "calls"), GOLDEN)
def test_each_family_writes_its_calls_in_its_own_way(form, answer, text, calls):
    """What the families write, and what only looks like it."""
    assert read(form, [answer]) == (text, calls)


@pytest.mark.parametrize("arguments", ['{"a": "\\ud83d"}', '"{\\"a\\": \\"\\ud83d\\"}"'])
def test_half_a_surrogate_pair_in_a_call_stays_escaped(arguments):
    """A small model's idea of an emoji: no text can carry it, and the event must leave."""
    reader = ToolReader(HERMES, NAMES, "r")
    (call,) = reader.feed(f'<tool_call>{{"name": "time", "arguments": {arguments}}}</tool_call>')
    assert call.arguments == '{"a": "\\ud83d"}'


@given(st.sampled_from(GOLDEN), st.data())
def test_an_answer_may_be_cut_anywhere(case, data):
    """Tokens end where they like."""
    form, answer, text, calls = case
    cuts = sorted(data.draw(st.sets(st.integers(0, len(answer)))))
    parts = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert read(form, parts) == (text, calls)


@given(st.sampled_from([HERMES, MISTRAL, LLAMA3]), st.text("<[{tol_ca}]>AL \n", max_size=60))
def test_nothing_that_a_model_said_is_lost(form, answer):
    """Text without a call is the same text, letter by letter."""
    assert read(form, list(answer)) == (answer, [])


def test_text_before_a_mark_does_not_wait():
    """A stream goes on while nothing looks like a call."""
    assert ToolReader(HERMES, NAMES, "r").feed("Hello") == [TextDelta("Hello")]


def test_a_forced_call_begins_inside():
    """Its mark is in the prompt; what is no call is text without that mark."""
    call = '{"name": "time", "arguments": {}}'
    assert read(HERMES, [call], is_forced=True) == ("", [("time", {})])
    assert read(HERMES, ["Sorry"], is_forced=True) == ("Sorry", [])


def test_call_ids_are_what_the_strictest_template_takes():
    """Nine letters and digits, different for each call, the same for the same answer."""
    answer = '<tool_call>{"name": "time"}</tool_call>' * 2
    first, second = ToolReader(HERMES, NAMES, "r").feed(answer)
    assert len({first.call_id, second.call_id}) == 2
    assert len(first.call_id) == CALL_ID_CHARS
    assert first.call_id.isalnum()
    assert ToolReader(HERMES, NAMES, "r").feed(answer)[0] == first


@pytest.mark.parametrize(
    "body", ["", "  ", "[]", "7", '"x"', '{"name": 7}', "[" * 5_000, "f[ARGS]x"]
)
def test_a_body_that_is_not_wholly_calls_has_none(body):
    """However broken."""
    assert read_calls(body) is None


def test_arguments_may_be_text_already():
    """Some models quote their JSON."""
    (call,) = read_calls('{"name": "f", "arguments": "{\\"a\\": 1}"}')
    assert call.arguments == '{"a": 1}'


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("return <tool_call></tool_call> tags", HERMES),
        ("[AVAILABLE_TOOLS] [TOOL_CALLS]", MISTRAL),
        ('<|start_header_id|> {"name": ..., "parameters": ...}', LLAMA3),
        ("<tool_call><function=f><parameter=x>", None),
        ("<tool_call>f<arg_key>x</arg_key>", None),
        ("<|im_start|>", None),
        ("", None),
    ],
)
def test_a_template_shows_its_form(template, form):
    """The marks that a model was trained with stand in its template."""
    assert form_of(template) is form
