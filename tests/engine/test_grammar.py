"""Claims of meshd.engine.grammar, with a model whose tokens are bytes."""

from __future__ import annotations

import pytest
from llguidance import LLTokenizer, TokenizerWrapper

from meshd.engine.grammar import GrammarError, constrain
from meshd.engine.tool_calls import HERMES, MISTRAL
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
