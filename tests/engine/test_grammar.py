"""Claims of meshd.engine.grammar, with a model whose tokens are bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from llguidance import LLTokenizer, TokenizerWrapper

from meshd.engine.grammar import GrammarError, constrain
from meshd.engine.tool_calls import HERMES, LLAMA3, MISTRAL
from protocol.jobs import Job

END = 256
JOB = Job("r", "chat", "m")
TOOLS = [
    {"type": "function", "function": {"name": 'a "b"'}},
    {"type": "function", "function": {"name": "c", "parameters": {"properties": {"n": {}}}}},
]


class Bytes:
    """What llguidance wants to know of a tokenizer."""

    eos_token_id = END
    bos_token_id = None
    tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"]
    special_token_ids = [END]

    def __call__(self, text):
        return list(text.encode() if isinstance(text, str) else text)


@pytest.fixture(scope="module")
def tokenizer():
    """Made once: it is the slow part."""
    return LLTokenizer(TokenizerWrapper(Bytes()))


def may_say(constraint, text: str) -> bool:
    """Is each byte of `text` allowed, one after the other?"""
    for byte in text.encode():
        allowed = constraint.allowed()
        if not allowed[byte // 8] >> byte % 8 & 1:
            return False
        assert constraint.take((byte,))
    return True


def form(kind: str, schema=None):
    """A job that asks for this form."""
    wanted = {"type": kind}
    if schema is not None:
        wanted["json_schema"] = {"name": "s", "schema": schema}
    return Job("r", "chat", "m", response_format=wanted)


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [('{"a": [1, true, "x"]}', True), ("[1]", False), ('{"a":  1}', False), ('{\n"a": 1}', False)],
)
def test_an_object_is_written_on_one_line(tokenizer, text, is_allowed):
    """White space has its places, one character each."""
    assert may_say(constrain(form("json_object"), None, tokenizer), text) == is_allowed


def test_a_complete_object_ends_the_answer(tokenizer):
    """And not a letter before."""
    constraint = constrain(form("json_object"), None, tokenizer)
    assert may_say(constraint, "{")
    assert not constraint.is_over
    assert may_say(constraint, "}")
    assert constraint.is_over


def test_a_schema_is_kept_to(tokenizer):
    """Required fields, types and bounds."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}
    schema |= {"required": ["n"], "additionalProperties": False}
    assert may_say(constrain(form("json_schema", schema), None, tokenizer), '{"n": 9}')
    assert not may_say(constrain(form("json_schema", schema), None, tokenizer), '{"n": 10')
    assert not may_say(constrain(form("json_schema", schema), None, tokenizer), "{}")


@pytest.mark.parametrize("job", [form("json_schema"), form("xml")])
def test_a_form_that_is_none_is_refused(tokenizer, job):
    """Where the front door let it through."""
    with pytest.raises(GrammarError, match="json_schema"):
        constrain(job, None, tokenizer)


@pytest.mark.parametrize(
    ("family", "choice", "text", "is_allowed"),
    [
        (HERMES, "required", '{"name": "a \\"b\\"", "arguments": {}}', True),
        (HERMES, "required", '{"name": "c", "arguments": {"n": 1}}', True),
        (HERMES, {"function": {"name": "c"}}, '{"name": "a', False),
        (HERMES, "required", '{"name": "a \\"b\\"", "arguments": {"x"', False),
        (HERMES, "required", '{"name": "c", "arguments": [', False),
        (HERMES, "required", "Sorry", False),
        (MISTRAL, "required", '[{"name": "c", "arguments": {}}]', True),
    ],
)
def test_a_forced_call_is_one_of_the_tools(tokenizer, family, choice, text, is_allowed):
    """Whatever stands in their names, and in the form that the model was trained for; arguments are
    an object, and an empty one where a tool names no parameters."""
    job = Job("r", "chat", "m", tools=TOOLS, tool_choice=choice)
    constraint = constrain(job, family, tokenizer)
    assert may_say(constraint, text) == is_allowed
    assert constraint.is_over == is_allowed


CALL = '{"name": "c", "arguments": {"n": 1}}'
MARKED = f"<tool_call>\n{CALL}\n</tool_call>"
BARE = CALL.replace("arguments", "parameters")


@pytest.mark.parametrize(
    ("family", "text", "is_allowed"),
    [
        (HERMES, '{"name": "c", "n": 1}', True),
        (HERMES, MARKED, True),
        (HERMES, f"{MARKED}\n{MARKED}", True),
        (HERMES, f"{MARKED}\n{{", False),
        (HERMES, CALL, False),
        (HERMES, "Sorry", False),
        (MISTRAL, '{"name": "c", "n": 1}', True),
        (MISTRAL, f"[TOOL_CALLS][{CALL}, {CALL}]", True),
        (MISTRAL, f"[{CALL}]", False),
        (LLAMA3, '{"name": "c", "n": 1}', True),
        (LLAMA3, '{"name": "cc", "n": 1}', True),
        (LLAMA3, BARE, True),
        (LLAMA3, BARE.replace("c", "cc", 1), False),
    ],
)
def test_an_answer_of_a_form_may_be_calls_instead(tokenizer, family, text, is_allowed):
    """Where the model may choose: in its family's way, and with nothing beside them."""
    person = {"name": {"type": "string"}, "n": {"type": "integer"}}
    schema = {"properties": person, "required": ["name", "n"], "additionalProperties": False}
    job = replace(form("json_schema", {"type": "object", **schema}), tools=TOOLS)
    constraint = constrain(job, family, tokenizer)
    assert may_say(constraint, text) == is_allowed
    assert not is_allowed or constraint.allowed()[END // 8] & 1


def test_a_mark_that_is_a_token_of_its_own_is_never_spelled():
    """The model was trained on the token, and its letters mean nothing to it."""
    letters = [*map(chr, range(33, 127)), "\u0120", "\u010a"]
    how = {"special": True, "normalized": False, "single_word": False}
    marks = [
        {"id": number, "content": text, "lstrip": False, "rstrip": False, **how}
        for number, text in enumerate(("<tool_call>", "</tool_call>"), len(letters))
    ]
    model = {"type": "BPE", "vocab": {x: n for n, x in enumerate(letters)}, "merges": []}
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    made = {"version": "1.0", "model": model, "added_tokens": marks, "pre_tokenizer": bytewise}
    tokenizer = LLTokenizer(json.dumps({**made, "decoder": bytewise}))
    job = replace(form("json_object"), tools=TOOLS)
    assert constrain(job, HERMES, tokenizer).take(tokenizer.tokenize_str(MARKED))
    assert not constrain(job, HERMES, tokenizer).take((letters.index("<"),))


@pytest.mark.parametrize(
    ("choice", "text"),
    [("none", '{"x": 1}'), ("required", CALL), ({"function": {"name": "c"}}, CALL)],
)
def test_a_choice_of_tools_that_is_none_leaves_one_of_both(tokenizer, choice, text):
    """The form, or the call: the other would never be said."""
    job = replace(form("json_object"), tools=TOOLS, tool_choice=choice)
    constraint = constrain(job, HERMES, tokenizer)
    assert may_say(constraint, text)
    assert constraint.is_over


def test_a_format_that_nobody_knows_is_a_remark(tokenizer):
    """JSON Schema says so: pydantic writes `password`, Home Assistant `jinja2`. A field may be
    called `format`, and a value may look like a schema."""
    odd = {"type": "string", "format": "jinja2"}
    day = {"type": "string", "format": "date"}
    shape = {"format": odd, "days": {"anyOf": [day, odd]}, "is": {"const": {"format": "x"}}}
    schema = {"type": "object", "properties": shape, "required": list(shape)}
    wanted = form("json_schema", schema)
    said = '{"format": "{{ x }}", "days": "Monday", "is": {"format": "x"}}'
    assert may_say(constrain(wanted, None, tokenizer), said)
    only = form("json_schema", schema | {"properties": shape | {"days": day}})
    assert not may_say(constrain(only, None, tokenizer), said)


def test_a_tool_that_need_not_be_called_may_have_any_schema(tokenizer):
    """As without a form, where its schema is a hint; one that must be called is held to it."""
    tags = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    tools = [{"function": {"name": "c", "parameters": {"properties": {"tags": tags}}}}]
    job = replace(form("json_object"), tools=tools)
    call = MARKED.replace('"n": 1', '"tags": ["a"]')
    assert may_say(constrain(job, HERMES, tokenizer), call)
    with pytest.raises(GrammarError, match="uniqueItems"):
        constrain(replace(job, tool_choice="required"), HERMES, tokenizer)


def test_of_tools_and_a_form_either_may_be_at_fault(tokenizer):
    """The library does not say which."""
    job = replace(form("json_schema", {"type": "cat"}), tools=TOOLS)
    with pytest.raises(GrammarError, match=r"'tools' or 'response_format' holds .* cat") as caught:
        constrain(job, HERMES, tokenizer)
    assert caught.value.param == "response_format"


def test_a_tool_that_nobody_offered_cannot_be_forced(tokenizer):
    """The choice is wrong, not the tools."""
    job = Job("r", "chat", "m", tools=TOOLS, tool_choice={"function": {"name": "x"}})
    with pytest.raises(GrammarError) as caught:
        constrain(job, HERMES, tokenizer)
    assert caught.value.param == "tool_choice"


def test_a_form_that_turns_out_too_large_in_the_middle_is_broken(tokenizer):
    """Hundreds of optional fields compile, and meet the library's limit at the first of them."""
    wide = {"type": "object", "properties": {f"field{n}": {"type": "string"} for n in range(600)}}
    constraint = constrain(form("json_schema", wide), None, tokenizer)
    assert constraint.broken() is None
    assert not constraint.take(b"{")
    broken = constraint.broken()
    assert broken is not None
    assert broken.param == "response_format"
    assert "any further" in str(broken)
    assert "\n" not in str(broken)
