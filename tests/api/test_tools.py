"""Which functions may be called, in all three generations of asking."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.fields import Fields
from meshd.api.tools import TOOLS_MAX, read_tools


def tool(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def named(name):
    return {"type": "function", "function": {"name": name}}


def allowed(mode, *names):
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def read(**fields):
    return read_tools(Fields(fields))


def test_nothing_is_nothing():
    """Empty tools, as LangChain and Ollama's clients send them, are no tools."""
    assert read().tools is None
    assert read(tools=[]).tools is None
    assert read(tools=[], tool_choice="none").choice is None


@pytest.mark.parametrize("choice", ["auto", "none", "required", named("f")])
def test_a_choice_is_passed_on(choice):
    """instructor's default mode names a function."""
    box = read(tools=[tool("f")], tool_choice=choice)
    assert (box.tools, box.choice) == ([tool("f")], choice)


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_what_is_not_allowed_is_not_offered(mode):
    """So engines that never heard of allowed tools keep to them."""
    box = read(tools=[tool("f"), tool("g")], tool_choice=allowed(mode, "g"))
    assert (box.tools, box.choice) == ([tool("g")], mode)


def test_functions_are_tools_by_their_older_name():
    """One call at most was all they could say."""
    fields = Fields({"functions": [{"name": "f"}], "function_call": {"name": "f"}})
    box = read_tools(fields)
    assert box.tools == [{"type": "function", "function": {"name": "f"}}]
    assert box.choice == named("f")
    assert box.is_legacy
    assert fields.rest == {"parallel_tool_calls": False}


@pytest.mark.parametrize("call", [None, "auto", "none"])
def test_a_function_call_may_be_left_to_the_model(call):
    """The words are the same as today's."""
    assert read(functions=[{"name": "f"}], function_call=call).choice == call


def test_one_call_at_a_time_is_passed_on_with_tools_only():
    """Without tools it means nothing, and clients send it all the same."""
    with_tools = Fields({"tools": [tool("f")], "parallel_tool_calls": False})
    without = Fields({"parallel_tool_calls": False})
    read_tools(with_tools)
    read_tools(without)
    assert (with_tools.rest, without.rest) == ({"parallel_tool_calls": False}, {})


BAD = [
    ({"tools": {}}, "tools", "an array"),
    ({"tools": ["f"]}, "tools[0]", "an object with 'type'"),
    ({"tools": [{"type": 5, "function": {}}]}, "tools[0]", "an object with 'type'"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "as a function"),
    ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0]", "as a function"),
    ({"tools": [tool("f")] * (TOOLS_MAX + 1)}, "tools", "1025 entries"),
    ({"tools": [{"function": {}}]}, "tools[0].function.name", "Every tool needs a name"),
    (
        {"tools": [{"function": {"name": "f", "parameters": "x"}}]},
        "tools[0].function.parameters",
        "an object",
    ),
    ({"tool_choice": "required"}, "tool_choice", "'tools' is empty"),
    ({"tool_choice": named("f")}, "tool_choice", "'tools' is empty"),
    ({"tools": [tool("f")], "tool_choice": "always"}, "tool_choice", "must be auto, none"),
    ({"tools": [tool("f")], "tool_choice": {"function": "f"}}, "tool_choice", "looks like"),
    ({"tools": [tool("f")], "tool_choice": 5}, "tool_choice", "a string or an object"),
    ({"tools": [tool("f")], "tool_choice": named("g")}, "tool_choice", "not among: f"),
    (
        {"tools": [tool("f")], "tool_choice": allowed("auto", "g")},
        "tool_choice.allowed_tools.tools",
        "not among: f",
    ),
    (
        {"tools": [tool("f")], "tool_choice": allowed("any", "f")},
        "tool_choice.allowed_tools",
        "'mode'",
    ),
    (
        {
            "tools": [tool("f")],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": ["f"]},
            },
        },
        "tool_choice.allowed_tools.tools",
        "looks like",
    ),
    ({"tools": [tool("f")], "parallel_tool_calls": 1}, "parallel_tool_calls", "true or false"),
    ({"functions": ["f"]}, "functions[0]", "an object"),
    ({"functions": [{}]}, "functions[0].name", "needs a name"),
    ({"functions": [{"name": "f"}], "function_call": 5}, "function_call", "a 'name'"),
    ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call", "not among"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD)
def test_a_bad_tool_is_refused_by_name(fields, param, words):
    """Before an engine fails on it in its own words."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert words in caught.value.message
