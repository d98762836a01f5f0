"""The tools of a Responses request, as chat tools, and the way back to their own names.

Agents that speak this dialect offer more than functions, and chat models know only functions:

    function      the same, one level flatter
    namespace     a group of functions (an MCP server's, say): each is offered under a joined name,
                  and a call comes back with `name` and `namespace` apart
    custom        takes one free text instead of JSON: offered as a function with one string,
                  `input`; its grammar goes into the description; the call comes back as text
    all others    run on OpenAI's servers (web_search, file_search ...) or are trained into OpenAI's
                  models (local_shell, computer ...): nobody here can, so they are not offered, and
                  a header says which (`meshd.api.turns.left_out`); forcing one is an error

A tool is left out rather than refused because Codex sends `web_search` with every request and
works without it; the model never hears of what it cannot use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshd.api.errors import ApiError, bad_type, bad_value
from meshd.api.fields import Fields, json_type
from meshd.api.tools import TOOLS_MAX
from protocol import limits
from protocol.frozen import frozen

CHOICES = ("auto", "none", "required")

INPUT = "input"
"""The one argument of a custom tool."""


@frozen
class ToolName:
    """What a chat tool is called in this dialect."""

    name: str
    namespace: str = ""
    is_custom: bool = False


@dataclass(slots=True)
class Tools:
    """What may be called, in both languages."""

    offered: list[dict[str, Any]] = field(default_factory=list)
    """Chat tools."""
    choice: Any = None
    """Chat's tool_choice."""
    names: dict[str, ToolName] = field(default_factory=dict)
    """By the chat name; a plain function of the same name is left out."""
    left_out: list[str] = field(default_factory=list)
    echo: list[Any] = field(default_factory=list)
    """The tools that were offered, as the answer repeats them."""
    echo_choice: Any = "auto"

    def named(self, chat_name: str) -> ToolName:
        """The tool a model has called."""
        return self.names.get(chat_name) or ToolName(chat_name)


def read_tools(listed: list[Any], choice: Any) -> Tools:
    """Tools and the choice among them. Raises ApiError (400)."""
    tools = Tools()
    for index, tool in enumerate(listed):
        where = f"tools[{index}]"
        if type(tool) is not dict:
            raise bad_type(where, f"'{where}' must be an object, not {json_type(tool)}.")
        _add(tools, tool, where)
    if len(tools.offered) > TOOLS_MAX:
        raise bad_value(
            "tools", f"'tools' offers {len(tools.offered)} tools; at most {TOOLS_MAX} are allowed."
        )
    if choice is not None:
        tools.echo_choice = choice
        _choose(tools, choice)
    return tools


def chat_name(name: str, namespace: str) -> str:
    """The joined name of a function in a namespace; MCP's namespaces end in `__` already."""
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def _add(tools: Tools, tool: Mapping[str, Any], where: str) -> None:
    kind = tool.get("type")
    if kind == "namespace":
        _add_namespace(tools, tool, where)
    elif kind in ("function", "custom"):
        _offer(tools, tool, "", where)
        tools.echo.append(_echo(tool) if kind == "function" else dict(tool))
    elif type(kind) is str:
        tools.left_out.append(f"tool {kind[:60]}")
    else:
        raise bad_type(f"{where}.type", f"'{where}.type' must be a string, such as function.")


def _add_namespace(tools: Tools, tool: Mapping[str, Any], where: str) -> None:
    fields = Fields(tool, where)
    namespace = fields.text("name", limits.TEXT_MAX_CHARS)
    if not namespace:
        raise fields.absent("name", "Every namespace needs a name.")
    for index, inner in enumerate(fields.array("tools") or ()):
        here = f"{where}.tools[{index}]"
        if type(inner) is not dict:
            raise bad_type(here, f"'{here}' must be an object, not {json_type(inner)}.")
        _offer(tools, inner, namespace, here)
    tools.echo.append(dict(tool))


def _offer(tools: Tools, tool: Mapping[str, Any], namespace: str, where: str) -> None:
    fields = Fields(tool, where)
    name = fields.text("name", limits.TEXT_MAX_CHARS)
    if not name:
        raise fields.absent("name", "Every tool needs a name.")
    description = fields.text("description", limits.JOB_MAX_BYTES)
    is_custom = tool.get("type") == "custom"
    if is_custom:
        parameters: Any = _FREE_TEXT
        description = f"{description or ''}{_grammar(fields)}".strip()
    else:
        parameters = fields.mapping("parameters")
    function: dict[str, Any] = {"name": chat_name(name, namespace)}
    if len(function["name"]) > limits.TEXT_MAX_CHARS:
        raise bad_value(
            where,
            f"'{where}': name and namespace have {len(function['name'])} characters together; "
            f"at most {limits.TEXT_MAX_CHARS} are allowed.",
        )
    if description:
        function["description"] = description
    if parameters is not None:
        function["parameters"] = parameters
    if not is_custom and type(tool.get("strict")) is bool:
        function["strict"] = tool["strict"]
    tools.offered.append({"type": "function", "function": function})
    if namespace or is_custom:
        tools.names[function["name"]] = ToolName(name, namespace, is_custom)


def _grammar(fields: Fields) -> str:
    """What a custom tool's input has to look like, for the model to read."""
    form = fields.mapping("format") or {}
    definition = form.get("definition")
    if form.get("type") != "grammar" or type(definition) is not str:
        return ""
    syntax = "regex" if form.get("syntax") == "regex" else "lark"
    return f"\n\nThe input must follow this {syntax} grammar:\n{definition}"


def _echo(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function with every key that the specification asks for."""
    return {"description": None, "parameters": None, "strict": None, **tool}


def _choose(tools: Tools, choice: Any) -> None:
    if type(choice) is str:
        if choice not in CHOICES:
            raise bad_value(
                "tool_choice",
                f"'tool_choice' is '{choice[:40]}'; it must be {', '.join(CHOICES)}, "
                "or an object that names a tool.",
            )
        if choice == "required" and not tools.offered:
            raise _nothing(tools)
        tools.choice = choice if tools.offered else None
    elif type(choice) is not dict:
        raise bad_type(
            "tool_choice", f"'tool_choice' must be a string or an object, not {json_type(choice)}."
        )
    elif choice.get("type") == "allowed_tools":
        _narrow(tools, choice)
    else:
        function = {"name": _find(tools, choice, "tool_choice")}
        tools.choice = {"type": "function", "function": function}


def _narrow(tools: Tools, choice: Mapping[str, Any]) -> None:
    """Only the allowed tools are offered; the mode says whether one must be called."""
    mode, allowed = choice.get("mode"), choice.get("tools")
    if mode not in ("auto", "required") or type(allowed) is not list:
        raise bad_value(
            "tool_choice",
            "'tool_choice' of type allowed_tools needs 'mode' (auto or required) and 'tools'.",
        )
    names = set(_found(tools, allowed))
    tools.offered = [tool for tool in tools.offered if tool["function"]["name"] in names]
    if mode == "required" and not tools.offered:
        raise _nothing(tools)
    tools.choice = mode if tools.offered else None


def _found(tools: Tools, allowed: list[Any]) -> Iterator[str]:
    for index, entry in enumerate(allowed):
        where = f"tool_choice.tools[{index}]"
        if type(entry) is not dict:
            raise bad_type(where, f"'{where}' must be an object, not {json_type(entry)}.")
        if f"tool {entry.get('type')}" not in tools.left_out:
            yield _find(tools, entry, where)


def _find(tools: Tools, entry: Mapping[str, Any], param: str) -> str:
    """The chat name of the tool that `entry` names."""
    kind, name, namespace = entry.get("type"), entry.get("name"), entry.get("namespace")
    if type(name) is not str:
        if f"tool {kind}" in tools.left_out:
            raise bad_value(
                param,
                f"'{param}' forces the tool '{kind}', which only its maker's own servers can run. "
                "Offer a function instead, and run it where the call arrives.",
            )
        raise bad_value(param, f'\'{param}\' must look like {{"type": "function", "name": ...}}.')
    wanted = chat_name(name, namespace if type(namespace) is str else "")
    offered = [tool["function"]["name"] for tool in tools.offered]
    if wanted not in offered:
        known = ", ".join(offered[:8])[:400] or "nothing"
        raise bad_value(param, f"'{param}' names '{name[:100]}', but 'tools' offers {known}.")
    return wanted


def _nothing(tools: Tools) -> ApiError:
    because = "'tools' is empty"
    if tools.left_out:
        because = f"'tools' offers nothing that can be run here (only {tools.left_out[0]})"
    return bad_value("tool_choice", f"'tool_choice' asks for a tool, but {because}.")


_FREE_TEXT: dict[str, Any] = {
    "type": "object",
    "properties": {INPUT: {"type": "string", "description": "The input, as plain text."}},
    "required": [INPUT],
    "additionalProperties": False,
}
