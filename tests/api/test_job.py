"""What OpenAI's bodies share, read through chat, which has all of it."""

import pytest

from meshd.api.chat import read_chat
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.job import further, numbered_id, session_key
from protocol.jobs import Sampling
from tests.api.scripted import CHAT, USER


def ask(header="", priority="interactive", **fields):
    return read_chat(CHAT | fields, Asker("r1", header, "me", priority))


def read(**fields):
    return ask(**fields).job


def test_the_smallest_chat():
    """Everything that was not said is left to the engine."""
    job = read()
    assert (job.request_id, job.kind, job.model, job.person) == ("r1", "chat", "tiny", "me")
    assert job.messages == tuple(USER)
    assert job.sampling == Sampling()
    assert (job.max_tokens, job.stop, job.stream, job.extras) == (None, (), False, None)


@pytest.mark.parametrize(("sent", "meant"), [(-1, None), (-2, -2), (0, 0), (None, None)])
def test_minus_one_is_no_seed(sent, meant):
    """Other servers' clients ask for a random one so; as a number it gave everybody one answer."""
    assert read(seed=sent).sampling.seed == meant


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
    assert ask(**options, stream=True).include_usage
    assert not ask(**options).include_usage
    assert not ask(stream=True).include_usage


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
    assert ask(header, **fields).job.session == session


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
    ({"temperature": 2.1}, "temperature", "0 to 2"),
    ({"temperature": "hot"}, "temperature", "must be a number"),
    ({"top_p": -0.1}, "top_p", "0 to 1"),
    ({"max_tokens": 0}, "max_tokens", "at least 1"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "at least 1"),
    ({"max_tokens": 1.5}, "max_tokens", "an integer"),
    ({"max_tokens": 2**40}, "max_tokens", "it must be"),
    ({"n": 129}, "n", "it must be"),
    ({"service_tier": "gold"}, "service_tier", "auto, default"),
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
    ({"user": 5}, "user", "must be a string"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD)
def test_a_bad_field_is_refused_by_name(fields, param, words):
    """Before anything is routed, in words that say what to send."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("header", "tier", "priority"),
    [
        ("interactive", "auto", "interactive"),
        ("interactive", None, "interactive"),
        ("interactive", "fast", "interactive"),
        ("interactive", "flex", "batch"),
        ("interactive", "batch", "batch"),
        ("batch", "priority", "batch"),
        ("batch", None, "batch"),
    ],
)
def test_what_may_wait_says_so(header, tier, priority):
    """By header or by tier; no tier takes back what the header gave away."""
    assert read(priority=header, service_tier=tier).priority == priority


def test_what_names_or_bills_does_not_travel():
    """No engine needs it, and it may tell who asks."""
    fields = {
        "metadata": {"a": "b"},
        "store": True,
        "safety_identifier": "u-1",
        "user": "ann",
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_retention": "24h",
    }
    assert read(**fields).extras is None


def test_null_is_not_given_whatever_the_field():
    """An engine that knows the field would say that it must be something else."""
    assert read(chat_template_kwargs=None, grammar=None, min_tokens=3).extras == {"min_tokens": 3}


def test_every_choice_has_its_own_id_and_seed():
    """Equal seeds would give equal answers, equal ids would mix them."""
    asked = ask(n=3, seed=2**63 - 2)
    jobs = (asked.job, *asked.others)
    assert [job.request_id for job in jobs] == ["r1", "r1+1", "r1+2"]
    assert [job.sampling.seed for job in jobs] == [2**63 - 2, 2**63 - 1, 0]
    assert [job.sampling.seed for job in further(read(), 2)] == [None]


def test_the_number_of_a_choice_outlives_a_long_id():
    """The gateway cuts ids off at 80 characters and adds its own number."""
    one, two = numbered_id("x" * 96, 1), numbered_id("x" * 96, 2)
    assert one != two
    assert len(one) <= 80
