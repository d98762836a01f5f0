"""Which functions a model may call, as OpenAI's chat asks for it, in three generations.

Today's form is `tools` and `tool_choice`; `allowed_tools` narrows the list for one turn, which is
done here, so that every engine understands it: what may not be called is not offered. The oldest
form, `functions` and `function_call`, is the same thing under other names: it is brought into
today's, and `meshd.api.openai` prints the answer back in the old words.

Tools that only OpenAI's own servers can run (`custom` grammars, web search) are refused: a model
that is not told of them would answer as if nobody had asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.api.errors import ApiError, bad_type, bad_value, missing, unsupported
from meshd.api.fields import Fields, json_type
from protocol import limits
from protocol.frozen import frozen

TOOLS_MAX = 1_024
"""Tools of one request: agents with many servers behind them come to some hundreds."""

CHOICES = ("auto", "none", "required")


@frozen
class Toolbox:
    """What may be called in this turn."""

    tools: list[Any] | None = None
    choice: Any = None
    is_legacy: bool = False
    """Asked for as `functions`, to be answered as `function_call`."""


_EMPTY = Toolbox()


def read_tools(fields: Fields) -> Toolbox:
    """Tools and the choice among them. Raises ApiError (400)."""
    if _FIELDS.isdisjoint(fields.rest):
        return _EMPTY
    functions, call = fields.array("functions"), fields.take("function_call")
    tools = _checked(fields.array("tools"))
    choice = fields.take("tool_choice")
    is_parallel = fields.take("parallel_tool_calls")
    if is_parallel is not None:
        if type(is_parallel) is not bool:
            raise fields.wrong("parallel_tool_calls", "true or false", is_parallel)
        if tools:
            fields.rest["parallel_tool_calls"] = is_parallel
    if functions and not tools:
        fields.rest["parallel_tool_calls"] = False
        return _legacy(functions, call)
    return _chosen(tools, choice)


_FIELDS = frozenset({"functions", "function_call", "tools", "tool_choice", "parallel_tool_calls"})


def _checked(tools: list[Any] | None) -> list[Any]:
    if tools and len(tools) > TOOLS_MAX:
        raise bad_value("tools", f"'tools' has {len(tools)} entries; at most {TOOLS_MAX} fit.")
    for index, tool in enumerate(tools or ()):
        where = f"tools[{index}]"
        kind = tool.get("type", "function") if type(tool) is dict else "function"
        if type(kind) is str and kind != "function":
            raise unsupported(
                where,
                f"'{where}' is of type '{kind[:40]}', which only its maker's own servers can run. "
                "Offer it as a function, and run it where the call arrives.",
            )
        function = tool.get("function") if type(tool) is dict else None
        if type(function) is not dict or kind != "function":
            raise bad_type(
                where, f"'{where}' must be an object with 'type': \"function\" and 'function'."
            )
        _check_function(function, f"{where}.function")
    return tools or []


def _check_function(function: dict[str, Any], where: str) -> None:
    inner = Fields(function, where)
    if not inner.text("name", limits.TEXT_MAX_CHARS):
        raise inner.absent("name", "Every tool needs a name.")
    inner.text("description", limits.JOB_MAX_BYTES)
    inner.mapping("parameters")


def _chosen(tools: list[Any], choice: Any) -> Toolbox:
    if choice is None or (not tools and choice in ("auto", "none")):
        return Toolbox(tools or None)
    if type(choice) is str:
        if choice not in CHOICES:
            raise bad_value(
                "tool_choice",
                f"'tool_choice' is '{choice[:40]}'; it must be {', '.join(CHOICES)}, "
                "or an object that names a function.",
            )
        return Toolbox(_some(tools), choice)
    if type(choice) is not dict:
        raise bad_type(
            "tool_choice",
            f"'tool_choice' must be a string or an object, not {json_type(choice)}.",
        )
    if choice.get("type") == "allowed_tools":
        return _narrowed(tools, choice.get("allowed_tools"))
    name = _name_in(choice)
    if name is None:
        raise bad_value(
            "tool_choice",
            'A \'tool_choice\' object looks like {"type": "function", '
            '"function": {"name": "..."}}.',
        )
    _find(_some(tools), name, "tool_choice")
    return Toolbox(tools, {"type": "function", "function": {"name": name}})


def _narrowed(tools: list[Any], allowed: Any) -> Toolbox:
    """Only the allowed tools are offered; the mode says whether one must be called."""
    mode = allowed.get("mode") if type(allowed) is dict else None
    listed = allowed.get("tools") if type(allowed) is dict else None
    if mode not in ("auto", "required") or type(listed) is not list:
        raise bad_value(
            "tool_choice.allowed_tools",
            "'tool_choice.allowed_tools' must be an object with 'mode' (auto or required) and "
            "'tools', which names functions.",
        )
    names = [_name_in(entry) if type(entry) is dict else None for entry in listed]
    if None in names:
        raise bad_value(
            "tool_choice.allowed_tools.tools",
            "Each of 'tool_choice.allowed_tools.tools' looks like "
            '{"type": "function", "function": {"name": "..."}}.',
        )
    for name in names:
        _find(_some(tools), str(name), "tool_choice.allowed_tools.tools")
    kept = [tool for tool in tools if tool["function"]["name"] in names]
    return Toolbox(kept, mode) if kept else Toolbox()


def _legacy(functions: list[Any], call: Any) -> Toolbox:
    tools = []
    for index, function in enumerate(functions):
        where = f"functions[{index}]"
        if type(function) is not dict:
            raise bad_type(where, f"'{where}' must be an object, not {json_type(function)}.")
        _check_function(function, where)
        tools.append({"type": "function", "function": function})
    if call is None or call in ("auto", "none"):
        return Toolbox(tools, call, is_legacy=True)
    name = call.get("name") if type(call) is dict else None
    if type(name) is not str:
        raise bad_value(
            "function_call", "'function_call' must be auto, none, or an object with a 'name'."
        )
    _find(tools, name, "function_call")
    return Toolbox(tools, {"type": "function", "function": {"name": name}}, is_legacy=True)


def _name_in(choice: Mapping[str, Any]) -> str | None:
    function = choice.get("function")
    name = function.get("name") if type(function) is dict else None
    return name if type(name) is str else None


def _some(tools: list[Any]) -> list[Any]:
    if not tools:
        raise bad_value("tool_choice", "'tool_choice' asks for a tool, but 'tools' is empty.")
    return tools


def _find(tools: list[Any], name: str, param: str) -> None:
    names = [tool["function"]["name"] for tool in tools]
    if name not in names:
        raise _unknown(name, names, param)


def _unknown(name: str, names: list[str], param: str) -> ApiError:
    offered = ", ".join(names[:8])
    return missing(param, f"'{param}' names '{name[:100]}', which is not among: {offered[:400]}.")
