"""What a job asks of a machine, before any tokenizer has seen it.

The node a request enters may not have the model, so it cannot count tokens; it estimates them from
bytes. Across English prose, code and JSON the common tokenizers take 3.2 to 4.1 bytes a token; 3.6
errs by less than 15 % on each, which moves an expected completion time far less than the +-30 % of
a measured rate. The estimate ranks peers; only the engine, which counts, refuses a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from meshd.core.routing.lengths import EXPECTED_OUTPUT_TOKENS, class_of
from meshd.core.routing.prefix import Cut, cuts_of
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


@dataclass(frozen=True, slots=True)
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
    job: Job, model: str, expected_tokens: int = EXPECTED_OUTPUT_TOKENS, *, cut: bool = True
) -> Demand:
    """The demand of a job for the canonical model id `model`.

    `expected_tokens` is the length of an answer that nobody bounds. Without `cut` the prompt is not
    hashed, which is right where no machine says what it has cached.
    """
    if job.max_tokens is not None:
        expected_tokens = min(expected_tokens, job.max_tokens)
    if job.kind in ("embedding", "raw"):
        expected_tokens = 0
    return Demand(
        model,
        capabilities_of(job),
        prompt_tokens_of(job),
        expected_tokens,
        class_of(job),
        job.session,
        cuts_of(job) if cut else (),
    )


def capabilities_of(job: Job) -> frozenset[str]:
    """The capability words that a model must have to take this job."""
    if job.raw is not None:
        word = RAW_CAPABILITIES.get(job.raw.path.partition("?")[0])
        return frozenset({word} if word else ())
    needed = {job.kind}
    if job.tools:
        needed.add("tools")
    if any(True for _ in _parts(job.messages, _IMAGE_PARTS)):
        needed.add("vision")
    if any(True for _ in _parts(job.messages, _AUDIO_PARTS)):
        needed.add("audio")
    return frozenset(needed)


def prompt_tokens_of(job: Job) -> int:
    """Estimated tokens of the prompt, tools and the answer's beginning included; at least 1."""
    if job.prompt_tokens is not None:
        return max(1, len(job.prompt_tokens) + len(job.prefix_tokens or ()))
    size_bytes = _text_bytes(job.prompt) if job.prompt is not None else 0
    size_bytes += sum(_text_bytes(turn) for turn in job.messages)
    size_bytes += sum(_text_bytes(entry) for entry in job.inputs)
    size_bytes += _text_bytes(job.tools) + _text_bytes(job.prefix_text)
    images = sum(1 for _ in _parts(job.messages, _IMAGE_PARTS))
    tokens = size_bytes / BYTES_PER_TOKEN
    return max(1, round(tokens) + TOKENS_PER_TURN * len(job.messages) + TOKENS_PER_IMAGE * images)


def _text_bytes(value: Any) -> int:
    """Characters of all text inside a JSON value, images left out; a stand-in for its bytes."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        if _is_of(value, _MEDIA_PARTS):
            return 0
        return sum(_text_bytes(entry) for key, entry in value.items() if key not in _MARKERS)
    if isinstance(value, list):
        return sum(_text_bytes(entry) for entry in value)
    return 0


def _parts(turns: Iterable[Any], kinds: frozenset[str]) -> Iterable[Any]:
    for turn in turns:
        content = turn.get("content") if isinstance(turn, dict) else None
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and _is_of(part, kinds):
                    yield part


def _is_of(part: dict[str, Any], kinds: frozenset[str]) -> bool:
    """A JSON schema may have a list where a part has its type."""
    kind = part.get("type")
    return isinstance(kind, str) and kind in kinds


_AUDIO_PARTS = frozenset({"input_audio"})
_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
_MEDIA_PARTS = _IMAGE_PARTS | _AUDIO_PARTS
_MARKERS = frozenset({"role", "type"})
