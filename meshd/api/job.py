"""What OpenAI's request bodies have in common, to the parts of a `Job`.

What is checked here is what would otherwise fail late, on another machine, in an engine's words:
types, ranges, and combinations that cannot be meant. Each error names the field in `param`.

Fields nobody here knows travel on in `Job.extras`, so an engine's own options (`grammar`,
`chat_template_kwargs`, `reasoning_effort` ...) work without this module learning them. Fields that
are known but cannot be served are refused rather than ignored: an answer that silently lacks what
was asked for is worse than none.

What concerns only OpenAI's own house ends here, because no engine needs it and it may tell who
asks: `user`, `safety_identifier` and `metadata` do not travel. `user` and `prompt_cache_key` say
which conversation this is; `service_tier` says whether it may wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import msgspec

from meshd.api.dialect import Asker
from meshd.api.errors import bad_type, bad_value, missing
from meshd.api.fields import Fields, json_type
from protocol import limits
from protocol.jobs import NO_WISHES, Job, Sampling

TEMPERATURE_MAX = 2.0
"""OpenAI's range. Beyond it every sampler returns noise, which is never what was meant."""

PENALTY_MAX = 2.0
"""OpenAI's range for presence and frequency penalties, in both directions."""

LOGIT_BIAS_MAX = 100.0
"""OpenAI's range: 100 forces a token, -100 bans it."""

TOP_LOGPROBS_MAX = 20
"""OpenAI's bound for chat; every alternative costs a sort in the engine and bytes on the wire."""

TOKENS_MAX = 2**31 - 1
"""The largest token count that crosses the relay."""

UNLIMITED_TOKENS = -1
"""What llama.cpp's and LM Studio's clients send for "until the model stops"."""

CHOICES_MAX = 128
"""Choices of one request, all its prompts together: OpenAI's bound for `n`."""

CHOICE_ID_MAX_CHARS = 72
"""Of a request id that is numbered; the gateway keeps 80 characters of an id and adds its own."""

SERVICE_TIERS = {
    "auto": "interactive",
    "default": "interactive",
    "priority": "interactive",
    "fast": "interactive",
    "standard": "interactive",
    "scale": "interactive",
    "flex": "batch",
    "batch": "batch",
}
"""OpenAI's tiers, to ours: nobody can buy themselves ahead of others in their own house."""

OWN_FIELDS = frozenset(
    {
        "include_obfuscation",
        "metadata",
        "moderation",
        "prediction",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
    }
)
"""Fields that are of no use to an engine: they name, bill, keep or hurry."""


class Common(msgspec.Struct, frozen=True):
    """What chat and completion share."""

    stop: tuple[str, ...]
    sampling: Sampling
    stream: bool
    include_usage: bool
    session: str
    priority: str
    choices: int


def read_common(fields: Fields, asker: Asker) -> Common:
    """The shared fields of a body. Raises ApiError (400)."""
    rest = fields.rest
    stream = "stream" in rest and fields.flag("stream")
    include_usage = False
    options = fields.mapping("stream_options") if "stream_options" in rest else None
    if options is not None:
        include_usage = Fields(options, "stream_options").flag("include_usage")
    if _RARE.isdisjoint(rest):
        choices, priority, session = 1, asker.priority, session_key(asker.session)
    else:
        choices = fields.integer("n", 1, CHOICES_MAX) or 1
        priority = read_priority(fields, asker.priority)
        session = _session(fields, asker.session)
    return Common(
        stop=read_stop(fields.take("stop")) if "stop" in rest else (),
        sampling=read_sampling(fields),
        stream=stream,
        include_usage=stream and include_usage,
        session=session,
        priority=priority,
        choices=choices,
    )


_RARE = frozenset({"n", "service_tier", "prompt_cache_key", "user"})
"""Fields that few requests have: looked for together, because looking costs time."""


def drop_own_fields(fields: Fields) -> None:
    """Take out what does not travel, nulls among it: they mean "not given", and engines that know a
    field want it to be what it is."""
    if not fields.rest:
        return
    for name, value in tuple(fields.rest.items()):
        if value is None or name in OWN_FIELDS:
            del fields.rest[name]


def read_model(fields: Fields) -> str:
    """The model's name, which every request needs."""
    model = fields.text("model", limits.TEXT_MAX_CHARS)
    if not model:
        raise missing("model", "'model' is missing. GET /v1/models lists what can be asked for.")
    return model


def read_sampling(fields: Fields) -> Sampling:
    """How to choose tokens."""
    rest = fields.rest
    if _SAMPLING.keys().isdisjoint(rest):
        return NO_WISHES
    return Sampling(**{name: read(fields) for name, read in _SAMPLING.items() if name in rest})


def read_max_tokens(fields: Fields) -> int | None:
    """The newer name wins where both are sent, as at OpenAI."""
    if "max_tokens" not in fields.rest and "max_completion_tokens" not in fields.rest:
        return None
    older = fields.integer("max_tokens", UNLIMITED_TOKENS, TOKENS_MAX)
    newer = fields.integer("max_completion_tokens", UNLIMITED_TOKENS, TOKENS_MAX)
    tokens, name = (older, "max_tokens") if newer is None else (newer, "max_completion_tokens")
    if tokens == 0:
        raise bad_value(name, f"'{name}' is 0; it must be at least 1. Leave it out for no limit.")
    return None if tokens == UNLIMITED_TOKENS else tokens


def read_stop(value: Any) -> tuple[str, ...]:
    """Stop sequences: one text, or several."""
    if value is None:
        return ()
    sequences = [value] if type(value) is str else value
    if type(sequences) is not list:
        raise bad_type(
            "stop", f"'stop' must be a string or an array of strings, not {json_type(value)}."
        )
    if len(sequences) > limits.STOP_SEQUENCES_MAX:
        raise bad_value(
            "stop",
            f"'stop' has {len(sequences)} entries; {limits.STOP_SEQUENCES_MAX} are allowed.",
        )
    for sequence in sequences:
        if type(sequence) is not str:
            raise bad_type("stop", f"'stop' holds {json_type(sequence)}; each must be a string.")
        if not 0 < len(sequence) <= limits.DETAIL_MAX_CHARS:
            raise bad_value(
                "stop",
                f"'stop' holds a string of {len(sequence)} characters; "
                f"each must have 1 to {limits.DETAIL_MAX_CHARS}.",
            )
    return tuple(sequences)


def read_priority(fields: Fields, wanted: str) -> str:
    """`batch` where a header or `service_tier` says that it may wait, else `interactive`."""
    tier = fields.text("service_tier", limits.TEXT_MAX_CHARS)
    if tier is None:
        return wanted
    priority = SERVICE_TIERS.get(tier)
    if priority is None:
        raise bad_value(
            "service_tier",
            f"'service_tier' is '{tier[:40]}'; it must be one of {', '.join(SERVICE_TIERS)}.",
        )
    return "batch" if wanted == "batch" else priority


def session_key(hint: str) -> str:
    """A hint of any length in the room a `Job` has; equal hints stay equal, others differ."""
    if len(hint) <= limits.TEXT_MAX_CHARS:
        return hint
    return blake2b(hint.encode(errors="replace"), digest_size=16).hexdigest()


def further(job: Job, choices: int) -> tuple[Job, ...]:
    """The jobs of the second choice and on: each of its own id, and of its own seed where there is
    one, because equal seeds would give equal answers."""
    return tuple([_numbered(job, number) for number in range(1, choices)])


def numbered_id(request_id: str, number: int) -> str:
    """The request id of one choice: every job has its own on the relay.

    Short enough that what the gateway adds for a second attempt never cuts the number off.
    """
    if len(request_id) > CHOICE_ID_MAX_CHARS:
        request_id = blake2b(request_id.encode(), digest_size=16).hexdigest()
    return f"{request_id}+{number}"


def _numbered(job: Job, number: int) -> Job:
    sampling = job.sampling
    if sampling.seed is not None:
        sampling = replace(sampling, seed=(sampling.seed + number) % 2**63)
    return replace(job, request_id=numbered_id(job.request_id, number), sampling=sampling)


def _top_k(fields: Fields) -> int | None:
    """vLLM's clients send -1, llama.cpp's 0, for "all tokens"."""
    top_k = fields.integer("top_k", -1, TOKENS_MAX)
    return 0 if top_k == -1 else top_k


def _logit_bias(fields: Fields) -> tuple[tuple[int, float], ...]:
    biases = fields.mapping("logit_bias")
    if not biases:
        return ()
    if len(biases) > limits.LOGIT_BIAS_MAX:
        raise bad_value(
            "logit_bias",
            f"'logit_bias' has {len(biases)} entries; at most {limits.LOGIT_BIAS_MAX} are allowed.",
        )
    return _bias_pairs(biases)


def _bias_pairs(biases: Mapping[str, Any]) -> tuple[tuple[int, float], ...]:
    entries = Fields(biases, "logit_bias")
    pairs = []
    for token in biases:
        if not (token.isascii() and token.isdigit() and int(token[:20]) <= TOKENS_MAX):
            raise bad_value(
                "logit_bias", f"'logit_bias' has the key '{token[:40]}'; keys must be token ids."
            )
        bias = entries.number(token, -LOGIT_BIAS_MAX, LOGIT_BIAS_MAX)
        if bias is not None:
            pairs.append((int(token), bias))
    return tuple(pairs)


def _seed(fields: Fields) -> int | None:
    """-1 is a random one, as at llama-server and vLLM; as a seed it would be the same for all."""
    seed = fields.integer("seed", -(2**63), 2**64 - 1)
    return None if seed == -1 else seed


_SAMPLING: Mapping[str, Callable[[Fields], Any]] = {
    "temperature": lambda fields: fields.number("temperature", 0.0, TEMPERATURE_MAX),
    "top_p": lambda fields: fields.number("top_p", 0.0, 1.0),
    "top_k": _top_k,
    "min_p": lambda fields: fields.number("min_p", 0.0, 1.0),
    "presence_penalty": lambda fields: fields.number("presence_penalty", -PENALTY_MAX, PENALTY_MAX),
    "frequency_penalty": lambda fields: fields.number(
        "frequency_penalty", -PENALTY_MAX, PENALTY_MAX
    ),
    "repeat_penalty": lambda fields: fields.number("repeat_penalty", 0.0, 100.0),
    "seed": _seed,
    "logit_bias": _logit_bias,
}
"""How each field of `Sampling` is read; it is called the same in every body."""


def _session(fields: Fields, header: str) -> str:
    """What keeps one conversation on one machine: the client's own hints, most telling first."""
    cache_key = fields.text("prompt_cache_key", limits.JOB_MAX_BYTES)
    user = fields.text("user", limits.JOB_MAX_BYTES)
    return session_key(cache_key or header or user or "")
