"""OpenAI's request bodies to one Job."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.job import chat, completion, session_key
from protocol.codec import decode_job, encode_job
from protocol.jobs import Sampling
from tests.api.scripted import CHAT, USER

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
TEXT = {"model": "tiny", "prompt": "Once"}


def read(**fields):
    return chat(CHAT | fields, "r1").job


def test_the_smallest_chat():
    """Everything that was not said is left to the engine."""
    job = chat(CHAT, "r1").job
    assert (job.request_id, job.kind, job.model) == ("r1", "chat", "tiny")
    assert job.messages == tuple(USER)
    assert job.sampling == Sampling()
    assert (job.max_tokens, job.stop, job.stream, job.extras) == (None, (), False, None)


def test_sampling_is_read_whole():
    """OpenAI's names, and those that local engines add."""
    job = read(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        presence_penalty=-1,
        frequency_penalty=1.5,
        repeat_penalty=1.1,
        seed=-7,
        logit_bias={"50256": -100, "9": 0.5, "8": None},
    )
    assert job.sampling == Sampling(
        0.5, 0.9, 40, 0.05, -1.0, 1.5, 1.1, -7, ((50256, -100.0), (9, 0.5))
    )
    assert job.extras is None


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": -1}, None),
        ({"max_tokens": None}, None),
    ],
)
def test_both_names_of_the_token_limit_are_known(fields, tokens):
    """LangChain sends only the newer, Claude-made scripts only the older, LM Studio's -1."""
    assert read(**fields).max_tokens == tokens


@pytest.mark.parametrize(
    ("stop", "sequences"), [("\n", ("\n",)), (["a", "b"], ("a", "b")), ([], ()), (None, ())]
)
def test_stop_is_a_string_or_an_array(stop, sequences):
    """Both forms mean the same."""
    assert read(stop=stop).stop == sequences


@pytest.mark.parametrize(("top_k", "meant"), [(-1, 0), (0, 0), (1, 1)])
def test_both_spellings_of_all_tokens_are_known(top_k, meant):
    """vLLM's clients send -1 where llama.cpp's send 0."""
    assert read(top_k=top_k).sampling.top_k == meant


def test_what_nobody_here_knows_travels_on():
    """An engine's own options need no change here."""
    extras = {"grammar": "root ::= x", "chat_template_kwargs": {"enable_thinking": False}}
    assert read(**extras).extras == extras


def test_usage_is_included_only_where_a_stream_asks():
    """A whole answer has it anyway."""
    options = {"stream_options": {"include_usage": True}}
    assert chat(CHAT | options | {"stream": True}, "r").include_usage
    assert not chat(CHAT | options, "r").include_usage
    assert not chat(CHAT | {"stream": True}, "r").include_usage


def test_tools_and_formats_are_passed_on():
    """The engine makes grammars of them."""
    job = read(
        tools=[TOOL], tool_choice="required", response_format=SCHEMA, logprobs=True, top_logprobs=3
    )
    assert (job.tools, job.tool_choice, job.response_format) == ([TOOL], "required", SCHEMA)
    assert (job.logprobs, job.top_logprobs) == (True, 3)


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


def test_a_named_tool_is_a_choice():
    """instructor's default mode."""
    choice = {"type": "function", "function": {"name": "f"}}
    assert read(tools=[TOOL], tool_choice=choice).tool_choice == choice


@pytest.mark.parametrize(
    ("fields", "header", "session"),
    [
        ({"prompt_cache_key": "k", "user": "u"}, "h", "k"),
        ({"user": "u"}, "h", "h"),
        ({"user": "u"}, "", "u"),
        ({}, "", ""),
    ],
)
def test_the_most_telling_hint_names_the_session(fields, header, session):
    """A cache key is about this conversation, a user about all of one person's."""
    assert chat(CHAT | fields, "r", header).job.session == session


def test_a_long_session_hint_is_hashed():
    """Equal hints stay equal, different ones different, and both fit on the wire."""
    one, two = session_key("x" * 300 + "1"), session_key("x" * 300 + "2")
    assert one != two
    assert len(one) == 32
    assert session_key("x" * 256) == "x" * 256


BAD = [
    ({"model": None}, "model", "GET /v1/models"),
    ({"model": ""}, "model", "GET /v1/models"),
    ({"model": 5}, "model", "must be a string"),
    ({"model": "x" * 257}, "model", "at most 256"),
    ({"messages": None}, "messages", "missing"),
    ({"temperature": 2.1}, "temperature", "0 to 2"),
    ({"temperature": "hot"}, "temperature", "must be a number"),
    ({"top_p": -0.1}, "top_p", "0 to 1"),
    ({"max_tokens": 0}, "max_tokens", "at least 1"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "at least 1"),
    ({"max_tokens": 1.5}, "max_tokens", "an integer"),
    ({"max_tokens": 2**40}, "max_tokens", "it must be"),
    ({"n": 2}, "n", "Send 2 requests"),
    ({"n": 0}, "n", "it must be"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "true or false"),
    ({"stop": 5}, "stop", "must be a string or an array"),
    ({"stop": ["a", 5]}, "stop", "holds an integer"),
    ({"stop": ""}, "stop", "0 characters"),
    ({"stop": ["a"] * 17}, "stop", "17 entries; 16"),
    ({"seed": 1.5}, "seed", "an integer"),
    ({"logit_bias": {"tok": 1}}, "logit_bias", "keys must be token ids"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1", "-100 to 100"),
    ({"logit_bias": {"9" * 30: 1}}, "logit_bias", "keys must be token ids"),
    ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias", "1025 entries"),
    ({"top_logprobs": 2}, "top_logprobs", "needs 'logprobs': true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "0 to 20"),
    ({"tools": {}}, "tools", "an array"),
    ({"tools": ["f"]}, "tools[0]", "an object with 'type'"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "an object with 'type'"),
    ({"tools": [{"function": {}}]}, "tools[0].function.name", "Every tool needs a name"),
    (
        {"tools": [{"function": {"name": "f", "parameters": "x"}}]},
        "tools[0].function.parameters",
        "an object",
    ),
    ({"tool_choice": "required"}, "tool_choice", "'tools' is empty"),
    ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice", "must be auto, none, required"),
    ({"tools": [TOOL], "tool_choice": {"function": "f"}}, "tool_choice", "looks like"),
    ({"tools": [TOOL], "tool_choice": 5}, "tool_choice", "a string or an object"),
    ({"response_format": "json"}, "response_format", "an object"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "'schema'"),
    ({"functions": []}, "functions", "Use 'tools'"),
    ({"function_call": "auto"}, "function_call", "Use 'tools'"),
    ({"user": 5}, "user", "must be a string"),
    ({"metadata": {"big": 2**70}}, None, "64 bits"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD)
def test_a_bad_field_is_refused_by_name(fields, param, words):
    """Before anything is routed, in words that say what to send."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_a_completion_of_text(prompt):
    """One prompt may also come as an array of one."""
    job = completion(TEXT | {"prompt": prompt, "logprobs": 2}, "r1").job
    assert (job.kind, job.prompt, job.prompt_tokens) == ("completion", "Once", None)
    assert (job.logprobs, job.top_logprobs) == (True, 2)


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
def test_a_completion_of_token_ids(prompt):
    """As evaluation tools send them."""
    job = completion(TEXT | {"prompt": prompt}, "r1").job
    assert (job.prompt, job.prompt_tokens) == (None, (1, 2, 3))


def test_a_long_prompt_of_token_ids_is_not_a_long_list():
    """Token ids cross the relay packed, so the bound on lists is not theirs."""
    assert len(completion(TEXT | {"prompt": [7] * 20_000}, "r").job.prompt_tokens) == 20_000


def test_zero_logprobs_are_still_logprobs():
    """The older API asks for the chosen token alone with 0."""
    job = completion(TEXT | {"logprobs": 0}, "r1").job
    assert (job.logprobs, job.top_logprobs) == (True, 0)


BAD_COMPLETIONS = [
    ({"prompt": None}, "prompt", "missing"),
    ({"prompt": ""}, "prompt", "empty"),
    ({"prompt": []}, "prompt", "empty"),
    ({"prompt": 5}, "prompt", "must be a string"),
    ({"prompt": ["a", "b"]}, "prompt", "Send 2 requests"),
    ({"prompt": [[1], [2], [3]]}, "prompt", "Send 3 requests"),
    ({"prompt": [1, "a"]}, "prompt", "token ids only"),
    ({"prompt": [1, -2]}, "prompt", "token ids only"),
    ({"prompt": [1, True]}, "prompt", "token ids only"),
    ({"prompt": [1] * 1_048_577}, "prompt", "at most 1048576"),
    ({"echo": True}, "echo", "Prepend the prompt"),
    ({"suffix": "end"}, "suffix", "fill-in-the-middle"),
    ({"best_of": 2}, "best_of", "Send several requests"),
    ({"extra": {"big": 2**70}}, None, "64 bits"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD_COMPLETIONS)
def test_a_bad_completion_is_refused_by_name(fields, param, words):
    """What is known and not served is refused, never ignored."""
    with pytest.raises(ApiError) as caught:
        completion(TEXT | fields, "r")
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    "job",
    [
        read(
            tools=[TOOL],
            tool_choice="auto",
            response_format=SCHEMA,
            logit_bias={"1": 2},
            stop="x",
            seed=2**64 - 1,
            grammar="root ::= x",
        ),
        completion(TEXT | {"prompt": [1, 2]}, "r").job,
    ],
)
def test_every_job_made_here_crosses_the_relay(job):
    """What is accepted at the door is never refused on the way."""
    assert decode_job(encode_job(job)) == job
