"""The process of one loaded model: `python -m meshd.engine.worker`, with a socket as its stdin.

A process of its own, so that a crash or an out-of-memory kill costs this model and not the daemon,
so that unloading gives all memory back, and so that llama.cpp never holds up the daemon's loop.

The main thread loads the model, then makes passes while there is work, and sleeps in the queue of
frames when there is none; the reader thread of `line` fills that queue.

A reused prefix was computed in passes of other sizes, whose last bits may differ. A job that gives
a seed asks for the same answer twice, so its prompt is read anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from meshd.engine import frames, openmp
from meshd.engine.failures import failure_of
from meshd.engine.intake import open_turn
from meshd.engine.line import Line, at_work, open_line
from meshd.engine.scheduler import Placement, Row, Scheduler
from meshd.engine.tool_calls import takes_calls
from meshd.engine.turn import Turn
from protocol.errors import ProtocolError
from protocol.jobs import Event, Failure, Job

if TYPE_CHECKING:
    from meshd.engine.llamacpp import LlamaModel

PASS_TARGET_S = 0.06
"""How much a piece of prompt may lengthen a pass: other streams' tokens then come at least about
15 times a second, and a short prompt waits 0.03 s for a long one on average."""

PREFILL_CHOICES = (512, 256, 128, 64, 32)
"""Tokens of prompt per pass. Few and fixed for a worker's life, so that the same prompt is cut in
the same places and gives the same answer."""

TRIAL_PROMPT_TOKENS = 64
TRIAL_ANSWER_TOKENS = 4
"""The calibration run: about 0.1 s on two cores with a 135M model, a few seconds with an 8B one."""


class Worker:
    """Runs jobs on one model until the process ends."""

    def __init__(self, line: Line, model: LlamaModel, slots: int, prefill_tokens: int) -> None:
        from meshd.engine.embedding import EmbeddingQueue

        self._line = line
        self._model = model
        self._scheduler = Scheduler(slots, max(prefill_tokens, slots))
        self._turns: dict[int, Turn] = {}
        self._running: dict[int, Turn] = {}
        """Turns by slot."""
        self._embeddings = EmbeddingQueue(model.text_reader)
        self._out: list[tuple[int, list[Event]]] = []

    def run_for_ever(self) -> None:
        """The main thread, once the model is loaded."""
        while True:
            self.step()

    def step(self) -> None:
        """Take in what came, make one pass, send what it gave. Sleeps while there is no work."""
        self._take_frames()
        for placement in self._scheduler.place():
            self._begin(placement)
        rows = self._scheduler.plan()
        if rows:
            self._pass(rows)
        if self._embeddings:
            self._embed()
        self._flush()

    def _take_frames(self) -> None:
        received = self._line.received
        if self._scheduler.is_idle and not self._embeddings:
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
        if not self._model.makes_text:
            message = f"{job.model} makes vectors of texts, and nothing else; ask another model"
            return failure_of("unsupported", message, elsewhere=True, param="model")
        now = time.monotonic()
        turn = open_turn(key, job, self._model, now)
        if isinstance(turn, Failure):
            return turn
        if job.max_tokens == 0:
            self._out.append((key, [turn.finish("length", now)]))
            return None
        self._turns[key] = turn
        self._scheduler.submit(key, turn.prompt, reuse=job.sampling.seed is None)
        return None

    def _embed(self) -> None:
        """One piece of the embedding job that came first."""
        with at_work(self._line):
            key, events = self._embeddings.step()
        if events:
            self._out.append((key, events))

    def _begin(self, placement: Placement) -> None:
        turn, slot, reused = self._turns[placement.key], placement.slot, placement.reused
        if placement.source >= 0:
            kept = self._model.copy(placement.source, slot, reused)
        else:
            kept = self._model.trim(slot, reused)
        if not kept:
            self._scheduler.forget(slot)
            reused = 0
        turn.cached = reused
        turn.placed = time.monotonic()
        extras = turn.job.extras if isinstance(turn.job.extras, dict) else {}
        turn.sampler = self._model.sampler(
            turn.job.sampling, turn.carried, ignore_end=extras.get("ignore_eos") is True
        )
        self._running[slot] = turn

    def _drop(self, key: int) -> None:
        self._embeddings.drop(key)
        slot = self._scheduler.cancel(key)
        turn = self._turns.pop(key, None)
        if slot is not None:
            del self._running[slot]
        if turn is not None and turn.sampler is not None:
            self._model.free_sampler(turn.sampler)

    def _pass(self, rows: list[Row]) -> None:
        from meshd.engine.llamacpp import LlamaError

        line, model, scheduler = self._line, self._model, self._scheduler
        try:
            with at_work(line):
                outputs = iter(model.run(rows))
        except LlamaError as error:
            self._abandon(str(error))
            return
        scheduler.ran(rows)
        for row in rows:
            if not row.wants_output:
                continue
            turn = self._running[row.slot]
            token, events = self._next(turn, next(outputs))
            if events:
                self._out.append((turn.key, list(events)))
            if not turn.is_over:
                scheduler.sampled(row.slot, token)
            else:
                self._drop(turn.key)

    def _next(self, turn: Turn, index: int) -> tuple[int, Sequence[Event]]:
        """Choose the turn's next token from the output at `index`."""
        model, constraint, logprob = self._model, turn.constraint, None
        probable = model.logprobs(index) if turn.job.logprobs else None
        if constraint is not None:
            model.forbid(index, constraint.allowed())
        token = model.sample(turn.sampler, index)
        is_end = model.is_end(token)
        if constraint is not None and not is_end:
            constraint.take((token,))
        if probable is not None:
            logprob = model.describe(probable, token, turn.job.top_logprobs)
        piece, now = turn.piece(token, model), time.monotonic()
        return token, turn.token(token, piece, is_end=is_end, now=now, logprob=logprob)

    def _abandon(self, why: str) -> None:
        """A pass failed: what the sequences hold is unknown, and nobody's answer can go on here."""
        failure = failure_of(
            "engine_failed", f"llama.cpp failed in the middle of an answer: {why}", elsewhere=True
        )
        for turn in list(self._running.values()):
            self._out.append((turn.key, [failure]))
            self._drop(turn.key)
        self._scheduler.forget_all()
        self._model.clear()

    def _flush(self) -> None:
        if self._out:
            self._line.send(frames.events_frame(self._out))
            self._out = []


def main() -> None:
    """Serve the daemon at the other end of the socket that is this process's stdin."""
    line = open_line()
    _, path, context, slots, threads, layers = line.received.get()
    threads = openmp.prepare(threads, layers)
    how = {"context": context, "threads": threads, "layers": layers}
    worker = _load(line, Path(path), slots, how)
    if worker is not None:
        worker.run_for_ever()


def _load(line: Line, path: Path, slots: int, how: Mapping[str, int]) -> Worker | None:
    from meshd.engine.embedding import EmbeddingError
    from meshd.engine.llamacpp import LlamaError, open_model

    began = time.monotonic()
    try:
        model = open_model(path, slots=slots, **how)
        prompt_tps, generation_tps = _trial(model) if model.makes_text else _text_trial(model)
    except (LlamaError, EmbeddingError, OSError, ImportError) as error:
        line.send(frames.frame(frames.BROKEN, str(error)))
        return None
    prefill = next(
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
                prefill_tokens=prefill,
                capabilities=_capabilities(model),
            )
        )
    )
    return Worker(line, model, slots, prefill)


def _capabilities(model: LlamaModel) -> tuple[str, ...]:
    """What jobs this model can take. Tools need a template that offers them in a known form."""
    if not model.makes_text:
        return ("embedding",)
    tools = ("tools",) if takes_calls(model.template.source) else ()
    return ("chat", "completion", "embedding", *tools)


def _trial(model: LlamaModel) -> tuple[float, float]:
    """Measured prompt and generation rates, tokens per second. Also pages the weights in."""
    tokens = [index % model.vocabulary_size for index in range(TRIAL_PROMPT_TOKENS)]
    model.run([Row(0, tokens[:1], 0, wants_output=True)])
    model.clear()
    began = time.monotonic()
    model.run([Row(0, tokens, 0, wants_output=True)])
    read = time.monotonic()
    for index in range(TRIAL_ANSWER_TOKENS):
        model.run([Row(0, tokens[:1], TRIAL_PROMPT_TOKENS + index, wants_output=True)])
    done = time.monotonic()
    model.clear()
    return TRIAL_PROMPT_TOKENS / (read - began), TRIAL_ANSWER_TOKENS / (done - read)


def _text_trial(model: LlamaModel) -> tuple[float, float]:
    """The same of a model that makes vectors only: there is nothing to generate."""
    length = min(TRIAL_PROMPT_TOKENS, model.context_length)
    reader = model.text_reader(length)
    reader.read([0])
    reader.rewind()
    began = time.monotonic()
    reader.read([index % model.vocabulary_size for index in range(length)])
    done = time.monotonic()
    reader.close()
    return length / (done - began), 0.0


if __name__ == "__main__":
    main()
