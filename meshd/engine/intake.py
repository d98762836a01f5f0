"""Where a job becomes a turn, inside any kind of worker.

What can be refused is refused here, before the model has done anything: a prompt that does not fit,
tools or a form that the model cannot serve, a schema that cannot be kept to. A fault in reading one
job, which a model's template or a peer's odd field may bring to light, costs that job and nobody
else's answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshd.engine.failures import failure_of
from meshd.engine.tool_calls import form_of
from meshd.engine.turn import (
    Speller,
    Tokenizer,
    Turn,
    prefix_of,
    prepare,
    reader_of,
    thoughts_in,
    wants_form,
)
from protocol.jobs import Failure, Job

if TYPE_CHECKING:
    from llguidance import LLTokenizer


class GuidedTokenizer(Tokenizer, Speller, Protocol):
    """A model whose answers can be held to a form."""

    def guidance(self) -> LLTokenizer:
        """The tokenizer as llguidance sees it. Raises ImportError where that is not installed."""
        ...


def open_turn(key: int, job: Job, model: GuidedTokenizer, now: float) -> Turn | Failure:
    """The turn of a job, or why there is none. `now` is monotonic seconds."""
    try:
        return _open(key, job, model, now)
    except Exception as error:  # noqa: BLE001
        found = f"{type(error).__name__}: {error}"
        message = f"this request cannot be read here, which is a fault of meshd ({found})"
        return failure_of("engine_failed", message, elsewhere=False)


def _open(key: int, job: Job, model: GuidedTokenizer, now: float) -> Turn | Failure:
    prompt = prepare(job, model)
    if isinstance(prompt, Failure):
        return prompt
    carried = prefix_of(job, model)
    turn = Turn(
        key,
        job,
        prompt.tokens,
        model.context_length,
        arrived=now,
        carried=carried,
        said=[model.piece(token) for token in carried],
        placed=now,
    )
    turn.reader = reader_of(job, model)
    turn.thoughts = thoughts_in(job, model, is_open=prompt.opens_thought)
    if turn.thoughts is not None:
        for token in carried:
            turn.thoughts.feed(turn.piece(token, model))
    return _constrain(turn, model) or turn


def _constrain(turn: Turn, model: GuidedTokenizer) -> Failure | None:
    """Give the turn its constraint, which knows what another machine already said."""
    job = turn.job
    if not wants_form(job):
        return None
    try:
        from meshd.engine.grammar import GrammarError, constrain

        guidance = model.guidance()
    except ImportError:
        message = "this node lacks llguidance, which keeps answers to a given form"
        return failure_of("unsupported", message, elsewhere=True, param="response_format")
    try:
        turn.constraint = constrain(job, form_of(model.template.source), guidance)
    except GrammarError as error:
        return failure_of("bad_request", str(error), elsewhere=False, param=error.param)
    turn.constraint.take(turn.carried)
    return None
