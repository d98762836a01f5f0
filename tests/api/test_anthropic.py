"""A messages body, read."""

import json

import pytest

from meshd.api.anthropic import count_tokens, read_message
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError

ASKER = Asker("r1", person="ab")
USER = [{"role": "user", "content": "Hi"}]
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
NAMED = {"type": "function", "function": {"name": "f"}}


def read(asker=ASKER, **fields):
    return read_message({"model": "tiny", "max_tokens": 9, "messages": USER} | fields, asker)


def test_the_least_body():
    """A model, a bound, a message."""
    asked = read()
    job = asked.job
    assert (job.request_id, job.kind, job.model, job.person) == ("r1", "chat", "tiny", "ab")
    assert (job.messages, job.max_tokens) == (({"role": "user", "content": "Hi"},), 9)
    assert (job.stream, job.tools, job.tool_choice, job.extras) == (False, None, None, None)
    assert asked.lines == ""


def test_every_option_finds_its_place():
    """In the job, or in how its answer is printed."""
    asked = read(
        system="s",
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["x"],
        stream=True,
        metadata={"user_id": "user_1_session_2"},
        output_config={
            "effort": "xhigh",
            "format": {"type": "json_schema", "schema": {"type": "object"}},
        },
    )
    job = asked.job
    assert (job.sampling.temperature, job.sampling.top_p, job.sampling.top_k) == (0.5, 0.9, 40)
    assert (job.stop, job.stream, job.session) == (("x",), True, "user_1_session_2")
    assert job.extras == {"reasoning_effort": "high"}
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert job.response_format == {"type": "json_schema", "json_schema": schema}
    assert job.messages[0]["role"] == "system"


def test_a_header_names_the_session_better_than_the_user():
    """Claude Code sends both."""
    assert read(Asker("r1", session="s"), metadata={"user_id": "u"}).job.session == "s"


def test_unknown_fields_are_passed_over():
    """They concern another house."""
    assert read(container="c", context_management={}, thread={"type": "create"}).job.extras is None


def test_an_agent_may_have_opened_a_file_that_cannot_be_shown():
    """With tools to offer, its model is told; without, the question is refused."""
    source = {"type": "base64", "media_type": "application/pdf", "data": ""}
    opened = [{"role": "user", "content": [{"type": "document", "source": source}]}]
    assert (
        read(messages=opened, tools=[TOOL]).lines == "x-mesh-left-out: document application/pdf\r\n"
    )
    with pytest.raises(ApiError, match="only text files"):
        read(messages=opened)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("thread", {"type": "continue", "previous_message_id": "msg_1"}),
        ("compaction", {"type": "summary"}),
    ],
)
def test_what_is_not_meant_as_a_question_is_refused(name, value):
    """It would be answered without what came before, or instead of being summed up."""
    with pytest.raises(ApiError) as raised:
        read(**{name: value})
    assert (raised.value.param, raised.value.code) == (name, "unsupported")


def test_tools_are_functions():
    """With the schema that this dialect requires."""
    assert read(tools=[TOOL | {"strict": True}, {"name": "g", "input_schema": {}}]).job.tools == [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "d",
                "parameters": {"type": "object"},
                "strict": True,
            },
        },
        {"type": "function", "function": {"name": "g", "parameters": {}}},
    ]


def test_tools_that_nobody_here_runs_are_left_out():
    """And named."""
    asked = read(tools=[{"type": "web_search_20250305", "name": "web_search"}, TOOL])
    assert len(asked.job.tools) == 1
    assert asked.lines.endswith("x-mesh-left-out: tool web_search_20250305\r\n")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "f"}, NAMED),
    ],
)
def test_a_choice_in_chats_words(choice, expected):
    """Four of them, and nothing where nothing was said."""
    assert read(tools=[TOOL], tool_choice=choice).job.tool_choice == expected


def test_a_choice_without_tools_is_none():
    """`auto` is what SDKs may send."""
    assert read(tool_choice={"type": "auto"}).job.tool_choice is None


def test_one_call_where_one_is_asked_for():
    """Told to the engine, and kept to when the answer is printed."""
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    asked = read(tools=[TOOL], tool_choice=choice)
    assert (asked.is_parallel, asked.job.extras) == (False, {"parallel_tool_calls": False})


@pytest.mark.parametrize(
    ("thinking", "shows", "omits", "extras"),
    [
        (None, False, False, None),
        ({"type": "disabled"}, False, False, False),
        ({"type": "enabled", "budget_tokens": 1024}, True, False, True),
        ({"type": "adaptive", "display": "omitted"}, True, True, True),
    ],
)
def test_thoughts_are_shown_to_whom_asks(thinking, shows, omits, extras):
    """And models that can leave them out are told so."""
    asked = read(thinking=thinking)
    assert (asked.shows_thoughts, asked.omits_thoughts) == (shows, omits)
    template = (asked.job.extras or {}).get("chat_template_kwargs", {})
    assert template.get("enable_thinking") is extras


def test_the_templates_own_options_win():
    """Whoever names them knows the model."""
    options = {"enable_thinking": False}
    asked = read(thinking={"type": "adaptive"}, chat_template_kwargs=options)
    assert asked.job.extras == {"chat_template_kwargs": options}


def test_a_begun_answer_is_gone_on_with():
    """The model says the rest, and only the rest comes back."""
    begun = [*USER, {"role": "assistant", "content": "The answer is"}]
    job = read(messages=begun).job
    assert job.messages[-1] == {"role": "assistant", "content": "The answer is"}
    assert job.extras == {"continue_final_message": True, "add_generation_prompt": False}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"model": None}, "model", "'model' is missing"),
        ({"max_tokens": None}, "max_tokens", "in tokens"),
        ({"max_tokens": -1}, "max_tokens", "0 to"),
        ({"messages": None}, "messages", "oldest first"),
        ({"tools": [3]}, "tools[0]", "must be an object"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "needs a name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema", "JSON schema"),
        ({"tools": [TOOL] * 1025}, "tools", "at most 1024"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "none to run"),
        ({"tool_choice": {"type": "x"}, "tools": [TOOL]}, "tool_choice.type", "auto, any"),
        ({"tool_choice": {"type": "tool", "name": "g"}, "tools": [TOOL]}, "tool_choice.name", "f"),
        ({"thinking": {}}, "thinking.type", "adaptive"),
        ({"output_config": {"format": {"type": "x"}}}, "output_config.format", "'schema'"),
        ({"output_format": {"type": "json_schema"}}, "output_config.format", "'schema'"),
        ({"stop_sequences": "x"}, "stop_sequences", "an array"),
        ({"stop_sequences": [""]}, "stop_sequences", "'stop_sequences' holds"),
        ({"metadata": {"user_id": 3}}, "metadata.user_id", "a string"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields, param, words):
    """With what to change."""
    with pytest.raises(ApiError) as raised:
        read(**fields)
    assert (raised.value.status, raised.value.param) == (400, param)
    assert words in raised.value.message


def test_tokens_are_counted_as_an_estimate():
    """Without `max_tokens`, and the answer says that it is one."""
    reply = count_tokens(json.dumps({"model": "tiny", "messages": USER}).encode(), ASKER)
    assert json.loads(reply.body) == {"input_tokens": 7}
    assert reply.lines.startswith("x-mesh-token-count: estimate\r\n")


CLAUDE_CODE = {
    "model": "tiny",
    "max_tokens": 32000,
    "stream": True,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=00000;"},
        {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Use the tools."},
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>today</system-reminder>"},
                {"type": "text", "text": "List the files."},
            ],
        },
        {"role": "system", "content": "Plan mode is off."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "ls", "signature": "abc"},
                {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "a.txt"}],
                    "is_error": False,
                    "cache_control": {"type": "ephemeral"},
                }
            ],
        },
    ],
    "tools": [
        {
            "name": "Bash",
            "description": "Runs a command.",
            "input_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {"command": {"type": "string"}},
                "required": ["command"],
                "additionalProperties": False,
            },
        }
    ],
    "metadata": {"user_id": "user_1"},
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "medium"},
}
"""A request in the shape of Claude Code's second turn."""


def test_a_request_as_claude_code_sends_it():
    """Everything that a model here can use arrives, and the accounts' line does not."""
    job = read_message(CLAUDE_CODE, ASKER).job
    roles = [turn["role"] for turn in job.messages]
    assert roles == ["system", "user", "system", "assistant", "tool"]
    assert job.messages[0]["content"] == "You are an agent.\nUse the tools."
    assert job.messages[3]["reasoning_content"] == "ls"
    assert (job.messages[4]["content"], job.max_tokens) == ("a.txt", 32000)
    assert job.extras == {
        "chat_template_kwargs": {"enable_thinking": True},
        "reasoning_effort": "medium",
    }
