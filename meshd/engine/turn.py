"""One job inside the worker: from its prompt's tokens to its last event.

`prepare` turns a job into tokens, or into the failure that says why it cannot run here. `Turn`
takes the sampled tokens one by one and says what the asker may see and when the answer is over: at
the model's own end, at a stop string, at `max_tokens`, or when the sequence's context is full.

`max_tokens` bounds the tokens made here; what a continued job brought along (`prefix_text`,
`prefix_tokens`) is prompt. Without a bound an answer may fill the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from meshd.engine.assembly import Assembler, Piece
from meshd.engine.template import ChatError, ChatTemplate
from protocol.jobs import Event, Failure, Finish, Job, TextDelta


class Tokenizer(Protocol):
    """What preparing a job asks of a model."""

    vocabulary_size: int
    context_length: int
    template: ChatTemplate

    def tokenize(self, text: str) -> list[int]: ...

    def continuation(self, text: str) -> list[int]: ...


def prepare(job: Job, model: Tokenizer) -> list[int] | Failure:
    """The tokens to read, never empty and shorter than the context, or why there are none."""
    refusal = _refusal(job, model.vocabulary_size)
    if refusal is not None:
        return refusal
    try:
        prompt = _prompt(job, model)
    except ChatError as error:
        return Failure("bad_request", str(error), elsewhere=False, param=error.param)
    if not prompt:
        return Failure("bad_request", "the prompt is empty", elsewhere=False, param="prompt")
    if len(prompt) >= model.context_length:
        return Failure(
            "context_length_exceeded",
            f"the prompt is {len(prompt)} tokens long, and {job.model} has a context of "
            f"{model.context_length} tokens here, answer included; shorten the prompt, or give "
            "the engine a larger ctx=",
            elsewhere=False,
            param="messages" if job.kind == "chat" else "prompt",
        )
    return prompt


def _prompt(job: Job, model: Tokenizer) -> list[int]:
    if job.prompt_tokens is not None:
        prompt = list(job.prompt_tokens)
    elif job.kind == "chat":
        prompt = model.tokenize(model.template.render(job.messages))
    else:
        prompt = model.tokenize(job.prompt or "")
    if job.prefix_tokens is not None:
        return [*prompt, *job.prefix_tokens]
    return [*prompt, *model.continuation(job.prefix_text)] if job.prefix_text else prompt


def _refusal(job: Job, vocabulary_size: int) -> Failure | None:
    if job.kind == "embedding":
        return _unsupported("embeddings are not made by this engine", "input")
    if job.tools and job.tool_choice != "none":
        return _unsupported("this engine does not call tools yet; leave out tools", "tools")
    wanted = job.response_format
    if isinstance(wanted, dict) and wanted.get("type", "text") != "text":
        return _unsupported(
            "this engine does not constrain its answers yet; leave out response_format",
            "response_format",
        )
    if job.logprobs:
        return _unsupported("this engine does not report logprobs yet", "logprobs")
    ids = (*(job.prompt_tokens or ()), *(job.prefix_tokens or ()))
    biased = (int(token) for token, _ in job.sampling.logit_bias)
    for param, tokens in (("prompt", ids), ("logit_bias", biased)):
        if any(not 0 <= token < vocabulary_size for token in tokens):
            return Failure(
                "bad_request",
                f"{param} holds a token id outside this model's 0 to {vocabulary_size - 1}",
                elsewhere=False,
                param=param,
            )
    return None


def _unsupported(message: str, param: str) -> Failure:
    return Failure("unsupported", message, elsewhere=True, param=param)


@dataclass(slots=True)
class Turn:
    """A job that has tokens. Times are the caller's clock in seconds."""

    key: int
    job: Job
    prompt: list[int]
    context_length: int
    arrived: float
    cached: int = 0
    placed: float = 0.0
    first: float = 0.0
    count: int = 0
    is_over: bool = False
    sampler: Any = None
    assembler: Assembler = field(init=False)

    def __post_init__(self) -> None:
        self.assembler = Assembler(self.job.stop)

    def token(self, token: int, piece: bytes, *, is_end: bool, now: float) -> Sequence[Event]:
        """The events after one sampled token; `is_over` says whether the last is a Finish."""
        if not self.count:
            self.first = now
        self.count += 1
        if is_end:
            return [*_delta(self.assembler.finish()), self.finish("stop", now)]
        events = _delta(self.assembler.push(token, piece))
        if self.assembler.stopped:
            return [*events, self.finish("stop", now)]
        if self.count == self.job.max_tokens or self._is_full():
            return [*events, *_delta(self.assembler.finish()), self.finish("length", now)]
        return events

    def finish(self, reason: str, now: float) -> Finish:
        """The account of what was done; the turn is over."""
        self.is_over = True
        first = self.first or now
        return Finish(
            reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=self.count,
            cached_tokens=self.cached,
            prompt_s=max(0.0, first - self.placed),
            generation_s=max(0.0, now - first),
            queue_s=max(0.0, self.placed - self.arrived),
        )

    def _is_full(self) -> bool:
        return len(self.prompt) + self.count >= self.context_length


def _delta(piece: Piece | None) -> list[Event]:
    return [TextDelta(piece.text, piece.token_ids)] if piece else []
