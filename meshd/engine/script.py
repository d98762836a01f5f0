"""What an emulated machine does when it is told to: calls of tools, thoughts, forms, faults.

A program that reads answers can be tested without a model when the question says what the answer
has to be. Lines of the last message, where a user wrote it, are directions:

    <<think TEXT>>                   TEXT is thought, before anything is said
    <<say TEXT>>                     the answer is TEXT, to the letter (several lines: joined)
    <<call NAME {json}>>             the answer calls the tool NAME (several lines: several calls);
                                     the arguments are passed on as they stand, right or wrong
    <<fault KIND [AFTER] [MACHINE]>> KIND strikes after AFTER tokens, on the machine of that name
                                     alone where one is named; it spares an answer that another
                                     machine began, so that this one can be carried on

Only the last message, so that a conversation goes on once its tools have answered.

Without directions the request itself decides:

- `tool_choice` `required` calls the first tool, or the tools that the script calls; a named one
  calls that; the arguments are the smallest that the tool's schema lets through;
- `response_format` `json_schema` says the smallest value of that schema, `json_object` says
  `{"emulated": true}`;
- a call of a tool that nobody offered, or with `tool_choice` `none`, does not happen.

Vectors, sounds and pictures are made by `effigies`, for an emulated machine whose SPEC says that it
can.

Everything is deterministic, so one machine can carry on where another stopped. The number of a word
in the text is its token id. Calls and thoughts have none: an answer that was cut in a call begins
its calls anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from meshd.engine import effigies, prose
from meshd.engine.spec import CONTEXT_MAX_TOKENS, FAULTS
from meshd.engine.specimen import SpecimenError, specimen
from meshd.engine.tool_calls import call_id
from protocol.frozen import frozen
from protocol.jobs import Event, Job, ReasoningDelta, ToolCallDelta

DIRECTION = re.compile(r"^[ \t]*<<(think|say|call|fault)[ \t]+(.*?)>>[ \t]*$", re.MULTILINE)

JSON_OBJECT = '{"emulated": true}'


class ScriptError(ValueError):
    """The request contradicts itself; the text says how. `param` is the field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@frozen
class Fault:
    """What goes wrong with one job, and after how many tokens. `kind` empty: nothing."""

    kind: str = ""
    after: int = 0


@frozen
class Word:
    """A word of the text. `number` counts from 1, and is 0 where only its end is wanted."""

    number: int
    text: str


Unit = Word | Event
"""One token of an answer, or what takes as long as one."""


@frozen
class Plan:
    """An answer before it is given. `length` counts `units` up to its natural end."""

    units: Iterator[Unit]
    length: int
    reason: str = "stop"
    is_prose: bool = False
    """Free text, which goes on for as long as anybody listens."""
    is_counted: bool = True
    """Its units are tokens."""


def plan_of(job: Job, natural_tokens: int) -> Plan:
    """What to answer; free text ends after `natural_tokens`, 0 for a length of its own choice.
    Raises ScriptError."""
    if job.kind in {"embedding", "raw"}:
        made = effigies.vectors(job) if job.kind == "embedding" else effigies.answer(job)
        return Plan(iter(made), len(made), is_counted=False)
    directions = _directions(job)
    thoughts: list[Unit] = [ReasoningDelta(word) for word in _thoughts(job, directions)]
    calls = _calls(job, directions) if job.kind == "chat" else []
    if calls:
        units: list[Unit] = [*thoughts, *_remaining(job, _said(directions)), *calls]
        return Plan(iter(units), len(units), "tool_calls")
    text = _form(job) or _said(directions)
    if text:
        units = [*thoughts, *_remaining(job, text)]
        return Plan(iter(units), len(units))
    skipped = _skipped(job)
    length = max(0, (natural_tokens or prose.natural_length(job)) - skipped)

    def free() -> Iterator[Unit]:
        yield from thoughts
        yield from _remaining(job, prose.words(job))

    return Plan(free(), len(thoughts) + length, is_prose=True)


def fault_of(job: Job, machine: str) -> Fault | None:
    """The fault that a job asks of this machine; None where it asks for none."""
    for told in _told(_directions(job), "fault"):
        kind, *rest = told.split()
        after = int(rest.pop(0)) if rest and rest[0].isascii() and rest[0].isdigit() else 0
        if kind in FAULTS and not _is_carried_on(job) and (not rest or rest == [machine]):
            return Fault(kind, min(after, CONTEXT_MAX_TOKENS))
    return None


def _directions(job: Job) -> Sequence[tuple[str, str]]:
    """Kind and rest of each line that tells this machine what to do."""
    if job.kind != "chat":
        return DIRECTION.findall(job.prompt or "")
    last = job.messages[-1] if job.messages else None
    if not isinstance(last, Mapping) or last.get("role") != "user":
        return ()
    content = last.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in parts)
    return DIRECTION.findall("\n".join(text for text in texts if isinstance(text, str)))


def _told(directions: Sequence[tuple[str, str]], kind: str) -> list[str]:
    return [rest for found, rest in directions if found == kind]


def _thoughts(job: Job, directions: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What is to be thought, less what was thought before, by whoever is being carried on."""
    if job.kind != "chat" or job.prefix_text or job.prefix_tokens:
        return
    skip = len(job.prefix_thought)
    for text in _told(directions, "think"):
        for word in _cut(text):
            if skip < len(word):
                yield word[skip:]
            skip = max(0, skip - len(word))


def _said(directions: Sequence[tuple[str, str]]) -> list[str]:
    return _cut("\n".join(_told(directions, "say")))


def _cut(text: str) -> list[str]:
    """Words, each with the white space before it; together they are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def _form(job: Job) -> list[str]:
    """The words of an answer whose form is given; none where it is free."""
    wanted = job.response_format if isinstance(job.response_format, Mapping) else {}
    kind = wanted.get("type", "text")
    if kind == "text":
        return []
    if kind == "json_object":
        return _cut(JSON_OBJECT)
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise ScriptError(
            "'response_format' must be of type text, json_object, or json_schema with a schema in "
            "'json_schema.schema'",
            "response_format",
        )
    return _cut(_json(schema, "response_format"))


def _calls(job: Job, directions: Sequence[tuple[str, str]]) -> list[ToolCallDelta]:
    """The calls of an answer, piece by piece: the name first, then the arguments."""
    if not job.tools or job.tool_choice == "none":
        return []
    offered = {name: tool for tool in job.tools if (name := _name_of(tool))}
    if len(offered) < len(job.tools):
        raise ScriptError("every tool must be a function with a name, each its own", "tools")
    wanted = [told.partition(" ")[::2] for told in _told(directions, "call")]
    scripted = [(name, arguments.strip()) for name, arguments in wanted if name in offered]
    forced = _forced(job.tool_choice, offered)
    if forced and job.tool_choice != "required":
        scripted = [call for call in scripted if call[0] == forced]
    if forced and not scripted:
        parameters = offered[forced]["function"].get("parameters") or {"type": "object"}
        scripted = [(forced, _json(parameters, "tools"))]
    return [
        piece
        for index, (name, arguments) in enumerate(scripted)
        for piece in _pieces(job, index, name, arguments or "{}")
    ]


def _forced(choice: Any, offered: Mapping[str, Any]) -> str:
    """The tool that must be called if the script calls none; empty where none must."""
    if choice == "required":
        return next(iter(offered))
    if not isinstance(choice, Mapping):
        return ""
    function = choice.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if name not in offered:
        raise ScriptError(
            f"'tool_choice' names {name!r:.80}, which is not among the tools", "tool_choice"
        )
    return str(name)


def _pieces(job: Job, index: int, name: str, arguments: str) -> Iterator[ToolCallDelta]:
    yield ToolCallDelta(index, call_id(job.request_id, index), name, "")
    for piece in _cut(arguments):
        yield ToolCallDelta(index, "", "", piece)


def _name_of(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else ""


def _json(schema: Any, param: str) -> str:
    try:
        return json.dumps(specimen(schema), ensure_ascii=False)
    except SpecimenError as error:
        message = f"'{param}' holds a schema that cannot be kept to: {error}"
        raise ScriptError(message, param) from None


def _is_carried_on(job: Job) -> bool:
    return bool(job.prefix_text or job.prefix_tokens or job.prefix_thought)


def _skipped(job: Job) -> int:
    """Words that were said before, by whoever is being carried on."""
    if job.prefix_tokens is not None:
        return len(job.prefix_tokens)
    return len(job.prefix_text.split())


def _remaining(job: Job, words: Iterator[str] | list[str]) -> Iterator[Word]:
    """The text's words, less what was said before."""
    numbered = (Word(number, text) for number, text in enumerate(words, 1))
    if job.prefix_tokens is not None:
        yield from islice(numbered, len(job.prefix_tokens), None)
        return
    skip = len(job.prefix_text)
    for word in numbered:
        if skip < len(word.text):
            # Of a word that was cut only the end is said, and an end has no number.
            yield Word(0, word.text[skip:]) if skip else word
            break
        skip -= len(word.text)
    yield from numbered
