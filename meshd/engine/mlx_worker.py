"""The process of one loaded MLX model: `python -m meshd.engine.mlx_worker`, a socket as its stdin.

The same life as `worker`'s, with mlx-lm's batch generator in the place of llama.cpp's context: the
main thread takes frames, starts waiting turns while there are slots, makes a step, and sends what
it gave; it sleeps in the queue of frames while there is no work. The reader thread is `line`'s.

A reused prefix was computed in steps of other sizes, whose last bits may differ. A job that gives a
seed asks for the same answer twice, so its prompt is read anew.
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from meshd.engine import frames
from meshd.engine.failures import failure_of
from meshd.engine.intake import open_turn
from meshd.engine.line import Line, at_work, open_line
from meshd.engine.mlx_head import PASS_TOKENS
from meshd.engine.tool_calls import takes_calls
from meshd.engine.turn import Turn
from protocol.errors import ProtocolError
from protocol.jobs import Event, Failure, Job, Sampling

if TYPE_CHECKING:
    from meshd.engine.mlx_batch import MlxBatch
    from meshd.engine.mlx_model import MlxModel
    from meshd.engine.mlx_sampling import Witness

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Set before mlx-lm is imported: a model folder is whole or refused, and nothing calls home."""

PASS_TARGET_S = 0.06
"""How much a piece of prompt may lengthen a step, as in llama.cpp's worker."""

PREFILL_CHOICES = (PASS_TOKENS, 1024, 512, 256, 128, 64, 32)
"""Tokens of prompts per step; fixed for a worker's life."""

TRIAL_S = 0.25
"""About how long the prompt of the calibration run may take."""

TRIAL_TOKENS = (8, 256)
"""The least and the most of that prompt: a first run of the least says how much fits."""

TRIAL_ANSWER_TOKENS = 4


class Worker:
    """Runs jobs on one model until the process ends."""

    def __init__(self, line: Line, model: MlxModel, batch: MlxBatch, slots: int) -> None:
        from meshd.engine.embedding import EmbeddingQueue

        self._line = line
        self._model = model
        self._batch = batch
        self._slots = slots
        self._waiting: deque[Turn] = deque()
        """As many as the daemon lets in: it bounds all that run or wait."""
        self._running: dict[int, Turn] = {}
        """Turns by sequence."""
        self._witnesses: dict[int, Witness] = {}
        """By sequence, of the turns that were asked for log probabilities."""
        self._embeddings = EmbeddingQueue(model.text_reader)
        self._out: list[tuple[int, list[Event]]] = []

    def step(self) -> None:
        """Take in what came, make one step, send what it gave. Sleeps while there is no work."""
        self._take_frames()
        while self._waiting and len(self._running) < self._slots:
            self._begin(self._waiting.popleft())
        if self._running:
            self._advance()
        if self._embeddings:
            self._embed()
        if self._out:
            self._line.send(frames.events_frame(self._out))
            self._out = []

    def _take_frames(self) -> None:
        received = self._line.received
        if not (self._running or self._waiting or self._embeddings):
            self._take(received.get())
        try:
            while True:
                self._take(received.get_nowait())
        except Empty:
            return

    def _take(self, values: list[Any]) -> None:
        if values[0] == frames.JOB:
            self._accept(values[1], values[2])
        elif values[0] == frames.CANCEL:
            self._drop(values[1])

    def _accept(self, key: int, fields: Any) -> None:
        try:
            job = frames.read_job(fields)
        except ProtocolError as error:
            failure = failure_of("bad_request", f"the job is malformed: {error}", elsewhere=False)
            self._out.append((key, [failure]))
            return
        if job.kind == "embedding":
            refusal = self._embeddings.accept(key, job, self._model)
        else:
            refusal = self._accept_turn(key, job)
        if refusal is not None:
            self._out.append((key, [refusal]))

    def _accept_turn(self, key: int, job: Job) -> Failure | None:
        now = time.monotonic()
        turn = open_turn(key, job, self._model, now)
        if isinstance(turn, Failure):
            return turn
        if job.max_tokens == 0:
            self._out.append((key, [turn.finish("length", now)]))
        else:
            self._waiting.append(turn)
        return None

    def _embed(self) -> None:
        """One piece of the embedding job that came first."""
        with at_work(self._line):
            key, events = self._embeddings.step()
        if events:
            self._out.append((key, events))

    def _begin(self, turn: Turn) -> None:
        from meshd.engine.mlx_sampling import Witness, processors_of, sampler_of

        sampling = turn.job.sampling
        extras = turn.job.extras if isinstance(turn.job.extras, dict) else {}
        forbidden = sorted(self._model.ends) if extras.get("ignore_eos") is True else []
        witness = Witness() if turn.job.logprobs else None
        changes = processors_of(
            sampling, len(turn.prompt), forbidden, turn.constraint, len(turn.carried)
        )
        sequence, turn.cached = self._batch.start(
            turn.prompt,
            sampler_of(sampling),
            [witness, *changes] if witness else changes,
            reuse=sampling.seed is None,
        )
        if witness is not None:
            self._witnesses[sequence] = witness
        turn.placed = time.monotonic()
        self._running[sequence] = turn

    def _drop(self, key: int) -> None:
        self._embeddings.drop(key)
        for turn in [each for each in self._waiting if each.key == key]:
            self._waiting.remove(turn)
        for sequence in [each for each, turn in self._running.items() if turn.key == key]:
            del self._running[sequence]
            self._witnesses.pop(sequence, None)
            self._batch.stop(sequence)

    def _advance(self) -> None:
        try:
            with at_work(self._line):
                chosen = self._batch.step()
        except (RuntimeError, ValueError) as error:
            self._abandon(str(error))
            return
        now = time.monotonic()
        for sequence, token in chosen:
            self._tell(sequence, token, now)

    def _tell(self, sequence: int, token: int, now: float) -> None:
        turn, model, logprob = self._running[sequence], self._model, None
        witness = self._witnesses.get(sequence)
        if witness is not None:
            logprob = witness.tell(token, turn.job.top_logprobs, model.piece)
        events = turn.token(
            token, turn.piece(token, model), is_end=model.is_end(token), now=now, logprob=logprob
        )
        if events:
            self._out.append((turn.key, list(events)))
        if turn.is_over:
            self._drop(turn.key)

    def _abandon(self, why: str) -> None:
        """A step failed: what the sequences hold is unknown, and no answer can go on here."""
        failure = failure_of(
            "engine_failed", f"MLX failed in the middle of an answer: {why[:400]}", elsewhere=True
        )
        self._out += [(turn.key, [failure]) for turn in self._running.values()]
        self._running.clear()
        self._witnesses.clear()
        self._batch.clear()


def main() -> None:
    """Serve the daemon at the other end of the socket that is this process's stdin."""
    os.environ.update(ENVIRONMENT)
    line = open_line()
    _, path, context, slots, *_ = line.received.get()
    worker = _load(line, Path(path), context, slots)
    while worker is not None:
        worker.step()


def _load(line: Line, path: Path, context: int, slots: int) -> Worker | None:
    began = time.monotonic()
    try:
        from meshd.engine.mlx_batch import MlxBatch
        from meshd.engine.mlx_model import MlxError, MlxModel
    except ImportError as error:
        line.send(frames.frame(frames.BROKEN, f"MLX cannot be imported: {error}"))
        return None
    try:
        model = MlxModel(path, context)
        batch = MlxBatch(model, slots, TRIAL_TOKENS[1])
        prompt_tps, generation_tps = _trial(model, batch)
    except (MlxError, RuntimeError, ValueError) as error:
        line.send(frames.frame(frames.BROKEN, f"mlx-lm cannot run {path}: {error}"))
        return None
    batch.prefill_tokens = next(
        (size for size in PREFILL_CHOICES if size <= prompt_tps * PASS_TARGET_S),
        PREFILL_CHOICES[-1],
    )
    line.send(
        frames.ready_frame(
            frames.WorkerFacts(
                context_length=model.context_length,
                slots=slots,
                load_s=time.monotonic() - began,
                prompt_tps=prompt_tps,
                generation_tps=generation_tps,
                prefill_tokens=batch.prefill_tokens,
                capabilities=_capabilities(model),
            )
        )
    )
    return Worker(line, model, batch, slots)


def _capabilities(model: MlxModel) -> tuple[str, ...]:
    """What jobs this model can take. Tools need a template that offers them in a known form."""
    tools = ("tools",) if takes_calls(model.template.source) else ()
    vectors = ("embedding",) if model.makes_vectors() else ()
    return ("chat", "completion", *vectors, *tools)


def _trial(model: MlxModel, batch: MlxBatch) -> tuple[float, float]:
    """Measured prompt and generation rates, tokens per second. Also pages the weights in."""
    least, most = TRIAL_TOKENS
    _run(model, batch, least)
    first_s, _ = _run(model, batch, least)
    length = min(most, max(least, int(least / first_s * TRIAL_S)), model.context_length - 1)
    prompt_s, answer_s = _run(model, batch, length)
    return length / prompt_s, TRIAL_ANSWER_TOKENS / answer_s


def _run(model: MlxModel, batch: MlxBatch, length: int) -> tuple[float, float]:
    """Seconds to the first token after a prompt of `length` tokens, and for a few more."""
    from meshd.engine.mlx_sampling import sampler_of

    prompt = [random.randrange(model.vocabulary_size) for _ in range(length)]  # noqa: S311
    began = time.monotonic()
    sequence, _ = batch.start(prompt, sampler_of(Sampling(temperature=0.0)), reuse=False)
    while not batch.step():
        pass
    first = time.monotonic()
    for _ in range(TRIAL_ANSWER_TOKENS):
        batch.step()
    done = time.monotonic()
    batch.stop(sequence)
    batch.clear()
    return first - began, done - first


if __name__ == "__main__":
    main()
