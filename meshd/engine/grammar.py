"""Answers of a given form: a mask over the vocabulary before each token is chosen.

One library, llguidance, does the work for every engine of ours; this module turns a job into its
grammar and back into words when that is impossible. An engine brings its tokenizer as llguidance
sees it (`llguidance.llamacpp`, or `llguidance.hf` for MLX), asks `allowed` before each token, and
tells `take` which one it chose.

- `json_object` is any JSON object, `json_schema` what the schema says. JSON is written on one line,
  with one space after a comma or a colon: small models that may choose write white space for ever;
- a forced tool is the family's own call, without the mark that opens it, which is in the prompt
  already. Each tool's parameters are a schema of their own, so that `#/$defs` in them keeps its
  meaning;
- with both tools and a form, an answer that may choose is either calls with nothing beside them or
  an answer of that form. A call is spelled in the pieces that JSON is read in, because the library
  decides for the longest piece that fits: `{"name": "f` in one would rule out `{"answer"`;
- a schema that cannot be compiled is refused before the prompt is read, with the library's reason.
  Keywords it does not know are refused as well: an answer that silently breaks the schema is worse
  than none. A `format` it does not know is passed over, because JSON Schema calls that a remark.
  So is all of that in the schema of a tool that need not be called: wherever no form is asked for,
  such a schema is a hint, too;
- limits are those of the library, which stop a schema that would take seconds to compile. Some are
  met in the middle of an answer only (hundreds of optional fields): it fails then, and says why,
  because what the library allows from there on is nothing but the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from meshd.engine.tool_calls import ToolForm
from meshd.engine.turn import format_of, is_forced, tools_of
from protocol.jobs import Job

ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

FORMATS = frozenset(
    ("date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
)
"""Of strings, that the library can keep to."""

VERBATIM = frozenset(("const", "enum", "default", "examples"))
"""Keywords whose values are values, not schemas."""

NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
"""The parameters of a tool that names none, as OpenAI defines it: an empty list. A small model that
may write any object there writes one that does not end."""

REASON_MAX_CHARS = 300
"""Of the library's explanation: the rest is the schema again."""


class GrammarError(ValueError):
    """The form that was asked for cannot be kept; the text says why. `param` is the field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class Constraint:
    """What one answer may still say."""

    def __init__(self, matcher: LLMatcher, fields: Sequence[str]) -> None:
        """`fields` of the request gave the form."""
        self._matcher = matcher
        self._fields = fields

    @property
    def is_over(self) -> bool:
        """The answer is complete, and nothing may follow."""
        return self._matcher.is_stopped()

    def broken(self) -> GrammarError | None:
        """Why the answer can be held to its form no further; None while it can."""
        if not self._matcher.is_error():
            return None
        return _refused(
            self._matcher,
            self._fields,
            "that this answer cannot be held to any further; ask for a simpler one",
        )

    def allowed(self) -> bytes:
        """A bit for each token of the vocabulary, lowest first: may it come next?"""
        return self._matcher.compute_bitmask()

    def take(self, tokens: Sequence[int]) -> bool:
        """These tokens were chosen. False: they were not allowed, and nothing can follow."""
        return self._matcher.consume_tokens(list(tokens))


def constrain(job: Job, form: ToolForm | None, tokenizer: LLTokenizer) -> Constraint:
    """The constraint of a job that wants one. Raises GrammarError."""
    fields: tuple[str, ...]
    if tools_of(job):
        assert form is not None, "tools were refused before"
        grammar = LLMatcher.grammar_from_lark("\n".join(_rules(job, form, tokenizer)))
        fields = ("tools",) if is_forced(job) else ("tools", "response_format")
    else:
        grammar, fields = LLMatcher.grammar_from_json_schema(_schema(job)), ("response_format",)
    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise _refused(matcher, fields, "that cannot be kept to")
    return Constraint(matcher, fields)


def _refused(matcher: LLMatcher, fields: Sequence[str], why: str) -> GrammarError:
    named = " or ".join(f"'{field}'" for field in fields)
    return GrammarError(f"{named} holds a schema {why}: {_reason(matcher)}", fields[-1])


def _reason(matcher: LLMatcher) -> str:
    """What went wrong, in one line."""
    said = matcher.get_error().replace("<non-verbose/>", "")
    return " ".join(said.split())[:REASON_MAX_CHARS]


def _schema(job: Job) -> dict[str, Any]:
    kind = format_of(job)
    if kind == "json_object":
        return _one_line({"type": "object"})
    inner = job.response_format.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise GrammarError(
            "'response_format' must be of type text, json_object, or json_schema with a schema "
            "in 'json_schema.schema'",
            "response_format",
        )
    return _one_line(schema)


def _one_line(schema: dict[str, Any], *, lenient: bool = False) -> dict[str, Any]:
    return {**_known_formats(schema), "x-guidance": {**ONE_LINE, "lenient": lenient}}


def _known_formats(schema: Any) -> Any:
    """The schema without every `format` that cannot be kept to."""
    if isinstance(schema, list | tuple):
        return [_known_formats(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key in VERBATIM else _known_formats(value)
        for key, value in schema.items()
        if key != "format" or not isinstance(value, str) or value in FORMATS
    }


def _rules(job: Job, form: ToolForm, tokenizer: LLTokenizer) -> Iterator[str]:
    """Lark's rules of a forced call, or of calls or else an answer of the given form."""
    functions = _callable(job)
    must_call = is_forced(job)
    if must_call:
        yield 'start: "[" call "]"' if form.is_list else "start: call"
    else:
        yield f"start: answer | {_unforced(form, tokenizer)}"
        yield f"answer: %json {json.dumps(_schema(job))}"
    yield f"call: {' | '.join(f'call{index}' for index in range(len(functions)))}"
    for index, function in enumerate(functions):
        schema = function.get("parameters")
        wanted = NOTHING if schema is None else {"type": "object", **schema}
        parameters = _one_line(wanted, lenient=not must_call)
        name, key = json.dumps(function["name"]), f'"{form.arguments}"'
        begin = " ".join(map(json.dumps, ("{", '"name"', ": ", name, ", ", key, ": ")))
        yield f'call{index}: {begin} %json {json.dumps(parameters)} "}}"'


def _unforced(form: ToolForm, tokenizer: LLTokenizer) -> str:
    """Calls with the marks around them, in Lark's notation: as many as the model likes, but one
    where nothing stands around it."""
    if form.is_bare:
        return "call"
    opener = _mark(form.opener, tokenizer)
    if form.is_list:
        return f'{opener} "[" call (", " call)* "]"'
    marked = f'{opener} "\\n" call "\\n" {_mark(form.closer, tokenizer)}'
    return f'{marked} ("\\n" {marked})*'


def _mark(text: str, tokenizer: LLTokenizer) -> str:
    """A mark in Lark's notation: by its number where the vocabulary has a token for it alone, which
    is none of its letters."""
    tokens = tokenizer.tokenize_str(text, parse_special=True)
    is_token = len(tokens) == 1 and tokenizer.is_special_token(tokens[0])
    return f"<[{tokens[0]}]>" if is_token else json.dumps(text)


def _callable(job: Job) -> list[Any]:
    """The tools that may be called. Raises GrammarError where that is none."""
    functions = [tool["function"] for tool in job.tools]
    if not isinstance(job.tool_choice, dict):
        return functions
    function = job.tool_choice.get("function")
    wanted = function.get("name") if isinstance(function, dict) else None
    named = [each for each in functions if each.get("name") == wanted]
    if not named:
        raise GrammarError(
            f"'tool_choice' names {wanted!r}, which is not among the tools", "tool_choice"
        )
    return named
