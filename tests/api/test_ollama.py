"""Ollama's two verbs to one job."""

import json

import pytest

from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.ollama import OLLAMA_CHAT, read_chat, read_generate, refuse
from protocol.jobs import Job, Sampling

ASKER = Asker("r", session="s", person="anna", priority="batch")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
USER = [{"role": "user", "content": "Hi"}]


def chat(**body):
    return read_chat({"model": "tiny", "messages": USER} | body, ASKER)


def generate(**body):
    return read_generate({"model": "tiny", "prompt": "Hi"} | body, ASKER)


def test_a_chat_with_everything():
    """As Home Assistant sends it, and some more."""
    asked = chat(
        messages=[{"role": "system", "content": "Be brief."}, *USER],
        tools=[TOOL],
        format="json",
        options={"num_ctx": 8192.0, "temperature": 0.5, "num_predict": 9, "mirostat": 2},
        keep_alive="-1s",
        think=False,
        logprobs=True,
        truncate=True,
    )
    assert asked.job == Job(
        request_id="r",
        kind="chat",
        model="tiny",
        messages=({"role": "system", "content": "Be brief."}, USER[0]),
        tools=[TOOL],
        response_format={"type": "json_object"},
        max_tokens=9,
        sampling=Sampling(temperature=0.5),
        logprobs=True,
        stream=True,
        extras={"mirostat": 2, "chat_template_kwargs": {"enable_thinking": False}},
        session="s",
        person="anna",
        priority="batch",
    )
    assert asked.lines == "x-mesh-left-out: keep_alive, num_ctx\r\n"
    assert not asked.loads


@pytest.mark.parametrize(("given", "stream"), [({}, True), ({"stream": False}, False)])
def test_a_stream_unless_said_otherwise(given, stream):
    """The other way round than everywhere else."""
    assert chat(**given).job.stream is stream
    assert generate(**given).job.stream is stream


def test_a_begun_answer_is_gone_on_with():
    """As Ollama does it; a call of a tool is no beginning, and a question is none."""
    begun = {"role": "assistant", "content": "1, 2,"}
    call = {"function": {"name": "f", "arguments": {}}}
    assert chat(messages=[*USER, begun]).job.extras == {
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    assert chat(messages=[*USER, begun | {"tool_calls": [call]}]).job.extras is None
    assert chat(messages=[*USER, begun, *USER]).job.extras is None
    assert generate().job.extras is None


def test_a_prompt_is_a_conversation_of_one_turn():
    """The model's own chat template is used, as in Ollama."""
    job = generate(system="Be brief.", tools=[]).job
    assert (job.kind, job.prompt) == ("chat", None)
    assert job.messages == ({"role": "system", "content": "Be brief."}, USER[0])


def test_a_raw_prompt_goes_as_it_is():
    """No template, no turns."""
    job = generate(raw=True, prompt="<s>Hi").job
    assert (job.kind, job.prompt, job.messages) == ("completion", "<s>Hi", ())


@pytest.mark.parametrize(
    "asked",
    [
        chat(messages=[]),
        chat(messages=None, stream=True, keep_alive=-1),
        generate(prompt=""),
        generate(prompt="", raw=True),
    ],
)
def test_no_words_load_the_model(asked):
    """With the smallest job there is, whole, and for the account of who asked."""
    job = asked.job
    assert asked.loads
    assert (job.kind, job.max_tokens, job.stream, job.model) == ("chat", 1, False, "tiny")
    assert (job.person, job.priority) == ("anna", "batch")


@pytest.mark.parametrize(
    ("ask", "body"),
    [(chat, {"messages": [], "keep_alive": 0}), (generate, {"prompt": "", "keep_alive": "0s"})],
)
def test_nobody_unloads_a_model_that_others_use(ask, body):
    """The answer says who can."""
    with pytest.raises(ApiError, match="meshctl models unload"):
        ask(**body)


def test_unloading_after_an_answer_is_left_out_and_said():
    """A wish, not a question: the answer comes."""
    assert chat(keep_alive=0).lines == "x-mesh-left-out: keep_alive\r\n"


def test_fields_that_ollama_does_not_have_are_named_and_go_nowhere():
    """A strict server behind a node would refuse the whole request for them."""
    asked = chat(metadata={"a": 1}, tool_ids=[], parallel_tool_calls=False, tools=[TOOL])
    assert asked.lines == "x-mesh-left-out: metadata, tool_ids\r\n"
    assert asked.job.extras == {"parallel_tool_calls": False}


def test_the_older_name_of_the_model_field():
    """Clients of 2023 still run."""
    assert read_chat({"name": "tiny", "messages": USER}, ASKER).job.model == "tiny"


@pytest.mark.parametrize(
    ("ask", "body", "param"),
    [
        (chat, {"model": ""}, "model"),
        (chat, {"stream": "yes"}, "stream"),
        (chat, {"tools": [1]}, "tools[0]"),
        (chat, {"options": []}, "options"),
        (chat, {"format": "xml"}, "format"),
        (generate, {"prompt": 5}, "prompt"),
        (generate, {"template": "{{ .Prompt }}"}, "template"),
        (generate, {"suffix": "}"}, "suffix"),
        (generate, {"context": [1, 2]}, "context"),
        (generate, {"raw": True, "system": "Be brief."}, "system"),
        (generate, {"raw": True, "images": ["iVBORw0KGgo="]}, "images"),
    ],
)
def test_what_is_not_served_is_refused_by_name(ask, body, param):
    """Never left out in silence."""
    with pytest.raises(ApiError) as caught:
        ask(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_empty_fields_of_careful_clients_are_nothing():
    """`template: ""`, `suffix: ""`, `context: []`, `images: []` mean what they say."""
    asked = generate(template="", suffix="", context=[], images=[], system="", raw=False)
    assert asked.job.messages == (USER[0],)


def test_an_error_is_one_sentence():
    """Under `error`, as the official clients show it."""
    status, body = refuse(ApiError(404, "no such model", code="model_not_found"), "r")
    assert (status, json.loads(body)) == (404, {"error": "no such model"})


def test_streams_are_lines_of_json():
    """And are announced as that."""
    assert "application/x-ndjson" in OLLAMA_CHAT.stream_lines
