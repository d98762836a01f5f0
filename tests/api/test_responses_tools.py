"""Tools of the Responses dialect, as chat tools and back."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.responses_tools import ToolName, read_tools

F = {"type": "function", "name": "f", "parameters": {"type": "object"}}
PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "Edits.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
}
SPACE = {"type": "namespace", "name": "files", "description": "", "tools": [F]}
SEARCH = {"type": "web_search"}


def names(tools):
    return [tool["function"]["name"] for tool in tools.offered]


def test_a_function_is_one_level_deeper_in_chat():
    """And comes back with every key that the specification requires."""
    tools = read_tools([F | {"description": "d", "strict": True}], None)
    assert tools.offered == [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "d",
                "parameters": {"type": "object"},
                "strict": True,
            },
        }
    ]
    assert read_tools([{"type": "function", "name": "f"}], None).echo == [
        {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}
    ]
    assert tools.named("f") == ToolName("f")


@pytest.mark.parametrize(
    ("namespace", "joined"), [("files", "files__f"), ("mcp__files__", "mcp__files__f")]
)
def test_a_namespace_is_joined_to_the_name(namespace, joined):
    """And taken apart again when the model calls."""
    tools = read_tools([SPACE | {"name": namespace}], None)
    assert names(tools) == [joined]
    assert tools.named(joined) == ToolName("f", namespace)


def test_a_custom_tool_is_a_function_with_one_text():
    """Its grammar is told to the model, who cannot be held to it."""
    tools = read_tools([PATCH], None)
    function = tools.offered[0]["function"]
    assert function["parameters"]["required"] == ["input"]
    assert function["description"] == (
        "Edits.\n\nThe input must follow this lark grammar:\nstart: /x/"
    )
    assert tools.named("patch").is_custom


def test_a_custom_tool_with_a_regex():
    """The other syntax that there is."""
    form = {"type": "grammar", "syntax": "regex", "definition": "a+"}
    tools = read_tools([PATCH | {"format": form, "description": None}], None)
    assert tools.offered[0]["function"]["description"].startswith(
        "The input must follow this regex"
    )


def test_tools_that_nobody_here_runs_are_left_out():
    """And are no part of what the answer says was offered."""
    tools = read_tools([SEARCH, F, {"type": "local_shell"}], None)
    assert (names(tools), tools.left_out) == (["f"], ["tool web_search", "tool local_shell"])
    assert [tool["type"] for tool in tools.echo] == ["function"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        (
            {"type": "custom", "name": "patch"},
            {"type": "function", "function": {"name": "patch"}},
        ),
        (
            {"type": "function", "name": "f", "namespace": "files"},
            {"type": "function", "function": {"name": "files__f"}},
        ),
    ],
)
def test_a_choice_in_chats_words(choice, expected):
    """And repeated in the client's own."""
    tools = read_tools([F, PATCH, SPACE], choice)
    assert (tools.choice, tools.echo_choice) == (expected, choice)


def test_allowed_tools_narrow_what_is_offered():
    """What may not be called is not offered, and what cannot run is passed over."""
    allowed = [{"type": "function", "name": "f"}, {"type": "web_search"}]
    choice = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    tools = read_tools([F, PATCH, SEARCH], choice)
    assert (names(tools), tools.choice) == (["f"], "required")


def test_allowed_tools_may_allow_nothing():
    """With mode auto that is an answer without calls."""
    choice = {"type": "allowed_tools", "mode": "auto", "tools": []}
    tools = read_tools([F], choice)
    assert (tools.offered, tools.choice) == ([], None)


def test_a_choice_without_tools_is_none():
    """`auto` and `none` are what SDKs send by default."""
    assert read_tools([], "auto").choice is None


@pytest.mark.parametrize(
    ("listed", "choice", "param", "words"),
    [
        ([3], None, "tools[0]", "must be an object"),
        ([{}], None, "tools[0].type", "must be a string"),
        ([{"type": "function"}], None, "tools[0].name", "needs a name"),
        ([{"type": "namespace"}], None, "tools[0].name", "needs a name"),
        ([SPACE | {"tools": [3]}], None, "tools[0].tools[0]", "must be an object"),
        ([SPACE | {"name": "n" * 255}], None, "tools[0].tools[0]", "together"),
        ([F] * 1025, None, "tools", "at most 1024"),
        ([F], "maybe", "tool_choice", "auto, none, required"),
        ([F], 3, "tool_choice", "a string or an object"),
        ([], "required", "tool_choice", "'tools' is empty"),
        ([SEARCH], "required", "tool_choice", "only tool web_search"),
        ([SEARCH], {"type": "web_search"}, "tool_choice", "its maker's own servers"),
        ([F], {"type": "function", "name": "g"}, "tool_choice", "offers f"),
        ([F], {"type": "function"}, "tool_choice", "must look like"),
        ([F], {"type": "allowed_tools"}, "tool_choice", "needs 'mode'"),
        (
            [F],
            {"type": "allowed_tools", "mode": "auto", "tools": [3]},
            "tool_choice.tools[0]",
            "must be an object",
        ),
        (
            [SEARCH],
            {"type": "allowed_tools", "mode": "required", "tools": [SEARCH]},
            "tool_choice",
            "only tool web_search",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(listed, choice, param, words):
    """By name, with what is there instead."""
    with pytest.raises(ApiError) as raised:
        read_tools(listed, choice)
    assert raised.value.param == param
    assert words in raised.value.message
