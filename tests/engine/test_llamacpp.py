"""What llama.cpp makes of a job, through the whole engine and with the real SmolLM2."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytest_asyncio

from meshd.core.routing.prefix import cached_ratio, cuts_of
from meshd.engine.bundled import bundled_gguf
from meshd.engine.supervisor import LlamaEngine, WorkerOptions
from protocol.jobs import Finish, Job, Sampling, TextDelta

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

GREEDY = Sampling(temperature=0.0)
FRANCE = Job(
    "r", "completion", "m", prompt="The capital of France is", max_tokens=1, sampling=GREEDY
)
QUESTION = Job(
    "r",
    "chat",
    "m",
    messages=({"role": "user", "content": "What is the capital of France?"},),
    max_tokens=24,
    sampling=GREEDY,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine():
    """One worker for the module: two slots of 512 tokens."""
    made = LlamaEngine(bundled_gguf(), WorkerOptions(context=512, slots=2, threads=1, model_id="m"))
    await made.start()
    yield made
    await made.close()


async def test_a_completion_is_the_models_own_continuation(engine, answer):
    """The one fact that a 135M model is sure of."""
    text, _ = await answer(engine, FRANCE)
    assert text == " Paris"


async def test_a_chat_is_put_in_the_models_own_form(engine, answer):
    """Rendered as llama.cpp renders ChatML: 16 tokens, no system prompt of the template's."""
    text, (finish,) = await answer(engine, QUESTION)
    assert "Paris" in text
    assert (finish.reason, finish.prompt_tokens) == ("stop", 16)


async def test_an_alias_names_the_same_model(engine, answer):
    """People know the file by its name."""
    text, _ = await answer(engine, replace(FRANCE, model="SmolLM2-135M-Instruct.Q4_1"))
    assert text == " Paris"


async def test_the_next_turn_of_a_conversation_reads_only_what_is_new(engine, answer):
    """Two turns in a row share all but the end."""
    long = "word " * 100
    _, (first,) = await answer(engine, replace(FRANCE, prompt=long))
    _, (second,) = await answer(engine, replace(FRANCE, prompt=f"{long}and more"))
    assert first.cached_tokens < 10
    assert second.cached_tokens > 90


async def test_an_answer_goes_on_exactly_from_its_tokens(engine, answer):
    """Another machine with the same file can carry on: no letter lost, none doubled."""
    job = replace(QUESTION, sampling=replace(GREEDY, seed=1), max_tokens=8)
    batches = [batch async for batch in engine.generate(job)]
    deltas = [event for batch in batches for event in batch if isinstance(event, TextDelta)]
    said = deltas[:3]
    ids = tuple(token for delta in said for token in delta.token_ids)
    text = "".join(delta.text for delta in said)
    for prefix in ({"prefix_tokens": ids, "prefix_text": text}, {"prefix_text": text}):
        rest, _ = await answer(engine, replace(job, max_tokens=5, **prefix))
        assert text + rest == "".join(delta.text for delta in deltas)


async def test_a_logit_bias_decides(engine, answer):
    """Forbidding the likeliest token gives another word."""
    batches = [batch async for batch in engine.generate(FRANCE)]
    (paris,) = batches[0][0].token_ids
    biased = replace(GREEDY, logit_bias=((paris, -100.0),))
    text, _ = await answer(engine, replace(FRANCE, sampling=biased))
    assert text != " Paris"


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=2.0, top_p=0.5, top_k=0, min_p=0.0, seed=-1),
        Sampling(presence_penalty=1.0, frequency_penalty=1.0, repeat_penalty=1.1, seed=2**64 - 1),
    ],
)
async def test_every_way_to_sample_gives_an_answer(engine, answer, sampling):
    """Defaults, extremes, and seeds of any size."""
    _, (finish,) = await answer(engine, replace(FRANCE, sampling=sampling, max_tokens=8))
    assert isinstance(finish, Finish)


async def test_one_token_likeliest_of_all_is_greedy(engine, answer):
    """top_k 1 leaves no choice, whatever the temperature."""
    text, _ = await answer(engine, replace(FRANCE, sampling=Sampling(top_k=1, temperature=5.0)))
    assert text == " Paris"


async def test_an_answer_may_be_told_not_to_end(engine, answer):
    """Benchmarks want as many tokens as they asked for."""
    job = replace(QUESTION, extras={"ignore_eos": True})
    _, (finish,) = await answer(engine, job)
    assert (finish.reason, finish.completion_tokens) == ("length", 24)


async def test_a_prompt_beyond_the_context_is_told_with_both_numbers(engine, answer):
    """And costs no slot."""
    _, (failure,) = await answer(engine, replace(FRANCE, prompt="word " * 600))
    assert failure.code == "context_length_exceeded"
    assert "512" in failure.message
    assert not failure.elsewhere


async def test_a_picture_is_refused_as_what_it_is(engine, answer):
    """A text model cannot see: the request is wrong, not the server."""
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = ({"role": "user", "content": [picture]},)
    _, (failure,) = await answer(engine, replace(QUESTION, messages=messages))
    assert failure.code == "bad_request"
    assert "text only" in failure.message


async def test_the_account_has_real_times(engine, answer):
    """Reading and writing are timed apart."""
    _, (finish,) = await answer(engine, replace(QUESTION, sampling=replace(GREEDY, seed=3)))
    assert finish.counted
    assert finish.prompt_s > 0
    assert finish.generation_s > 0


async def test_the_load_report_knows_the_speed(engine):
    """Measured at the load, then from traffic."""
    (load,) = engine.stats()
    assert load.prompt_tps > 0
    assert load.generation_tps > 0
    assert load.load_s == 0


async def test_the_record_tells_context_and_file(engine):
    """What the router filters by."""
    (record,) = engine.models()
    assert (record.context_length, record.quantisation) == (512, "Q4_1")
    assert record.size_bytes > 90_000_000
    assert record.fingerprint.startswith("gguf-")


async def test_the_engine_tells_which_conversation_it_holds(engine, answer):
    """So that the next turn can be sent here, without telling what was said."""
    await answer(engine, QUESTION)
    later = replace(QUESTION, messages=(*QUESTION.messages, {"role": "user", "content": "?"}))
    digest = engine.cached_prefixes("m")
    assert 0 < cached_ratio(digest, cuts_of(later)) < 1
    assert engine.cached_prefixes("another") == b""


async def test_a_model_can_do_what_its_template_lets_it(engine):
    """SmolLM2's has no place for tools."""
    (record,) = engine.models()
    assert record.capabilities == ("chat", "completion", "embedding")
