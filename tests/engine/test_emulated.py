"""Claims of meshd.engine.emulated that are its own; the contract suite holds the rest."""

from __future__ import annotations

import asyncio
import io
import json
import math
import wave
from array import array
from dataclasses import replace

import pytest
import uvloop

from meshd.core.ports import EngineError
from meshd.core.routing.prefix import cached_ratio, cuts_of
from meshd.engine.emulated import QUEUE_MAX, EmulatedEngine
from meshd.engine.prose import OPENING
from meshd.engine.spec import EmulatedSpec
from protocol.jobs import Failure, Finish, Job, RawHead, RawPart, RawRequest, Sampling, TextDelta

QUICK = EmulatedSpec(prompt_tps=1e6, generation_tps=1e6)
JOB = Job(
    "r",
    "chat",
    "emulated",
    messages=({"role": "user", "content": "hello"},),
    sampling=Sampling(seed=1),
)


def raw_job(path: str) -> Job:
    """A request that nobody reads."""
    return Job("r", "raw", "emulated", raw=RawRequest(path, "application/json", b"{}"))


LONG = replace(JOB, max_tokens=30, extras={"ignore_eos": True})


async def test_the_answer_says_that_it_is_emulated(answer):
    """Nobody may take it for a model's words."""
    text, (finish,) = await answer(EmulatedEngine(QUICK), JOB)
    assert text.startswith(OPENING)
    assert not finish.counted
    assert EmulatedEngine(QUICK).models()[0].emulated


async def test_two_machines_give_the_same_answer(answer):
    """Words follow from the question, not from the machine."""
    one, _ = await answer(EmulatedEngine(replace(QUICK, name="a", slots=1)), JOB)
    two, _ = await answer(EmulatedEngine(replace(QUICK, name="b", slots=9)), JOB)
    assert one == two


async def test_another_question_or_seed_gets_another_answer(answer):
    """Tests can tell answers apart."""
    engine = EmulatedEngine(QUICK)
    texts = {
        (await answer(engine, job))[0]
        for job in (
            LONG,
            replace(LONG, sampling=Sampling(seed=2)),
            replace(LONG, messages=({"role": "user", "content": [{"text": "other"}]},)),
            replace(LONG, kind="completion", messages=(), prompt="third"),
        )
    }
    assert len(texts) == 4


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 61, 63])
async def test_an_answer_can_be_continued_where_it_broke(answer, cut):
    """Inside a word or behind one: what was said and what the next machine adds is the whole
    answer."""
    whole, _ = await answer(EmulatedEngine(QUICK), LONG)
    said = whole[:cut]
    job = replace(LONG, prefix_text=said, max_tokens=None, extras=None)
    spec = replace(QUICK, tokens=LONG.max_tokens)
    rest, _ = await answer(EmulatedEngine(spec), job)
    assert (said + rest).startswith(whole[: len(whole) - 20])


async def test_the_end_of_a_word_has_no_number():
    """The other machine's words had; half of one is none of them."""
    job = replace(JOB, prefix_text="Th", max_tokens=3)
    batches = [batch async for batch in EmulatedEngine(QUICK).generate(job)]
    deltas = [event for batch in batches for event in batch if isinstance(event, TextDelta)]
    assert "".join(delta.text for delta in deltas) == "is answer is"
    assert [each for delta in deltas for each in delta.token_ids] == [2, 3]


async def test_the_natural_length_can_be_chosen(answer):
    """For benchmarks and demonstrations."""
    _, (finish,) = await answer(EmulatedEngine(replace(QUICK, tokens=5)), JOB)
    assert (finish.reason, finish.completion_tokens) == ("stop", 5)


async def test_nothing_is_said_when_nothing_was_asked_for(answer):
    """max_tokens 0 is an answer without words."""
    text, (finish,) = await answer(EmulatedEngine(QUICK), replace(JOB, max_tokens=0))
    assert (text, finish.reason, finish.completion_tokens) == ("", "length", 0)


@pytest.mark.parametrize(
    ("spec", "job", "code"),
    [
        (replace(QUICK, ctx=16), replace(JOB, prompt="x" * 99, kind="completion"),
         "context_length_exceeded"),
        (replace(QUICK, ctx=16), replace(JOB, messages=({"content": "x" * 99},)),
         "context_length_exceeded"),
        (QUICK, replace(JOB, kind="embedding", messages=(), inputs=("a",)), "unsupported"),
        (QUICK, replace(JOB, messages=({"content": [{"type": "image_url"}]},)), "bad_request"),
        (replace(QUICK, can=("speech",)), raw_job("/v1/images/edits"), "unsupported"),
        (replace(QUICK, can=("speech",)), raw_job("/v1/rerank"), "unsupported"),
        (replace(QUICK, fault="refuse"), JOB, "overloaded"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_refused_at_once(answer, spec, job, code):
    """Before a slot is taken."""
    text, (failure,) = await answer(EmulatedEngine(spec), job)
    assert (text, failure.code) == ("", code)


async def test_embeddings_follow_from_their_texts(answer):
    """Where the SPEC says that it can; each of length 1, and no tokens are made."""
    engine = EmulatedEngine(replace(QUICK, can=("embedding",)))
    job = replace(JOB, kind="embedding", messages=(), inputs=("a", "b", "a"))
    _, (one, two, again, finish) = await answer(engine, job)
    numbers = array("f", one.values)
    assert one.values == again.values != two.values
    assert math.hypot(*numbers) == pytest.approx(1.0)
    assert (finish.completion_tokens, finish.prompt_tokens > 0) == (0, True)


async def test_an_emulated_machine_speaks(answer):
    """A WAV that says nothing, in several parts, and its type before them."""
    engine = EmulatedEngine(replace(QUICK, can=("speech",)))
    _, (head, *parts, finish) = await answer(engine, raw_job("/v1/audio/speech"))
    assert head == RawHead(200, "audio/wav")
    assert all(isinstance(part, RawPart) for part in parts)
    with wave.open(io.BytesIO(b"".join(part.data for part in parts))) as sound:
        assert sound.getnframes() == 800
    assert (finish.completion_tokens, finish.counted) == (0, False)


@pytest.mark.parametrize(
    ("path", "can", "key"),
    [
        ("/v1/audio/transcriptions", "transcription", "text"),
        ("/v1/audio/translations", "transcription", "text"),
        ("/v1/images/generations", "image", "data"),
    ],
)
async def test_an_emulated_machine_listens_and_draws(answer, path, can, key):
    """JSON of the form that clients expect, which says that it is emulated where it has words."""
    engine = EmulatedEngine(replace(QUICK, can=(can,)))
    _, (head, *parts, _) = await answer(engine, raw_job(path))
    assert head.content_type == "application/json"
    assert json.loads(b"".join(part.data for part in parts))[key]


async def test_a_raw_answer_breaks_off_like_any_other(answer):
    """After as many parts as the fault says."""
    spec = replace(QUICK, can=("speech",), fault="crash", fault_after=2)
    _, (_, part, failure) = await answer(EmulatedEngine(spec), raw_job("/v1/audio/speech"))
    assert isinstance(part, RawPart)
    assert failure.code == "engine_failed"


async def test_a_crash_fails_the_job_after_so_many_tokens(answer):
    """As when a worker process dies in the middle."""
    spec = replace(QUICK, fault="crash", fault_after=4)
    text, (failure,) = await answer(EmulatedEngine(spec), LONG)
    assert text.split() == OPENING.split()[:4]
    assert (failure.code, failure.elsewhere) == ("engine_failed", True)


async def test_a_truncated_answer_calls_itself_whole(answer):
    """The fault that nobody can see from outside."""
    spec = replace(QUICK, fault="truncate", fault_after=4)
    text, (finish,) = await answer(EmulatedEngine(spec), LONG)
    assert (len(text.split()), finish.reason) == (4, "stop")


async def test_a_stalled_answer_says_no_more_until_its_asker_leaves():
    """And then its slot is free."""
    engine = EmulatedEngine(replace(QUICK, slots=1, fault="stall", fault_after=1, fault_every=2))
    assert isinstance([batch async for batch in engine.generate(LONG)][-1][-1], Finish)
    stream = engine.generate(LONG)
    await anext(stream)
    pending = asyncio.ensure_future(anext(stream))
    done, _ = await asyncio.wait([pending], timeout=0.05)
    assert not done
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)
    assert isinstance([batch async for batch in engine.generate(LONG)][-1][-1], Finish)


async def test_a_slow_answer_still_comes(answer):
    """Slower, and whole."""
    spec = replace(QUICK, generation_tps=2000.0, fault="slow", fault_after=25)
    text, (finish,) = await answer(EmulatedEngine(spec), LONG)
    assert len(text.split()) == finish.completion_tokens == 30


async def test_a_fault_strikes_every_nth_job(answer):
    """Two good answers, then a bad one."""
    engine = EmulatedEngine(replace(QUICK, fault="crash", fault_every=3))
    ends = [(await answer(engine, JOB))[1][-1] for _ in range(6)]
    assert [isinstance(end, Failure) for end in ends] == [False, False, True] * 2


def test_a_model_that_was_loaded_is_warm_on_the_loop_of_the_daemon_too():
    """Its timers go off up to a millisecond early."""

    async def loaded(load_s):
        engine = EmulatedEngine(replace(QUICK, load_s=load_s))
        await engine.load("emulated")
        return engine.stats()[0].warm

    async def many():
        return [await loaded(0.001 + step / 20_000) for step in range(40)]

    assert all(uvloop.run(many()))


async def test_a_cold_model_says_how_long_it_takes_and_loads_when_asked(answer):
    """A job for it waits for the load."""
    engine = EmulatedEngine(replace(QUICK, load_s=0.05))
    assert (engine.stats()[0].warm, engine.stats()[0].load_s) == (False, 0.05)
    _, (finish,) = await answer(engine, JOB)
    assert isinstance(finish, Finish)
    assert (engine.stats()[0].warm, engine.stats()[0].load_s) == (True, 0.0)
    await engine.unload("emulated")
    assert not engine.stats()[0].warm
    await engine.load("emulated")
    assert engine.stats()[0].warm


async def test_a_second_turn_is_read_from_the_cache(answer):
    """Counted as cached, told in the load report, and gone with the model."""
    engine = EmulatedEngine(QUICK)
    first = replace(JOB, messages=({"role": "user", "content": "word " * 200},))
    second = replace(first, messages=(*first.messages, {"role": "user", "content": "more"}))
    _, (cold,) = await answer(engine, first)
    assert cold.cached_tokens == 0
    assert cached_ratio(engine.stats()[0].prefixes, cuts_of(second)) > 0.9
    _, (warm,) = await answer(engine, second)
    assert warm.cached_tokens > 0.9 * warm.prompt_tokens
    assert warm.prompt_s < 0.1 * cold.prompt_s
    await engine.unload("emulated")
    assert engine.stats()[0].prefixes == b""


async def test_a_busy_model_is_not_unloaded():
    """Nor is a model that is not there."""
    engine = EmulatedEngine(replace(QUICK, fault="stall", fault_after=1))
    stream = engine.generate(LONG)
    await anext(stream)
    with pytest.raises(EngineError, match="busy"):
        await engine.unload("emulated")
    with pytest.raises(EngineError, match="no model"):
        await engine.unload("other")
    await stream.aclose()


async def test_the_load_report_counts_who_runs_and_who_waits():
    """And says what the machine was told to be."""
    engine = EmulatedEngine(replace(QUICK, slots=1, fault="stall", fault_after=1))
    streams = [engine.generate(LONG) for _ in range(3)]
    tasks = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    (load,) = engine.stats()
    assert (load.in_flight, load.queued, load.slots) == (1, 2, 1)
    assert (load.prompt_tps, load.generation_tps) == (1e6, 1e6)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for stream in streams:
        await stream.aclose()


async def test_a_queue_has_an_end():
    """Beyond it jobs are refused, not kept."""
    engine = EmulatedEngine(replace(QUICK, slots=1, fault="stall", fault_after=1))
    tasks = [asyncio.ensure_future(anext(engine.generate(LONG))) for _ in range(QUEUE_MAX + 2)]
    await asyncio.sleep(0.05)
    ((failure,),) = [task.result() for task in tasks if task.done()][-1:]
    assert failure.code == "overloaded"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
