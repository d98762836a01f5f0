"""Models that make vectors only, small ones with weights of their own, against llama-cpp-python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama

from meshd.engine.catalog import entry_of
from meshd.engine.embedding import PIECE_TOKENS
from meshd.engine.heads import HeadCache
from meshd.engine.llamacpp import LlamaModel
from meshd.engine.supervisor import LlamaEngine, WorkerOptions
from protocol.jobs import Failure, Finish, Job, Vector
from tests.engine.bench import Bench, cosine, vectors
from tests.engine.modelfiles import TOKENS, bert, decoder

pytestmark = pytest.mark.timeout(60)

MEAN, FIRST, LAST = 1, 2, 3
SHORT, LONG = "cat sat on mat", "cat sat on mat rates rose dog " * 40
TEXTS = (SHORT, "rates rose", LONG)


def bench_of(path: Path, context: int = 512) -> Bench:
    return Bench(LlamaModel(path, context=context, slots=2, threads=1))


@pytest.mark.parametrize(
    ("make", "pooling"),
    [(bert, MEAN), (bert, FIRST), (decoder, LAST), (decoder, MEAN), (decoder, FIRST)],
)
def test_vectors_are_llama_cpps_own(tmp_path, make, pooling):
    """As the file says: the mean, the first token or the last, marks around the text included;
    also of a text longer than a piece."""
    path = make(tmp_path / "m.gguf", pooling_type=pooling)
    bench = bench_of(path)
    ours = vectors(bench.run(Job("r", "embedding", "m", inputs=TEXTS)))
    plain = Llama(str(path), embedding=True, n_ctx=512, n_threads=1, verbose=False)
    theirs = [plain.embed(text, normalize=True) for text in TEXTS]
    assert len(bench.worker._model.tokenize(LONG)) == 7 * 40 + 2 > PIECE_TOKENS
    assert min(map(cosine, ours, theirs)) > 0.999


@pytest.mark.parametrize("make", [bert, decoder])
def test_a_file_that_names_no_pooling_gets_the_mean(tmp_path, make):
    """Of one text in one pass; of a model that generates, over all pieces."""
    ids = [number % len(TOKENS) for number in range(3, 400)]
    job = Job("r", "embedding", "m", inputs=(ids, ids[:9]))
    plain, named = (
        vectors(bench_of(make(tmp_path / "m.gguf", **said)).run(job))
        for said in ({}, {"pooling_type": MEAN})
    )
    assert np.allclose(plain, named, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "said", "piece"),
    [
        (bert, {"pooling_type": MEAN}, 300),
        (bert, {"pooling_type": LAST}, 300),
        (decoder, {"pooling_type": MEAN}, 300),
        (decoder, {"pooling_type": LAST}, PIECE_TOKENS),
    ],
)
def test_only_who_looks_back_and_tells_last_reads_in_pieces(tmp_path, make, said, piece):
    """A long text would otherwise take a large model longer than a pass may."""
    model = LlamaModel(make(tmp_path / "m.gguf", **said), context=512, slots=1, threads=1)
    reader = model.text_reader(300)
    assert reader.piece_tokens == piece
    reader.close()


def test_a_context_beyond_the_models_own_is_cut(tmp_path):
    """BERT has a place for so many tokens, and llama.cpp ends the process at one more."""
    (refused,) = bench_of(bert(tmp_path / "m.gguf"), context=4096).run(
        Job("r", "embedding", "m", inputs=("cat " * 600,))
    )
    assert refused.code == "context_length_exceeded"
    assert "512" in refused.message


def test_a_model_that_makes_vectors_only_answers_nothing(tmp_path):
    """It says so, and lives."""
    bench = bench_of(bert(tmp_path / "m.gguf"))
    (failure,) = bench.run(Job("r", "completion", "m", prompt="cat", max_tokens=1))
    assert isinstance(failure, Failure)
    assert (failure.code, failure.elsewhere) == ("unsupported", True)
    assert vectors(bench.run(Job("r", "embedding", "m", inputs=(SHORT,))))


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [{"pooling_type": LAST}, {"pooling_type": MEAN}])
@pytest.mark.parametrize("make", [bert, decoder])
async def test_cold_and_warm_it_makes_vectors_and_nothing_else(tmp_path, answer, make, said):
    """In a process of its own: no trial of what it cannot do ends it."""
    path = make(tmp_path / "m.gguf", **said)
    cold = entry_of(path, HeadCache(None)).record
    engine = LlamaEngine(path, WorkerOptions(context=512, slots=2, threads=1, model_id="m"))
    await engine.start()
    try:
        (warm,) = engine.models()
        (load,) = engine.stats()
        _, (vector, finish) = await answer(engine, Job("r", "embedding", "m", inputs=(SHORT,)))
    finally:
        await engine.close()
    assert cold.capabilities == warm.capabilities == ("embedding",)
    assert (load.prompt_tps > 0, load.generation_tps) == (True, 0.0)
    assert isinstance(vector, Vector)
    assert finish == Finish("stop", 6, 0)
