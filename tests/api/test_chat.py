"""The body of a chat completion to a job, and how it is to be printed."""

import pytest

from meshd.api.chat import read_chat
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from protocol.codec import decode_job, encode_job
from tests.api.scripted import CHAT

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def ask(**fields):
    return read_chat(CHAT | fields, Asker("r1"))


def read(**fields):
    return ask(**fields).job


def test_tools_and_formats_are_passed_on():
    """The engine makes grammars of them."""
    job = read(
        tools=[TOOL], tool_choice="required", response_format=SCHEMA, logprobs=True, top_logprobs=3
    )
    assert (job.tools, job.tool_choice, job.response_format) == ([TOOL], "required", SCHEMA)
    assert (job.logprobs, job.top_logprobs) == (True, 3)


def test_a_second_call_can_be_forbidden():
    """It is the answer's business too, because not every engine keeps to it."""
    assert not ask(tools=[TOOL], parallel_tool_calls=False).is_parallel
    assert ask(tools=[TOOL], parallel_tool_calls=True).is_parallel
    assert ask(tools=[TOOL]).is_parallel


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_a_schema_beside_its_type_is_meant_as_one(kind):
    """As llama-server's clients write it; to ignore it would be to answer in any form."""
    schema = {"type": "object", "required": ["zz"]}
    form = read(response_format={"type": kind, "schema": schema}).response_format
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"] == schema
    assert read(response_format={"type": "json_object"}).response_format == {"type": "json_object"}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": []}, "tools"),
        ({"tools": [], "tool_choice": "auto"}, "tool_choice"),
        ({"response_format": {"type": "text"}}, "response_format"),
    ],
)
def test_what_clients_send_and_do_not_mean_is_nothing(fields, name):
    """LangChain sends empty tools, others the default format."""
    assert getattr(read(**fields), name) is None


def test_functions_are_answered_in_their_own_words():
    """A client of 2023 reads `function_call` only."""
    asked = ask(functions=[{"name": "f"}])
    assert asked.is_legacy
    assert not ask(tools=[TOOL]).is_legacy


def test_several_choices_are_several_jobs():
    """As many as were asked for, all alike."""
    asked = ask(n=3, stream=True)
    assert [job.messages for job in asked.others] == [asked.job.messages] * 2
    assert all(job.stream for job in asked.others)
    assert ask(n=1).others == ()


def test_spoken_answers_are_only_refused_where_they_are_wanted():
    """`modalities: ["text"]` is the default by another name."""
    assert read(modalities=["text"], audio={"voice": "alloy"}).extras is None


BAD = [
    ({"messages": None}, "messages", "missing"),
    ({"top_logprobs": 2}, "top_logprobs", "needs 'logprobs': true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "0 to 20"),
    ({"response_format": "json"}, "response_format", "an object"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "'schema'"),
    ({"modalities": ["text", "audio"]}, "modalities", "Answers are text"),
    ({"web_search_options": {}}, "web_search_options", "a search of your own"),
    ({"extra": {"big": 2**70}}, None, "64 bits"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD)
def test_a_bad_chat_is_refused_by_name(fields, param, words):
    """Before anything is routed, in words that say what to send."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert words in caught.value.message


def test_a_job_made_here_crosses_the_relay():
    """What is accepted at the door is never refused on the way."""
    job = read(
        tools=[TOOL],
        tool_choice="auto",
        response_format=SCHEMA,
        logit_bias={"1": 2},
        stop="x",
        seed=2**64 - 1,
        grammar="root ::= x",
    )
    assert decode_job(encode_job(job)) == job
