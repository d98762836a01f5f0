"""The body of a text completion to jobs."""

import pytest

from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.prompts import read_completion
from protocol.codec import decode_job, encode_job

TEXT = {"model": "tiny", "prompt": "Once"}


def read(**fields):
    return read_completion(TEXT | fields, Asker("r1", "s1", "me"))


def test_the_smallest_completion():
    """Who asks, for what, and nothing else."""
    job = read().job
    assert (job.request_id, job.session, job.person) == ("r1", "s1", "me")
    assert (job.prompt, job.extras) == ("Once", None)


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_a_completion_of_text(prompt):
    """One prompt may also come as an array of one."""
    job = read(prompt=prompt, logprobs=2).job
    assert (job.kind, job.prompt, job.prompt_tokens) == ("completion", "Once", None)
    assert (job.logprobs, job.top_logprobs) == (True, 2)


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
def test_a_completion_of_token_ids(prompt):
    """As evaluation tools send them."""
    job = read(prompt=prompt).job
    assert (job.prompt, job.prompt_tokens) == (None, (1, 2, 3))


def test_a_long_prompt_of_token_ids_is_not_a_long_list():
    """Token ids cross the relay packed, so the bound on lists is not theirs."""
    assert len(read(prompt=[7] * 20_000).job.prompt_tokens) == 20_000


def test_zero_logprobs_are_still_logprobs():
    """The older API asks for the chosen token alone with 0."""
    job = read(logprobs=0).job
    assert (job.logprobs, job.top_logprobs) == (True, 0)


BAD_COMPLETIONS = [
    ({"prompt": None}, "prompt", "missing"),
    ({"prompt": ""}, "prompt", "empty"),
    ({"prompt": []}, "prompt", "empty"),
    ({"prompt": 5}, "prompt", "must be a string"),
    ({"prompt": ["a"] * 129}, "prompt", "129 prompts"),
    ({"prompt": ["a", ""]}, "prompt", "empty"),
    ({"prompt": ["a"] * 65, "n": 2}, "n", "above 128"),
    ({"prompt": [1, "a"]}, "prompt", "or token ids"),
    ({"prompt": [[]]}, "prompt", "empty"),
    ({"prompt": [{}]}, "prompt", "or token ids"),
    ({"prompt": [1, -2]}, "prompt", "token ids only"),
    ({"prompt": [1, True]}, "prompt", "or token ids"),
    ({"prompt": [[1, "a"]]}, "prompt", "token ids only"),
    ({"prompt": [1] * 1_048_577}, "prompt", "at most 1048576"),
    ({"echo": True, "prompt": [1]}, "echo", "as text"),
    ({"echo": True, "logprobs": 1}, "echo", "Leave one out"),
    ({"suffix": "end"}, "suffix", "fill-in-the-middle"),
    ({"best_of": 2}, "best_of", "only equal ones"),
    ({"extra": {"big": 2**70}}, None, "64 bits"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD_COMPLETIONS)
def test_a_bad_completion_is_refused_by_name(fields, param, words):
    """What is known and not served is refused, never ignored."""
    with pytest.raises(ApiError) as caught:
        read(**fields)
    assert caught.value.param == param
    assert words in caught.value.message


def test_several_prompts_are_several_jobs():
    """Numbered prompt by prompt, as OpenAI numbers choices."""
    asked = read(prompt=["a", "b"], n=2, seed=5)
    jobs = (asked.job, *asked.others)
    assert [job.prompt for job in jobs] == ["a", "a", "b", "b"]
    assert [job.sampling.seed for job in jobs] == [5, 6, 5, 6]
    assert [job.request_id for job in jobs] == ["r1", "r1+1", "r1+2", "r1+3"]
    assert asked.per_prompt == 2


def test_several_prompts_of_token_ids():
    """The fourth form that OpenAI allows."""
    asked = read(prompt=[[1], [2, 3]])
    assert (asked.job.prompt_tokens, asked.others[0].prompt_tokens) == ((1,), (2, 3))
    assert asked.others[0].prompt is None


def test_echo_and_best_of_are_served_where_they_can_be():
    """A text in front of its answer needs no tokenizer; the best of as many is all of them."""
    asked = read(echo=True, best_of=2, n=2)
    assert asked.echo
    assert asked.job.extras is None


def test_every_job_made_here_crosses_the_relay():
    """What is accepted at the door is never refused on the way."""
    asked = read(prompt=[[1], [2]], n=2, grammar="x")
    for job in (asked.job, *asked.others):
        assert decode_job(encode_job(job)) == job
