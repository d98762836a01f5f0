"""The body of `/v1/completions`, read: one prompt or several, as text or as token ids.

Every prompt is a job of its own, and so is every further choice; choices are numbered prompt by
prompt, as OpenAI numbers them. `echo` is done where it needs no tokenizer: a text prompt in front
of its answer. `suffix` needs marks that every model has its own of, so it is refused with the way
round it; `best_of` would throw away answers that somebody's machine has worked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meshd.api.body import check_free_form
from meshd.api.dialect import Asked, Asker
from meshd.api.errors import bad_type, bad_value, missing, unsupported
from meshd.api.fields import Fields, json_type
from meshd.api.job import (
    CHOICES_MAX,
    TOKENS_MAX,
    TOP_LOGPROBS_MAX,
    drop_own_fields,
    further,
    numbered_id,
    read_common,
    read_max_tokens,
    read_model,
)
from protocol import limits
from protocol.jobs import Job


class AskedCompletion(Asked, frozen=True):
    """A completion request, and what only concerns how it is printed."""

    include_usage: bool = False
    echo: bool = False
    per_prompt: int = 1
    """Choices of each prompt."""


def read_completion(body: Mapping[str, Any], asker: Asker) -> AskedCompletion:
    """What a completion body asks. Raises ApiError (400)."""
    fields = Fields(body)
    prompts = _prompts(fields.take("prompt"))
    check_free_form(fields.rest)
    model = read_model(fields)
    top_logprobs = fields.integer("logprobs", 0, TOP_LOGPROBS_MAX)
    echo = _echo(fields, prompts[0], top_logprobs)
    common = read_common(fields, asker)
    _refuse(fields, common.choices)
    if common.choices * len(prompts) > CHOICES_MAX:
        raise bad_value(
            "n", f"'n' times the number of prompts is above {CHOICES_MAX}. Send fewer at once."
        )
    max_tokens = read_max_tokens(fields)
    drop_own_fields(fields)
    first, *rest = prompts
    job = Job(
        request_id=asker.request_id,
        kind="completion",
        model=model,
        prompt=first if type(first) is str else None,
        prompt_tokens=first if type(first) is tuple else None,
        max_tokens=max_tokens,
        logprobs=top_logprobs is not None,
        top_logprobs=top_logprobs or 0,
        stop=common.stop,
        sampling=common.sampling,
        stream=common.stream,
        session=common.session,
        priority=common.priority,
        person=asker.person,
        extras=fields.rest or None,
    )
    others = further(job, common.choices) if common.choices > 1 else ()
    for prompt in rest:
        others += _same((job, *others[: common.choices - 1]), prompt, len(others) + 1)
    return AskedCompletion(job, others, "", common.include_usage, echo, common.choices)


def _same(jobs: tuple[Job, ...], prompt: str | tuple[int, ...], begin: int) -> tuple[Job, ...]:
    """The choices of another prompt, numbered from `begin`."""
    text = prompt if type(prompt) is str else None
    tokens = prompt if type(prompt) is tuple else None
    return tuple(
        [
            replace(
                job,
                request_id=numbered_id(jobs[0].request_id, begin + place),
                prompt=text,
                prompt_tokens=tokens,
            )
            for place, job in enumerate(jobs)
        ]
    )


def _prompts(value: Any) -> list[str | tuple[int, ...]]:
    """Texts, or lists of token ids; what is one prompt becomes a list of one."""
    if value is None:
        raise missing("prompt", "'prompt' is missing. Send a string, or an array of token ids.")
    if type(value) is str:
        return [_text(value)]
    if type(value) is not list:
        raise bad_type(
            "prompt", f"'prompt' must be a string or an array of token ids, not {json_type(value)}."
        )
    if not value:
        raise bad_value("prompt", "'prompt' is empty. Send at least one token id.")
    kinds = set(map(type, value))
    if kinds == {int}:
        return [_token_ids(value)]
    if len(value) > CHOICES_MAX:
        raise bad_value(
            "prompt", f"'prompt' holds {len(value)} prompts; at most {CHOICES_MAX} are served."
        )
    if kinds == {str}:
        return [_text(text) for text in value]
    if kinds == {list}:
        return [_token_ids(tokens) for tokens in value]
    raise bad_type("prompt", "'prompt' must hold texts, or token ids, or lists of token ids.")


def _text(value: str) -> str:
    if not value:
        raise bad_value("prompt", "'prompt' is empty. Send at least one character.")
    return value


def _token_ids(value: list[Any]) -> tuple[int, ...]:
    if not value:
        raise bad_value("prompt", "'prompt' is empty. Send at least one token id.")
    if set(map(type, value)) != {int} or min(value) < 0 or max(value) > TOKENS_MAX:
        raise bad_type("prompt", "'prompt' must hold token ids only: whole numbers from 0.")
    if len(value) > limits.TOKEN_IDS_MAX:
        raise bad_value(
            "prompt",
            f"'prompt' has {len(value)} tokens; at most {limits.TOKEN_IDS_MAX} are allowed.",
        )
    return tuple(value)


def _echo(fields: Fields, first: str | tuple[int, ...], logprobs: int | None) -> bool:
    if not fields.flag("echo"):
        return False
    if type(first) is not str:
        raise unsupported("echo", "'echo' is not served for token ids. Send the prompt as text.")
    if logprobs is not None:
        raise unsupported("echo", "'echo' is not served together with 'logprobs'. Leave one out.")
    return True


def _refuse(fields: Fields, choices: int) -> None:
    if fields.text("suffix", limits.JOB_MAX_BYTES):
        raise unsupported(
            "suffix",
            "'suffix' is not served. Put your model's own fill-in-the-middle marks in 'prompt'.",
        )
    best_of = fields.integer("best_of", 1, CHOICES_MAX)
    if best_of is not None and best_of != choices:
        raise unsupported(
            "best_of", f"'best_of' is {best_of} and 'n' is {choices}; only equal ones are served."
        )
