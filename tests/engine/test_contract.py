"""What every engine owes its callers: one suite for emulated, llama.cpp, MLX and adopted servers.

The llama.cpp engine runs the real SmolLM2 in a real worker process, and MLX a cut-down one. Two
servers are adopted: a small one of ours, and a real llama-server where `.peers` has it.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from itertools import pairwise

import pytest
import pytest_asyncio

from benchmarks.engine_rival import PROGRAM
from meshd.core.ports import ENDINGS
from meshd.engine.bundled import bundled_gguf
from meshd.engine.emulated import EmulatedEngine
from meshd.engine.mlx import MlxEngine
from meshd.engine.spec import EmulatedSpec
from meshd.engine.supervisor import LlamaEngine, WorkerOptions
from meshd.engine.upstream import UpstreamEngine
from protocol.jobs import Failure, Finish, Job, Sampling, TextDelta
from tests.engine.mlx_folder import small_mlx_folder
from tests.engine.peers import BIN, free_port, needs_peer, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

SLOTS = 2
FAST = EmulatedSpec(slots=SLOTS, generation_tps=400.0, prompt_tps=10_000.0, model="contract")


async def _emulated(_stack, _server):
    return EmulatedEngine(FAST)


async def _llamacpp(_stack, _server):
    options = WorkerOptions(context=1024, slots=SLOTS, threads=1, model_id="contract")
    return LlamaEngine(bundled_gguf(), options)


async def _mlx(_stack, _server):
    options = WorkerOptions(context=1024, slots=SLOTS, model_id="contract")
    return MlxEngine(await asyncio.to_thread(small_mlx_folder), options)


async def _upstream(stack, server):
    serving = await stack.enter_async_context(server(EmulatedEngine(FAST)).serving())
    return UpstreamEngine(serving.url, slots=SLOTS)


async def _llama_server(stack, _server):
    port = free_port()
    numbers = (str(port), str(SLOTS), "1024", "1")
    command = (str(BIN / "python"), "-c", PROGRAM, str(bundled_gguf()), *numbers)
    url = f"http://127.0.0.1:{port}"
    await stack.enter_async_context(running(command, f"{url}/health"))
    return UpstreamEngine(url, "contract", slots=SLOTS)


KINDS = {
    "emulated": _emulated,
    "llamacpp": _llamacpp,
    "mlx": _mlx,
    "upstream": _upstream,
    "llama-server": _llama_server,
}
PEERS = {"llama-server": "xllamacpp"}


def _kind(name: str):
    return pytest.param(name, marks=needs_peer(PEERS[name]) if name in PEERS else ())


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=map(_kind, KINDS))
async def engine(request, openai_server):
    """A started engine of each kind, with two slots and the model `contract`."""
    async with AsyncExitStack() as stack:
        made = await KINDS[request.param](stack, openai_server)
        stack.push_async_callback(made.close)
        await made.start()
        yield made


def question(**changes) -> Job:
    """A short question with a short, repeatable answer."""
    job = Job(
        "contract-1",
        "chat",
        "contract",
        messages=({"role": "user", "content": "Tell me about the sea."},),
        max_tokens=16,
        sampling=Sampling(seed=7),
        stream=True,
    )
    return replace(job, **changes)


LONG = {"max_tokens": 700, "extras": {"ignore_eos": True}}


async def test_an_answer_ends_with_exactly_one_finish_and_it_comes_last(engine):
    """Whoever reads a stream may stop at its Finish, and always finds one."""
    events = [event async for batch in engine.generate(question()) for event in batch]
    ends = [event for event in events if isinstance(event, Finish | Failure)]
    assert ends == [events[-1]]
    assert isinstance(events[-1], Finish)


async def test_after_its_last_batch_a_stream_ends_at_once(engine):
    """Whoever has read the last word may let the stream run out instead of closing it."""
    stream = engine.generate(question())
    batch = await anext(stream)
    while not isinstance(batch[-1], ENDINGS):
        batch = await anext(stream)
    assert await asyncio.wait_for(anext(stream, None), 1.0) is None


async def test_batches_are_never_empty(engine):
    """A consumer may look at a batch's last event without asking."""
    assert all([batch async for batch in engine.generate(question())])


async def test_usage_counts_the_prompt_and_the_answer(engine, answer):
    """Token counts are there to be billed and routed by."""
    _, (finish,) = await answer(engine, question(max_tokens=5))
    assert finish.completion_tokens == 5
    assert finish.prompt_tokens > 3


async def test_max_tokens_ends_an_answer_for_length(engine, answer):
    """A bounded answer says that it was cut."""
    _, (finish,) = await answer(engine, question(max_tokens=3))
    assert finish.reason == "length"


async def test_a_seed_makes_an_answer_reproducible(engine, answer):
    """The same seed, the same words."""
    first, _ = await answer(engine, question())
    second, _ = await answer(engine, question())
    assert first
    assert first == second


async def test_a_stop_string_ends_the_answer_before_it(engine, answer):
    """Neither the stop string nor anything after it is shown."""
    whole, _ = await answer(engine, question())
    stop = whole[10:14]
    text, (finish,) = await answer(engine, question(stop=(stop,)))
    assert text == whole[: whole.index(stop)]
    assert finish.reason == "stop"


async def test_a_plain_job_gets_the_same_text_as_a_stream(engine, answer):
    """`stream` changes how an answer travels, not what it says."""
    streamed, _ = await answer(engine, question())
    plain, _ = await answer(engine, question(stream=False))
    assert plain == streamed


async def test_a_completion_continues_its_prompt(engine, answer):
    """The other kind of job is served too."""
    job = question(kind="completion", messages=(), prompt="The capital of France is")
    text, (finish,) = await answer(engine, job)
    assert text
    assert isinstance(finish, Finish)


async def test_an_unknown_model_is_a_failure_that_others_may_repair(engine, answer):
    """Another node may have the model."""
    text, (failure,) = await answer(engine, question(model="nobody/has-this"))
    assert not text
    assert failure.code == "model_not_found"
    assert failure.elsewhere


async def test_more_jobs_than_slots_wait_and_all_finish(engine, answer):
    """Concurrency beyond the slots queues inside the engine."""
    jobs = [question(sampling=Sampling(seed=seed)) for seed in range(3 * SLOTS)]
    answers = await asyncio.gather(*(answer(engine, job) for job in jobs))
    assert all(isinstance(others[-1], Finish) for _, others in answers)


async def test_two_streams_run_side_by_side(engine):
    """Neither of two long answers waits for the other to end."""
    order = []

    async def read(name):
        job = question(max_tokens=60, extras={"ignore_eos": True})
        stream = engine.generate(job)
        while await anext(stream, None):
            order.append(name)

    await asyncio.gather(read("a"), read("b"))
    changes = sum(left != right for left, right in pairwise(order))
    assert changes > 5


async def test_leaving_frees_the_slot(engine, answer):
    """With every slot taken by long answers, closing one lets a short job in before the others
    have ended."""
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(engine.generate(question(**LONG))))
            for _ in range(SLOTS)
        ]
        for stream in streams:
            await anext(stream)
        await streams[0].aclose()
        other = asyncio.ensure_future(_read(streams[1]))
        text, _ = await answer(engine, question())
        assert not other.done()
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
    assert text


async def _read(stream):
    async for _ in stream:
        pass


async def test_nothing_is_in_flight_after_everybody_left(engine):
    """A cancelled task releases its job as well as one that read to the end."""
    stream = engine.generate(question(**LONG))
    await anext(stream)
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await stream.aclose()
    (load,) = engine.stats()
    assert (load.in_flight, load.queued) == (0, 0)


async def test_text_is_never_cut_inside_a_character(engine):
    """Every delta is whole text by itself, whichever way its bytes travelled."""
    job = question(kind="completion", messages=(), prompt="😀 🎉 — é 😀 🎉 — é 😀 🎉 — é")
    job = replace(job, max_tokens=40, sampling=Sampling(temperature=0.0))
    batches = [batch async for batch in engine.generate(job)]
    texts = [event.text for batch in batches for event in batch if isinstance(event, TextDelta)]
    assert "�" not in "".join(texts)
    assert not "".join(texts).isascii()


EMOJI = question(
    kind="completion",
    messages=(),
    prompt="😀 🎉 — é 😀 🎉 — é 😀 🎉 — é",
    max_tokens=16,
    sampling=Sampling(temperature=0.0),
)
WORDS = question(max_tokens=16, sampling=Sampling(temperature=0.0, frequency_penalty=0.5))

CARRIES_ON = pytest.mark.parametrize("engine", ["emulated", "llamacpp", "mlx"], indirect=True)


async def _deltas(engine, job) -> list[TextDelta]:
    events = [event async for batch in engine.generate(job) for event in batch]
    return [event for event in events if isinstance(event, TextDelta)]


def _cuts(deltas):
    """Some places where an answer may break: what was shown by then, and its token ids."""
    ends = [*range(0, len(deltas) - 1, 6), len(deltas) - 1]
    for end in ends:
        shown = deltas[:end]
        ids = tuple(each for delta in shown for each in delta.token_ids)
        yield "".join(delta.text for delta in shown), ids


@CARRIES_ON
@pytest.mark.parametrize("job", [WORDS, EMOJI], ids=["words", "emoji"])
async def test_an_answer_is_carried_on_to_the_letter(engine, answer, job):
    """Greedy, given the tokens that were shown, wherever it broke: between words, with half a
    character withheld, before its first token and after its last but one."""
    deltas = await _deltas(engine, job)
    whole = "".join(delta.text for delta in deltas)
    for said, ids in _cuts(deltas):
        rest = replace(job, prefix_tokens=ids, max_tokens=job.max_tokens - len(ids))
        assert said + (await answer(engine, rest))[0] == whole


@CARRIES_ON
async def test_an_answer_is_carried_on_inside_what_may_become_a_stop_string(engine, answer):
    """What waits for its rest was not shown, and the machine that takes over waits as well."""
    whole = "".join(delta.text for delta in await _deltas(engine, WORDS))
    stop = whole[len(whole) // 2 :][:6]
    job = replace(WORDS, stop=(stop, whole[:3] + "never"))
    deltas = await _deltas(engine, job)
    shown = "".join(delta.text for delta in deltas)
    assert shown == whole[: whole.index(stop)]
    for said, ids in _cuts(deltas):
        rest = replace(job, prefix_tokens=ids, max_tokens=job.max_tokens - len(ids))
        assert said + (await answer(engine, rest))[0] == shown


@CARRIES_ON
async def test_an_answer_is_carried_on_inside_a_character(engine, answer):
    """Of a delta that took several tokens nothing was shown after the first of them."""
    deltas = await _deltas(engine, EMOJI)
    whole = "".join(delta.text for delta in deltas)
    at = max(range(len(deltas)), key=lambda each: len(deltas[each].token_ids))
    said = "".join(delta.text for delta in deltas[:at])
    ids = [each for delta in deltas[: at + 1] for each in delta.token_ids]
    ids = ids[: 1 - len(deltas[at].token_ids) or None]
    job = replace(EMOJI, prefix_tokens=tuple(ids), max_tokens=EMOJI.max_tokens - len(ids))
    withheld = deltas[at].text * (len(deltas[at].token_ids) == 1)
    assert said + withheld + (await answer(engine, job))[0] == whole


@CARRIES_ON
async def test_every_delta_says_which_tokens_it_came_from(engine):
    """Each token once: as many ids as the account counts."""
    batches = [batch async for batch in engine.generate(WORDS)]
    events = [event for batch in batches for event in batch]
    ids = [each for event in events if isinstance(event, TextDelta) for each in event.token_ids]
    assert len(ids) == events[-1].completion_tokens == WORDS.max_tokens


@CARRIES_ON
async def test_what_was_said_elsewhere_counts_as_prompt(engine, answer):
    """`max_tokens` bounds what is made here."""
    deltas = await _deltas(engine, WORDS)
    ids = tuple(each for delta in deltas[:4] for each in delta.token_ids)
    _, (alone,) = await answer(engine, WORDS)
    _, (finish,) = await answer(engine, replace(WORDS, prefix_tokens=ids, max_tokens=3))
    assert finish.completion_tokens == 3
    assert finish.prompt_tokens == alone.prompt_tokens + len(ids)


@CARRIES_ON
async def test_text_can_be_carried_on_where_its_tokens_are_not_known(engine, answer):
    """The model reads what was said and goes on behind it; nothing is repeated."""
    deltas = await _deltas(engine, WORDS)
    said = "".join(delta.text for delta in deltas[:6])
    job = replace(WORDS, prefix_text=said, max_tokens=8)
    text, (finish,) = await answer(engine, job)
    assert text
    assert not text.startswith(said)
    assert isinstance(finish, Finish)


async def test_the_load_report_names_the_model_that_can_be_asked_for(engine):
    """`models` and `stats` are in the same order."""
    assert [record.model_id for record in engine.models()] == ["contract"]
    assert [load.model_id for load in engine.stats()] == ["contract"]
    assert engine.stats()[0].slots == SLOTS
    assert engine.stats()[0].warm
