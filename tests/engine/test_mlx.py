"""What MLX makes of a job, through the whole engine: most of it with the cut-down model, which is
fast and says the same noise every time."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from array import array
from dataclasses import replace

import pytest
import pytest_asyncio

from meshd.core.ports import EngineError
from meshd.engine.bundled import bundled_gguf
from meshd.engine.mlx import MlxEngine
from meshd.engine.supervisor import LlamaEngine, WorkerOptions
from protocol.jobs import Finish, Job, ReasoningDelta, Sampling, TextDelta, Vector
from tests.engine.mlx_folder import mlx_folder, needs_mlx, small_mlx_folder

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120), needs_mlx]

GREEDY = Sampling(temperature=0.0)
TEXT = Job(
    "r", "completion", "m", prompt="The sea is a", max_tokens=6, sampling=GREEDY, stream=True
)
CHAT = replace(
    TEXT, kind="chat", prompt=None, messages=({"role": "user", "content": "Where is the sea?"},)
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine():
    """One worker for the module: two slots of 256 tokens."""
    folder = await asyncio.to_thread(small_mlx_folder)
    made = MlxEngine(folder, WorkerOptions(context=256, slots=2, model_id="m"))
    await made.start()
    yield made
    await made.close()


async def vectors_of(engine, texts):
    """The vectors of an embedding job, in order."""
    job = Job("r", "embedding", "m", inputs=texts)
    events = [event async for batch in engine.generate(job) for event in batch]
    assert isinstance(events[-1], Finish), events[-1]
    return [array("f", event.values) for event in events if isinstance(event, Vector)]


def cosine(left, right):
    """Of two vectors of length 1."""
    return sum(a * b for a, b in zip(left, right, strict=True))


async def deltas_of(engine, job):
    """The text events of an answer."""
    batches = [batch async for batch in engine.generate(job)]
    return [event for batch in batches for event in batch if isinstance(event, TextDelta)]


WHOLE = WorkerOptions(context=256, slots=1, model_id="m")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smollm2():
    """The whole model, converted from the GGUF. (Slow: 6 tokens/s of a core.)"""
    made = MlxEngine(await asyncio.to_thread(mlx_folder), WHOLE)
    await made.start()
    yield made
    await made.close()


@pytest.mark.slow
async def test_smollm2_knows_the_capital_of_france(smollm2, answer):
    """The one fact that it is sure of, as a completion and in a conversation rendered by its own
    template."""
    job = replace(TEXT, prompt="The capital of France is", max_tokens=1)
    assert (await answer(smollm2, job))[0] == " Paris"
    question = ({"role": "user", "content": "What is the capital of France?"},)
    text, (finish,) = await answer(smollm2, replace(CHAT, messages=question, max_tokens=12))
    assert "Paris" in text
    assert (finish.reason, finish.prompt_tokens) == ("stop", 37)


@pytest.mark.slow
async def test_its_vectors_are_those_of_llamacpp(smollm2):
    """The same weights and the same mean: one mesh may embed with either."""
    texts = ("A cat sat on the mat.", "Interest rates rose again. " * 6)
    ours = await vectors_of(smollm2, texts)
    other = LlamaEngine(bundled_gguf(), WHOLE)
    try:
        await other.start()
        theirs = await vectors_of(other, texts)
    finally:
        await other.close()
    assert [len(each) for each in ours] == [576, 576]
    for left, right in zip(ours, theirs, strict=True):
        assert cosine(left, right) > 0.98


IN_PIECES = """
import sys
from pathlib import Path
import numpy as np
from mlx_lm.utils import load_model
from meshd.engine.mlx_embedding import MlxReader
reader = MlxReader(load_model(Path(sys.argv[1]))[0])
tokens = np.arange(300, 340)
whole = reader.read(tokens.tolist())
reader.rewind()
pieces = [reader.read(piece.tolist()) for piece in np.array_split(tokens, 5)]
apart = 0
for piece in np.array_split(tokens, 5):
    reader.rewind()
    apart = apart + reader.read(piece.tolist())
far = lambda made: float(np.abs(made - whole).max() / np.abs(whole).max())
print(far(pieces[-1]), far(apart))
"""


async def test_a_text_may_be_read_in_pieces():
    """Each attends to those before it: the sum of their rows is that of the whole text, which that
    of pieces on their own is not. The engine's pieces are longer than a test has time for."""
    folder = await asyncio.to_thread(small_mlx_folder)
    command = [sys.executable, "-c", IN_PIECES, str(folder)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    as_one, on_their_own = map(float, done.stdout.split())
    assert as_one < 0.02 < on_their_own


async def test_texts_become_vectors(engine):
    """One for each, of length 1, the same for the same text however long it is."""
    long = "water " * 60
    one, two, again, same = await vectors_of(engine, ("sea", long, "sea", long))
    assert cosine(one, one) == pytest.approx(1.0, abs=1e-5)
    assert cosine(one, again) > 0.9999
    assert cosine(two, same) > 0.9999
    assert cosine(one, two) < 0.999


async def test_embeddings_and_streams_run_side_by_side(engine, answer):
    """Neither waits for the other to be done, and leaving one leaves the other be."""
    left = engine.generate(replace(TEXT, kind="embedding", prompt=None, inputs=("sea",) * 50))
    await anext(left)
    talker = engine.generate(replace(TEXT, max_tokens=40, extras={"ignore_eos": True}))
    await anext(talker)
    assert len(await vectors_of(engine, ("a", "b"))) == 2
    await left.aclose()
    assert await anext(talker)
    await talker.aclose()


async def test_the_record_says_what_the_folder_is(engine):
    """An alias names the same model."""
    (record,) = engine.models()
    assert (record.engine, record.quantisation, record.context_length) == ("mlx", "4bit", 256)
    assert record.aliases == ("SmolLM2-Stub-4bit",)
    assert record.fingerprint.startswith("mlx-")
    assert record.capabilities == ("chat", "completion", "embedding")


async def test_the_next_turn_of_a_conversation_reads_only_what_is_new(engine, answer):
    """Two turns in a row share all but the end; a seed asks for a fresh reading."""
    _, (first,) = await answer(engine, replace(TEXT, prompt="water " * 40))
    _, (second,) = await answer(engine, replace(TEXT, prompt="water " * 40 + "and more"))
    assert first.cached_tokens == 0
    assert second.cached_tokens >= 40
    seeded = replace(TEXT, prompt="water " * 40, sampling=Sampling(seed=1))
    _, (third,) = await answer(engine, seeded)
    assert third.cached_tokens == 0


async def test_the_same_prompt_again_reads_its_last_token_only(engine, answer):
    """Its output is where the answer begins."""
    job = replace(TEXT, prompt="the old man and the sea went out")
    first, _ = await answer(engine, job)
    second, (finish,) = await answer(engine, job)
    assert second == first
    assert finish.cached_tokens == finish.prompt_tokens - 1


async def test_an_answer_goes_on_exactly_from_its_tokens(engine, answer):
    """Another machine with the same folder can carry on: no letter lost, none doubled."""
    job = replace(TEXT, sampling=replace(GREEDY, seed=1), max_tokens=8)
    deltas = await deltas_of(engine, job)
    ids = tuple(token for delta in deltas[:3] for token in delta.token_ids)
    said = "".join(delta.text for delta in deltas[:3])
    carried = replace(job, max_tokens=8 - len(ids), prefix_tokens=ids, prefix_text=said)
    rest, _ = await answer(engine, carried)
    assert said + rest == "".join(delta.text for delta in deltas)


async def test_a_logit_bias_decides(engine, answer):
    """A token is forced, and so comes again and again."""
    deltas = await deltas_of(engine, TEXT)
    last = deltas[-1].token_ids[-1]
    biased = replace(TEXT, sampling=replace(GREEDY, logit_bias=((last, 100.0),)))
    assert {token for each in await deltas_of(engine, biased) for token in each.token_ids} == {last}


@pytest.mark.parametrize("rules", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}, {"top_p": 0.0}])
async def test_a_choice_of_one_is_greedy(engine, answer, rules):
    """Each way of narrowing the choice ends at the likeliest token, whatever the temperature."""
    greedy, _ = await answer(engine, TEXT)
    narrowed, _ = await answer(engine, replace(TEXT, sampling=Sampling(temperature=2.0, **rules)))
    assert narrowed == greedy


async def test_seeds_differ(engine, answer):
    """Hot enough, no two of them say the same."""
    answers = [
        (await answer(engine, replace(TEXT, sampling=Sampling(temperature=3.0, seed=seed))))[0]
        for seed in (1, -2, 2**63)
    ]
    assert len(set(answers)) == 3


@pytest.mark.parametrize(
    "penalty", [{"repeat_penalty": 50.0}, {"presence_penalty": 50.0}, {"frequency_penalty": 50.0}]
)
async def test_a_penalty_keeps_tokens_from_coming_again(engine, penalty):
    """Those of the answer; the prompt's are free."""
    job = replace(TEXT, max_tokens=10, sampling=replace(GREEDY, **penalty))
    tokens = [token for each in await deltas_of(engine, job) for token in each.token_ids]
    assert len(set(tokens)) == len(tokens) > 5


async def test_log_probabilities_are_the_models_own(engine):
    """Before a bias or a penalty: the greedy token is the first of the likeliest, and a token that
    was forced shows how unlikely it was."""
    job = replace(TEXT, logprobs=True, top_logprobs=2, max_tokens=3)
    entries = [entry for each in await deltas_of(engine, job) for entry in each.logprobs]
    assert len(entries) == 3
    for entry in entries:
        assert entry["token"] == entry["top_logprobs"][0]["token"]
        assert 0 >= entry["logprob"] >= entry["top_logprobs"][1]["logprob"]
    forced = replace(job, sampling=replace(GREEDY, logit_bias=((300, 100.0),)), max_tokens=1)
    ((entry,),) = [each.logprobs for each in await deltas_of(engine, forced)]
    assert entry["logprob"] < entry["top_logprobs"][0]["logprob"]


async def test_an_answer_keeps_to_its_schema(engine, answer):
    """Noise in the given form, complete."""
    pytest.importorskip("llguidance", reason="llguidance is not installed: sync the extra `mlx`")
    schema = {
        "type": "object",
        "properties": {"wet": {"type": "boolean"}},
        "required": ["wet"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "sea", "schema": schema}}
    text, (finish,) = await answer(engine, replace(CHAT, max_tokens=40, response_format=wanted))
    assert set(json.loads(text)) == {"wet"}
    assert finish.reason == "stop"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"prompt": "water " * 400}, "context_length_exceeded", "256"),
        ({"prompt": ""}, "bad_request", "empty"),
        ({"prompt_tokens": (4096,)}, "bad_request", "token id"),
        ({"sampling": Sampling(logit_bias=((9999, 1.0),))}, "bad_request", "logit_bias"),
        ({"kind": "embedding", "inputs": ()}, "bad_request", "no input"),
        ({"kind": "embedding", "inputs": ("water " * 400,)}, "context_length_exceeded", "256"),
    ],
)
async def test_what_cannot_be_done_is_said(engine, answer, change, code, said):
    """Before the model has read anything."""
    text, (failure,) = await answer(engine, replace(TEXT, **change))
    assert text == ""
    assert failure.code == code
    assert said in failure.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": ({"role": "user", "content": [{"type": "image_url"}]},)}, "image_url"),
        ({"tools": [TOOL]}, "no place for tools"),
        ({"messages": ()}, "messages is empty"),
    ],
)
async def test_a_conversation_that_this_model_cannot_have_is_a_bad_request(
    engine, answer, change, said
):
    """A text model shown a picture, tools to a model that was never taught any."""
    _, (failure,) = await answer(engine, replace(CHAT, **change))
    assert (failure.code, failure.elsewhere) == ("bad_request", False)
    assert said in failure.message


async def test_an_answer_may_fill_the_context_and_no_more(engine, answer):
    """Without a bound of its own it ends with the context."""
    job = replace(TEXT, prompt_tokens=tuple(range(300, 540)), max_tokens=None)
    job = replace(job, extras={"ignore_eos": True})
    _, (finish,) = await answer(engine, job)
    assert finish.reason == "length"
    assert finish.prompt_tokens + finish.completion_tokens == 256


async def test_a_long_prompt_does_not_freeze_a_stream(engine):
    """Tokens of the one come between the pieces of the other."""
    talker = engine.generate(replace(TEXT, max_tokens=60, extras={"ignore_eos": True}))
    await anext(talker)
    reader = engine.generate(replace(TEXT, prompt="fish " * 120, max_tokens=1))
    first = asyncio.ensure_future(anext(reader))
    said = 0
    while not first.done():
        said += len(await anext(talker))
    assert said >= 3
    await first
    await talker.aclose()
    await reader.aclose()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "unheard-of"}, "unheard-of"),
        ({"num_hidden_layers": 3}, "mlx-lm cannot load"),
        ({"hidden_size": "wide"}, "mlx-lm cannot load"),
    ],
)
async def test_a_folder_that_mlx_refuses_is_one_clear_line(tmp_path, config, said):
    """An architecture it does not know, weights that do not fit the config."""
    folder = tmp_path / "broken"
    shutil.copytree(await asyncio.to_thread(small_mlx_folder), folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    engine = MlxEngine(folder, WorkerOptions(context=64, slots=1))
    with pytest.raises(EngineError) as caught:
        await engine.start()
    await engine.close()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_thought_that_the_prompt_begins_is_told(tmp_path):
    """The cut-down model never ends it; a text to go on with leads straight to the answer."""
    folder = tmp_path / "model"
    shutil.copytree(await asyncio.to_thread(small_mlx_folder), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] += "{{ '<think>\\n' }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    engine = MlxEngine(folder, WorkerOptions(context=64, slots=1, model_id="m"))
    await engine.start()
    try:
        job = replace(CHAT, extras={"ignore_eos": True})
        thought = [event async for batch in engine.generate(job) for event in batch]
        assert {type(event) for event in thought} == {ReasoningDelta, Finish}
        assert await deltas_of(engine, replace(job, prefix_text="It is"))
    finally:
        await engine.close()


async def test_control_tokens_have_names():
    """Some mark thoughts or calls; where they do not, they stand for nothing."""
    code = (
        "import sys; from pathlib import Path; from meshd.engine.mlx_model import MlxModel\n"
        "model = MlxModel(Path(sys.argv[1]), 64); (end,) = model.ends\n"
        "word = model.tokenize('sea')[0]\n"
        "assert (model.piece(end), model.marked_piece(end)) == (b'', b'<|im_end|>')\n"
        "assert model.piece(word) == model.marked_piece(word) != b''\n"
        "assert model.marked_piece(model.vocabulary_size) == b''"
    )
    command = [sys.executable, "-c", code, str(await asyncio.to_thread(small_mlx_folder))]
    assert (await asyncio.to_thread(subprocess.run, command, check=False)).returncode == 0


async def test_the_daemon_never_imports_mlx():
    """Its memory and its seconds of import belong to the worker process alone."""
    code = (
        "import sys; from meshd.engine.factory import build; from meshd.engine.spec import parse\n"
        "build(parse('mlx:/models/x')); import meshd.engine.mlx_worker\n"
        "sys.exit(bool({'mlx', 'mlx_lm', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=False)
    assert done.returncode == 0


async def test_unloading_ends_the_process_and_the_next_job_loads_again(engine, answer):
    """All memory goes back with the process."""
    first = engine.worker_pid
    await engine.unload("m")
    assert engine.worker_pid is None
    _, (finish,) = await answer(engine, TEXT)
    assert isinstance(finish, Finish)
    assert engine.worker_pid not in {None, first}
