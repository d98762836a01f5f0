"""Chat turns: what is accepted, what becomes of it, and what is said about the rest."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.messages import ROLES, read_messages

OLD = {"developer", "function"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("role", [role for role in ROLES if role not in OLD])
def test_a_plain_turn_is_passed_on_untouched(role):
    """Not even copied."""
    turn = {"role": role, "content": "Hi", "cache_control": {"type": "x"}}
    assert read_messages([turn])[0] is turn


def test_developer_is_system_by_its_newer_name():
    """Local chat templates know only the older one; the caller's turn is not changed."""
    turn = {"role": "developer", "content": "Be brief"}
    assert read_messages([turn]) == ({"role": "system", "content": "Be brief"},)
    assert turn["role"] == "developer"


def test_parts_that_are_all_text_become_one_string():
    """Joined as llama.cpp and vLLM do."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read_messages([{"role": "user", "content": parts}])[0]["content"] == "a\nb"


def test_a_refusal_is_what_the_assistant_said():
    """Templates know no other way to be told."""
    parts = [{"type": "refusal", "refusal": "No"}]
    assert read_messages([{"role": "assistant", "content": parts}])[0]["content"] == "No"


def test_functions_of_2023_become_tools():
    """A call and its answer find each other by the function's name."""
    old = [
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "42"},
        {"role": "assistant", "content": "It is 42", "function_call": None},
    ]
    call = {"id": "call_f", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert read_messages(old) == (
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "call_f"},
        {"role": "assistant", "content": "It is 42"},
    )
    assert old[1]["role"] == "function"


@pytest.mark.parametrize(
    "part",
    [
        IMAGE,
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ],
)
def test_other_parts_are_kept(part):
    """A picture is never dropped here: whether the model sees is decided later."""
    parts = [{"type": "text", "text": "What is this?"}, part]
    assert read_messages([{"role": "user", "content": parts}])[0]["content"] == parts


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ],
)
def test_a_tool_loop_is_accepted(turn):
    """As SDKs replay it."""
    assert read_messages([turn]) == (turn,)


BAD = [
    (None, "messages", "is missing"),
    ("Hi", "messages", "must be an array, not a string"),
    ([], "messages", "is empty"),
    ([{"role": "user", "content": "x"}] * 4097, "messages", "4097 entries; at most 4096"),
    (["Hi"], "messages[0]", "must be an object, not a string"),
    ([{"content": "x"}], "messages[0].role", "is missing"),
    ([{"role": 5, "content": "x"}], "messages[0].role", "must be a string, not an integer"),
    ([{"role": "bot", "content": "x"}], "messages[0].role", "is 'bot'; it must be one of system"),
    ([{"role": "user"}], "messages[0].content", "A user message needs content"),
    ([{"role": "user", "content": None}], "messages[0].content", "needs content"),
    ([{"role": "user", "content": 5}], "messages[0].content", "not an integer"),
    ([{"role": "user", "content": ["x"]}], "messages[0].content[0]", "must be an object"),
    ([{"role": "user", "content": [{}]}], "messages[0].content[0].type", "must be one of text"),
    (
        [{"role": "user", "content": [{"type": ["text"]}]}],
        "messages[0].content[0].type",
        "must be one of text",
    ),
    (
        [{"role": "user", "content": [{"type": "text"}]}],
        "messages[0].content[0].text",
        "must be a string",
    ),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        "messages[0].content[0].image_url",
        "an object with 'url'",
    ),
    (
        [{"role": "user", "content": [{"type": "input_audio"}]}],
        "messages[0].content[0].input_audio",
        "'data' and 'format'",
    ),
    (
        [{"role": "user", "content": [{"type": "file", "file": {}}]}],
        "messages[0].content[0].file",
        "Put its text",
    ),
    (
        [{"role": "user", "content": [IMAGE | {"image_url": {"url": "https://x.org/a.png"}}]}],
        "messages[0].content[0].image_url.url",
        "never fetched",
    ),
    (
        [{"role": "user", "content": [IMAGE | {"image_url": {"url": "data:text/html;base64,"}}]}],
        "messages[0].content[0].image_url.url",
        "data:image/png;base64,",
    ),
    ([{"role": "function", "content": "x"}], "messages[0].name", "must name the function"),
    (
        [{"role": "assistant", "function_call": "f"}],
        "messages[0].function_call",
        "'name' and 'arguments'",
    ),
    (
        [{"role": "assistant", "function_call": {"name": "f"}}],
        "messages[0].tool_calls[0].function.arguments",
        "holds JSON",
    ),
    (
        [{"role": "user", "content": [{"type": "refusal"}]}],
        "messages[0].content[0].refusal",
        "a string",
    ),
    ([{"role": "assistant"}], "messages[0].content", "no tool_calls in its place"),
    ([{"role": "user", "content": "x", "name": 1}], "messages[0].name", "must be a string"),
    (
        [{"role": "assistant", "tool_calls": {"a": 1}}],
        "messages[0].tool_calls",
        "must be an array",
    ),
    ([{"role": "assistant", "tool_calls": ["x"]}], "messages[0].tool_calls[0]", "'function'"),
    (
        [{"role": "assistant", "tool_calls": [CALL | {"id": 1}]}],
        "messages[0].tool_calls[0].id",
        "must be a string",
    ),
    (
        [{"role": "assistant", "tool_calls": [{"function": {"arguments": ""}}]}],
        "messages[0].tool_calls[0].function.name",
        "must be a string",
    ),
    (
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}],
        "messages[0].tool_calls[0].function.arguments",
        "a string that holds JSON",
    ),
]


def test_a_call_without_arguments_has_an_empty_object():
    """Its server streamed an empty text for them; Ollama's refuses that as no JSON."""
    mute = CALL | {"function": {"name": "f", "arguments": ""}}
    turn = {"role": "assistant", "content": "", "tool_calls": [CALL, mute]}
    assert read_messages([turn])[0]["tool_calls"] == [CALL, CALL]
    assert mute["function"]["arguments"] == ""


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "tool", "tool_call_id": "c1", "content": None},
        {"role": "tool", "tool_call_id": "c1"},
        {"role": "tool", "tool_call_id": "c1", "content": []},
        {"role": "function", "name": "f", "content": None},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": []},
        {"role": "user", "content": []},
    ],
)
def test_a_turn_that_says_nothing_has_an_empty_text(turn):
    """Agents' histories have such turns and cannot be mended; Ollama's server takes no null."""
    assert read_messages([turn])[0]["content"] == ""


@pytest.mark.parametrize(("value", "param", "words"), BAD)
def test_a_bad_turn_is_refused_by_its_place(value, param, words):
    """`param` is a path a person can follow; the message says what belongs there."""
    with pytest.raises(ApiError) as caught:
        read_messages(value)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert words in caught.value.message
