"""A Responses body, read."""

import json

import pytest

from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.replies import Reply
from meshd.api.responses import page, read_response

ASKER = Asker("r1", session="header", person="ab")
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def read(asker=ASKER, **fields):
    return read_response({"model": "tiny", "input": "Hi"} | fields, asker)


def refusal(**fields):
    with pytest.raises(ApiError) as raised:
        read(**fields)
    assert raised.value.status == 400
    return raised.value


def test_the_least_body():
    """A model and a text."""
    job = read().job
    assert (job.request_id, job.kind, job.model, job.person) == ("r1", "chat", "tiny", "ab")
    assert job.messages == ({"role": "user", "content": "Hi"},)
    assert (job.stream, job.tools, job.extras, job.max_tokens) == (False, None, None, None)


def test_instructions_come_first():
    """As the system turn, together with developer messages at the beginning."""
    items = [{"role": "developer", "content": "b"}, {"role": "user", "content": "c"}]
    assert read(instructions="a", input=items).job.messages == (
        {"role": "system", "content": "a\nb"},
        {"role": "user", "content": "c"},
    )


def test_every_option_finds_its_place():
    """In the job, or in what the answer repeats."""
    asked = read(
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=["x"],
        stream=True,
        top_logprobs=2,
        reasoning={"effort": "low", "summary": "auto"},
        metadata={"k": "v"},
        prompt_cache_key="cache",
        safety_identifier="s",
        user="u",
        service_tier="flex",
        parallel_tool_calls=False,
        tools=[{"type": "function", "name": "f"}],
        truncation="auto",
        store=True,
        chat_template_kwargs={"a": 1},
    )
    job, echo = asked.job, asked.echo
    assert (job.max_tokens, job.stop, job.stream) == (7, ("x",), True)
    assert (job.sampling.temperature, job.sampling.top_p, job.sampling.seed) == (0.5, 0.9, 3)
    assert (job.logprobs, job.top_logprobs) == (True, 2)
    assert (job.session, job.priority) == ("cache", "batch")
    assert job.extras == {
        "chat_template_kwargs": {"a": 1},
        "reasoning_effort": "low",
        "parallel_tool_calls": False,
    }
    assert echo["reasoning"] == {"effort": "low", "summary": "auto"}
    assert (echo["metadata"], echo["user"], echo["service_tier"]) == ({"k": "v"}, "u", "flex")
    assert (asked.wants_summary, asked.is_parallel) == (True, False)


def test_what_nobody_asked_for_is_repeated_too():
    """The specification requires these keys, as numbers and not as null."""
    echo = read().echo
    assert echo["text"] == {"format": {"type": "text"}}
    assert (echo["temperature"], echo["top_p"], echo["top_logprobs"]) == (1.0, 1.0, 0)
    assert (echo["tools"], echo["tool_choice"], echo["metadata"]) == ([], "auto", {})
    assert (echo["service_tier"], echo["reasoning"]) == (
        "default",
        {"effort": None, "summary": None},
    )


def test_the_session_is_the_cache_key_then_the_header_then_the_user():
    """The most telling name of a conversation wins."""
    assert read(user="u").job.session == "header"
    assert read(Asker("r1"), user="u").job.session == "u"
    assert read(prompt_cache_key="k").job.session == "k"


def test_a_batch_asker_stays_one():
    """A body may lower its priority and never raise it."""
    assert read(Asker("r1", priority="batch"), service_tier="priority").job.priority == "batch"


def test_unknown_fields_and_tiers_are_tolerated():
    """They are OpenAI's own, and newer than any server."""
    job = read(client_metadata={"a": "b"}, service_tier="ultrafast", context_management=[]).job
    assert (job.extras, job.priority) == (None, "interactive")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
            },
        ),
    ],
)
def test_the_form_of_the_answer(form, expected):
    """One level flatter than in chat."""
    assert read(text={"format": form}).job.response_format == expected


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"model": None}, "model", "'model' is missing"),
        ({"input": None}, "input", "Send a string"),
        ({"input": 3}, "input", "not an integer"),
        ({"input": []}, "input", "says nothing"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "in 'input' again"),
        ({"conversation": "conv_1"}, "conversation", "nothing is stored here"),
        ({"prompt": {"id": "p"}}, "prompt", "the prompt's text"),
        ({"background": True}, "background", "Ask for a stream"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "json_schema"),
        ({"text": {"format": 3}}, "text.format.type", "json_schema"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "'schema'"),
        ({"metadata": {"k": 1}}, "metadata.k", "must be a string"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "at most 16"),
        ({"max_output_tokens": 0}, "max_output_tokens", "1 to"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "true or false"),
        ({"top_logprobs": 21}, "top_logprobs", "0 to 20"),
        ({"tools": {}}, "tools", "an array"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields, param, words):
    """With the way round it."""
    error = refusal(**fields)
    assert error.param == param
    assert words in error.message


def test_summary_none_is_no_summary():
    """Codex may send it."""
    assert not read(reasoning={"summary": "none"}).wants_summary


def test_what_is_left_out_stands_in_a_header():
    """Codex sends web_search with every request."""
    lines = read(tools=[{"type": "web_search"}]).lines
    assert lines == "x-mesh-left-out: tool web_search\r\n"


def test_tokens_are_counted_as_an_estimate():
    """And the answer says so."""
    reply = page("input_tokens", b'{"model":"tiny","input":"Hello there"}', ASKER)
    assert json.loads(reply.body) == {"object": "response.input_tokens", "input_tokens": 9}
    assert reply.lines == "x-mesh-token-count: estimate\r\n"


@pytest.mark.parametrize(("name", "body"), [("resp_1", b""), ("compact", b"{}")])
def test_no_response_is_ever_found(name, body):
    """Nothing is stored."""
    with pytest.raises(ApiError, match="nothing is stored here") as raised:
        page(name, body, ASKER)
    assert raised.value.status == 404


CODEX = {
    "model": "tiny",
    "instructions": "You are a coding agent.",
    "input": [
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "<permissions>read-only</permissions>"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "<environment_context/>"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "List the files."}],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "ls it is"}],
            "content": None,
            "encrypted_content": None,
        },
        {
            "type": "function_call",
            "name": "search",
            "namespace": "mcp__docs__",
            "arguments": '{"q":"x"}',
            "call_id": "call_1",
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "a.txt"},
    ],
    "tools": [
        {
            "type": "function",
            "name": "exec_command",
            "description": "Runs a command",
            "strict": False,
            "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}},
        },
        {"type": "custom", "name": "apply_patch", "description": "Edits files", "format": {}},
        {
            "type": "namespace",
            "name": "mcp__docs__",
            "description": "Documents",
            "tools": [{"type": "function", "name": "search", "parameters": {"type": "object"}}],
        },
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0190-thread",
    "text": {"verbosity": "low"},
    "client_metadata": {"x-codex-installation-id": "i"},
}
"""A request in the shape of Codex's second turn."""


def test_a_request_as_codex_sends_it():
    """Everything that a model here can use arrives, and the rest is named."""
    asked = read_response(CODEX, ASKER)
    job = asked.job
    assert [turn["role"] for turn in job.messages] == ["system", "user", "assistant", "tool"]
    assert job.messages[2]["reasoning_content"] == "ls it is"
    assert job.messages[2]["tool_calls"][0]["function"]["name"] == "mcp__docs__search"
    names = [tool["function"]["name"] for tool in job.tools]
    assert names == ["exec_command", "apply_patch", "mcp__docs__search"]
    assert (job.session, job.stream, asked.wants_encrypted) == ("0190-thread", True, True)
    assert asked.echo["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert asked.lines == "x-mesh-left-out: tool web_search\r\n"
    assert not isinstance(asked, Reply)
