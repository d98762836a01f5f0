"""Calls of tools inside a model's text, read as the text comes.

Every family of models marks its calls in its own way. `FORMS` says how, as data; `ToolReader`
separates the text from the calls for any of them:

    Hermes, Qwen    <tool_call>{"name": "f", "arguments": {...}}</tool_call>, again and again
    Mistral         [TOOL_CALLS][{"name": "f", "arguments": {...}}, ...] to the end of the answer,
                    or, newer, [TOOL_CALLS]f[ARGS]{...}, again and again, in some with
                    [CALL_ID] and an id behind the name
    Llama 3         the whole answer is {"name": "f", "parameters": {...}}, with more of them after
                    semicolons, and with or without <|python_tag|> in front

Rules:

- text may be cut anywhere: what could be the beginning of a mark waits until it is one or is not;
- a call leaves when it is whole, in one piece: half a JSON object is of no use to a program;
- what looks like a call and is none (broken JSON, a tool that nobody offered) is text, marks and
  all: nothing that a model said is lost;
- a template with marks of its own kind inside Hermes's is known not to be known;
- white space after a call is the model's way to its next call, and is dropped.

A call's id is nine characters, letters and digits, because Mistral's template takes no other.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from hashlib import blake2b
from typing import Any

from meshd.engine.assembly import overlap
from meshd.engine.template import reads_tools
from protocol.frozen import frozen
from protocol.jobs import TextDelta, ToolCallDelta

CALL_ID_CHARS = 9
"""Mistral's own length."""

ARGUMENTS_MARK = "[ARGS]"
"""Between a tool's name and its arguments, in Mistral's newer form."""

ID_MARK = "[CALL_ID]"
"""Between a tool's name and the model's own id of the call (Mistral Small 3.1 and 3.2)."""

UNKNOWN_MARKS = ("<function=", "<arg_key>", "<parameter name")
"""Of families that write XML between Hermes's marks (Qwen3-Coder, GLM): not read here yet."""


@frozen
class ToolForm:
    """How one family writes a call. `closer` empty: a call lasts to the end of the answer."""

    name: str
    opener: str
    closer: str
    arguments: str
    """The key of the arguments, as the model was trained to write it."""
    is_bare: bool = False
    """An answer that begins with a brace is a call as well."""
    is_list: bool = False
    """Calls stand in an array."""
    opening: str = ""
    """What the prompt of a forced call ends with."""


HERMES = ToolForm("hermes", "<tool_call>", "</tool_call>", "arguments", opening="<tool_call>\n")
MISTRAL = ToolForm("mistral", "[TOOL_CALLS]", "", "arguments", is_list=True, opening="[TOOL_CALLS]")
LLAMA3 = ToolForm("llama3", "<|python_tag|>", "", "parameters", is_bare=True)
FORMS = (HERMES, MISTRAL, LLAMA3)


def form_of(template: str) -> ToolForm | None:
    """The form that a chat template shows to its model; None when it is none of ours."""
    if any(mark in template for mark in UNKNOWN_MARKS):
        return None
    for form in (HERMES, MISTRAL):
        if form.opener in template:
            return form
    return LLAMA3 if "<|start_header_id|>" in template and '"parameters"' in template else None


def takes_calls(template: str) -> bool:
    """Can a model with this chat template be asked to call tools here? It is shown the tools, and
    shows a form that is known."""
    return form_of(template) is not None and reads_tools(template)


@frozen
class Call:
    """One call: the tool's name and its arguments as JSON text."""

    name: str
    arguments: str


class ToolReader:
    """Separates one answer's text from its calls. `called`: how many calls there were."""

    def __init__(
        self,
        form: ToolForm,
        names: Collection[str],
        answer_id: str,
        *,
        is_forced: bool = False,
        is_begun: bool = False,
    ) -> None:
        """`is_forced`: the mark that opens a call is in the prompt already. `is_begun`: so is the
        beginning of the answer, which was text."""
        self.called = 0
        self._form = form
        self._names = frozenset(names)
        self._answer_id = answer_id
        self._held = ""
        self._in_call = is_forced
        self._mark = ""
        """What of the answer opened the call at hand."""
        self._is_at_start = not is_begun
        self._skips_space = False

    def feed(self, text: str) -> list[TextDelta | ToolCallDelta]:
        """What is certain now that `text` has come."""
        self._held += text
        events: list[TextDelta | ToolCallDelta] = []
        while self._read_call(events) if self._in_call else self._read_text(events):
            pass
        return events

    def finish(self) -> list[TextDelta | ToolCallDelta]:
        """The answer has ended: what was held back."""
        events: list[TextDelta | ToolCallDelta] = []
        held, self._held = self._held, ""
        if self._in_call:
            self._close(held, "", events)
        else:
            self._say(held, events)
        return events

    def _read_text(self, events: list[TextDelta | ToolCallDelta]) -> bool:
        """Up to the next call; False when more text must come first."""
        opener = self._form.opener
        if self._skips_space:
            self._held = self._held.lstrip()
        if self._form.is_bare and self._is_at_start:
            begin = self._held.lstrip()
            if not begin:
                return False
            if begin.startswith("{"):
                self._in_call, self._mark = True, ""
                return True
        at = self._held.find(opener)
        safe = at if at >= 0 else len(self._held) - overlap(self._held, opener)
        self._say(self._held[:safe], events)
        self._held = self._held[safe:]
        if at < 0:
            return False
        self._held = self._held[len(opener) :]
        self._in_call, self._mark = True, opener
        return True

    def _read_call(self, events: list[TextDelta | ToolCallDelta]) -> bool:
        """Up to the end of the call; False when it has not come yet."""
        closer = self._form.closer
        at = self._held.find(closer) if closer else -1
        if at < 0:
            return False
        body, self._held = self._held[:at], self._held[at + len(closer) :]
        self._close(body, closer, events)
        return True

    def _close(self, body: str, closer: str, events: list[TextDelta | ToolCallDelta]) -> None:
        """A call has ended: it leaves as what it is, or as text."""
        calls = read_calls(body)
        if calls and all(call.name in self._names for call in calls):
            for call in calls:
                made = call_id(self._answer_id, self.called)
                events.append(ToolCallDelta(self.called, made, call.name, call.arguments))
                self.called += 1
            self._skips_space, self._is_at_start = True, False
        else:
            self._say(self._mark + body + closer, events)
        self._in_call = False

    def _say(self, text: str, events: list[TextDelta | ToolCallDelta]) -> None:
        if text:
            self._is_at_start = self._skips_space = False
            events.append(TextDelta(text))


def read_calls(body: str) -> list[Call] | None:
    """The calls in the body of a call in any form; None when it is not wholly calls."""
    calls: list[Call] = []
    left = body.strip()
    while left:
        head, mark, after = left.removeprefix(MISTRAL.opener).partition(ARGUMENTS_MARK)
        name = head.partition(ID_MARK)[0]
        is_named = bool(mark) and not set(name) & set('{["')
        text = after.lstrip() if is_named else left
        try:
            value, end = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            return None
        left = text[end:].lstrip().removeprefix(";").lstrip()
        if is_named:
            calls.append(Call(name.strip(), _text_of(value)))
            continue
        for entry in value if isinstance(value, list) else [value]:
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                return None
            arguments = entry.get("arguments", entry.get("parameters", {}))
            calls.append(Call(entry["name"], _text_of(arguments)))
    return calls or None


def _no_json(name: str) -> None:
    """Python reads NaN and infinities; no other program does."""
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_no_json)


def _text_of(arguments: Any) -> str:
    """Arguments as JSON text. Half of a surrogate pair, which no text can carry, leaves escaped as
    it came."""
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    text: str = arguments.encode("utf-8", "backslashreplace").decode()
    return text


def call_id(answer_id: str, index: int) -> str:
    """The id of call number `index` of an answer."""
    return blake2b(f"{answer_id} {index}".encode()).hexdigest()[:CALL_ID_CHARS]
