"""How MLX chooses a token: the same rules and the same defaults as llama.cpp's here.

One request must not change its character with the machine that answers it, so order and defaults
are those of `llamacpp`: penalties, top-k 40, top-p 0.95, min-p 0.05, temperature 0.8; temperature 0
is greedy; penalties look at the answer's last `PENALTY_TOKENS` tokens, not at the prompt.

After top-k only the candidates are worked on, not the vocabulary. Sequences without a seed that
ask for the same rules share one sampler, which MLX then runs once for all of them; a seed brings a
key of its own.

Log probabilities are told as OpenAI means them: the model's own, before anything changed them. So a
`Witness`, the first of an answer's processors, keeps the row of each token until it is told.

A constraint is a processor that runs last. It must know the token just chosen before it can say
what may follow, so it waits for it: constrained answers give up MLX's running one step ahead.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import (
    apply_min_p,
    apply_top_p,
    greedy_sampler,
    make_frequency_penalty,
    make_presence_penalty,
    make_repetition_penalty,
)

from meshd.engine.logits import describe, log_softmax
from protocol.jobs import Sampling

PENALTY_TOKENS = 64
"""How far back penalties look; llama.cpp's own default."""

SEED_RANGE = 2**63
"""Seeds are taken modulo this."""

SHARED_SAMPLERS = 64
"""Different rules remembered: beyond that, equal ones are merely not run together."""

Sampler = Callable[[mx.array], mx.array]
"""Log probabilities [rows, vocabulary] to token ids [rows]."""

Processor = Callable[[mx.array, mx.array], mx.array]
"""All tokens so far and logits [1, vocabulary] to logits."""


class Rules(NamedTuple):
    """What narrows the choice of one token; the temperature comes last."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float


class Form(Protocol):
    """A `Constraint` of `meshd.engine.grammar`."""

    @property
    def is_over(self) -> bool: ...
    def allowed(self) -> bytes: ...
    def take(self, tokens: Sequence[int]) -> bool: ...


def sampler_of(sampling: Sampling) -> Sampler:
    """What chooses the tokens of one answer."""
    temperature = 0.8 if sampling.temperature is None else sampling.temperature
    if temperature == 0.0 or sampling.top_p == 0.0:  # which keeps the likeliest, and no other
        return greedy
    rules = Rules(
        temperature,
        top_k=40 if sampling.top_k is None else sampling.top_k,
        top_p=0.95 if sampling.top_p is None else sampling.top_p,
        min_p=0.05 if sampling.min_p is None else sampling.min_p,
    )
    if sampling.seed is None:
        return _shared(rules)
    key = mx.random.key(sampling.seed % SEED_RANGE)

    def seeded(logprobs: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        return _choose(logprobs, rules, now)

    return seeded


def greedy(logprobs: mx.array) -> mx.array:
    """The likeliest token."""
    chosen: mx.array = greedy_sampler(logprobs)
    return chosen


@lru_cache(maxsize=SHARED_SAMPLERS)
def _shared(rules: Rules) -> Sampler:
    def sampler(logprobs: mx.array) -> mx.array:
        return _choose(logprobs, rules)

    return sampler


def _choose(logprobs: mx.array, rules: Rules, key: mx.array | None = None) -> mx.array:
    temperature, top_k, top_p, min_p = rules
    logprobs = logprobs.astype(mx.float32)
    candidates = None
    if 0 < top_k < logprobs.shape[-1]:
        candidates = mx.argpartition(-logprobs, kth=top_k - 1, axis=-1)[..., :top_k]
        logprobs = mx.take_along_axis(logprobs, candidates, axis=-1)
    if 0.0 < top_p < 1.0:
        logprobs = apply_top_p(logprobs, top_p)
    if min_p > 0.0:
        logprobs = apply_min_p(logprobs, min_p, 1)
    chosen = mx.random.categorical(logprobs * (1.0 / temperature), key=key)
    if candidates is None:
        return chosen
    return mx.take_along_axis(candidates, chosen[:, None], axis=-1)[:, 0]


class Witness:
    """A processor that changes nothing and remembers what it saw. MLX runs one step ahead, so at
    most two rows wait here."""

    def __init__(self) -> None:
        self._rows: deque[mx.array] = deque()

    def __call__(self, _tokens: mx.array, logits: mx.array) -> mx.array:
        self._rows.append(logits[0])
        return logits

    def tell(self, token: int, top: int, piece: Callable[[int], bytes]) -> dict[str, Any]:
        """OpenAI's logprob object of the next token that is told, which is `token`."""
        row = np.array(self._rows.popleft().astype(mx.float32))
        return describe(log_softmax(row), token, top, piece)


def processors_of(
    sampling: Sampling,
    prompt_length: int,
    forbidden: Sequence[int],
    form: Form | None,
    carried: int = 0,
) -> list[Processor]:
    """What changes the logits of one answer before a token is chosen. `forbidden` tokens never
    come; the last `carried` tokens of the prompt are the beginning of the answer."""
    begin = prompt_length - carried
    bias = [*sampling.logit_bias, *((token, -math.inf) for token in forbidden)]
    processors = [_biased(bias)] if bias else []
    processors += [_of_the_answer(penalise, begin) for penalise in _penalties(sampling)]
    return [*processors, _formed(form, prompt_length)] if form is not None else processors


def _biased(bias: Sequence[tuple[int, float]]) -> Processor:
    tokens = mx.array([token for token, _ in bias])
    values = mx.array([value for _, value in bias])

    def processor(_tokens: mx.array, logits: mx.array) -> mx.array:
        return logits.at[:, tokens].add(values.astype(logits.dtype))

    return processor


def _penalties(sampling: Sampling) -> list[Processor]:
    wanted: list[Processor] = []
    if sampling.repeat_penalty not in (None, 0.0, 1.0):
        wanted.append(make_repetition_penalty(sampling.repeat_penalty, PENALTY_TOKENS))
    if sampling.presence_penalty:
        wanted.append(make_presence_penalty(sampling.presence_penalty, PENALTY_TOKENS))
    if sampling.frequency_penalty:
        wanted.append(make_frequency_penalty(sampling.frequency_penalty, PENALTY_TOKENS))
    return wanted


def _of_the_answer(penalise: Processor, begin: int) -> Processor:
    def processor(tokens: mx.array, logits: mx.array) -> mx.array:
        return penalise(tokens[begin:], logits)

    return processor


def _formed(form: Form, prompt_length: int) -> Processor:
    taken = 0

    def processor(tokens: mx.array, logits: mx.array) -> mx.array:
        nonlocal taken
        chosen: Any = tokens[prompt_length + taken :].tolist()
        taken += len(chosen)
        if (chosen and not form.take(chosen)) or form.is_over:
            return logits
        bits = np.unpackbits(np.frombuffer(form.allowed(), np.uint8), bitorder="little")
        allowed = np.zeros(logits.shape[-1], np.bool_)
        allowed[: len(bits)] = bits[: len(allowed)]
        return mx.where(mx.array(allowed), logits, -math.inf)

    return processor
