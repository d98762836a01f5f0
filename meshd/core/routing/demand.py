"""What a job asks of a machine, before any tokenizer has seen it.

The node a request enters may not have the model, so it cannot count tokens; it estimates them from
bytes. Across English prose, code and JSON the common tokenizers take 3.2 to 4.1 bytes a token; 3.6
errs by less than 15 % on each, which moves an expected completion time far less than the +-30 % of
a measured rate. The estimate ranks peers; only the engine, which counts, refuses a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from meshd.core.routing.lengths import class_of, usual
from meshd.core.routing.prefix import Cut, cuts_of
from protocol.frozen import frozen
from protocol.jobs import Job

BYTES_PER_TOKEN = 3.6
"""Bytes of UTF-8 text per token, the mean over common tokenizers."""

TOKENS_PER_TURN = 6
"""Role markers that a chat template adds around each turn."""

TOKENS_PER_IMAGE = 600
"""What the common vision models spend on one picture of moderate size."""


RAW_CAPABILITIES = {
    "/v1/audio/transcriptions": "transcription",
    "/v1/audio/translations": "transcription",
    "/v1/audio/speech": "speech",
    "/v1/images/generations": "image",
    "/v1/images/edits": "image",
    "/v1/images/variations": "image",
}
"""What a model must be able to do to be asked at a path whose bodies nobody here reads. Anything
else may go to whoever offers the model and can pass a request on."""


WRITTEN_KINDS = frozenset({"chat", "completion"})
"""Jobs whose answer is generated token by token."""


@frozen
class Demand:
    """The needs of one job. Token counts are estimates."""

    model: str
    capabilities: frozenset[str]
    prompt_tokens: int
    output_tokens: int
    job_class: str = ""
    """Requests that resemble each other (`lengths.class_of`)."""
    session: str = ""
    """The client's own hint of what belongs together; breaks ties, never more."""
    cuts: tuple[Cut, ...] = ()
    """Where the prompt could be continued from (`prefix.cuts_of`)."""


def demand_of(
    job: Job, model: str, expected: Callable[[str], int] = usual, *, cut: bool = True
) -> Demand:
    """The demand of a job for the canonical model id `model`.

    `expected` gives the length of an answer that nobody bounds, by its class. Without `cut` the
    prompt is not hashed, which is right where no machine says what it has cached.
    """
    contents = _contents_of(job.messages)
    job_class = class_of(job)
    output_tokens = 0
    if job.kind in WRITTEN_KINDS:
        output_tokens = expected(job_class)
        if job.max_tokens is not None:
            output_tokens = min(output_tokens, job.max_tokens)
    return Demand(
        model,
        _capabilities(job, contents),
        _prompt_tokens(job, contents),
        output_tokens,
        job_class,
        job.session,
        cuts_of(job) if cut else (),
    )


def capabilities_of(job: Job) -> frozenset[str]:
    """The capability words that a model must have to take this job."""
    return _capabilities(job, _contents_of(job.messages))


def prompt_tokens_of(job: Job) -> int:
    """Estimated tokens of the prompt, tools and the answer's beginning included; at least 1."""
    return _prompt_tokens(job, _contents_of(job.messages))


class _Contents(NamedTuple):
    """What a chat is made of."""

    text_bytes: int
    images: int
    recordings: int


def _contents_of(turns: Iterable[Any]) -> _Contents:
    """In one pass: it is made for every request."""
    size_bytes = images = recordings = 0
    for turn in turns:
        size_bytes += _text_bytes(turn)
        content = turn.get("content") if type(turn) is dict else None
        if type(content) is list:
            kinds = [part.get("type") for part in content if type(part) is dict]
            images += sum([_is_in(kind, _IMAGE_PARTS) for kind in kinds])
            recordings += sum([_is_in(kind, _AUDIO_PARTS) for kind in kinds])
    return _Contents(size_bytes, images, recordings)


def _capabilities(job: Job, contents: _Contents) -> frozenset[str]:
    if job.raw is not None:
        word = RAW_CAPABILITIES.get(job.raw.path.partition("?")[0])
        return frozenset({word} if word else ())
    return _words(job.kind, bool(job.tools), contents.images > 0, contents.recordings > 0)


@lru_cache(maxsize=32)
def _words(kind: str, has_tools: bool, sees: bool, hears: bool) -> frozenset[str]:
    needed = {"tools": has_tools, "vision": sees, "audio": hears}
    return frozenset({kind, *[word for word, is_needed in needed.items() if is_needed]})


def _prompt_tokens(job: Job, contents: _Contents) -> int:
    if job.prompt_tokens is not None:
        return max(1, len(job.prompt_tokens) + len(job.prefix_tokens or ()))
    size_bytes = contents.text_bytes + _text_bytes(job.prompt)
    size_bytes += _text_bytes(job.prefix_text + job.prefix_thought)
    if job.tools:
        size_bytes += _text_bytes(job.tools)
    if job.inputs:
        size_bytes += _text_bytes(list(job.inputs))
    turns, images = TOKENS_PER_TURN * len(job.messages), TOKENS_PER_IMAGE * contents.images
    return round(size_bytes / BYTES_PER_TOKEN) + turns + images or 1


def _text_bytes(value: Any) -> int:
    """Bytes of all text inside a JSON value, images left out."""
    if type(value) is str:
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if type(value) is dict:
        if _is_in(value.get("type"), _MEDIA_PARTS):
            return 0
        value = [entry for key, entry in value.items() if key not in _MARKERS]
    elif type(value) is not list:
        return 0
    size_bytes = 0
    for entry in value:
        is_plain = type(entry) is str and entry.isascii()
        size_bytes += len(entry) if is_plain else _text_bytes(entry)
    return size_bytes


def _is_in(kind: object, kinds: frozenset[str]) -> bool:
    """A JSON schema may have a list where a part has its type."""
    return type(kind) is str and kind in kinds


_AUDIO_PARTS = frozenset({"input_audio"})
_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
_MEDIA_PARTS = _IMAGE_PARTS | _AUDIO_PARTS
_MARKERS = frozenset({"role", "type"})
