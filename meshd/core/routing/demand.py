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

from protocol.jobs import Job

BYTES_PER_TOKEN = 3.6
"""Bytes of UTF-8 text per token, the mean over common tokenizers."""

TOKENS_PER_TURN = 6
"""Role markers that a chat template adds around each turn."""

TOKENS_PER_IMAGE = 600
"""What the common vision models spend on one picture of moderate size."""

EXPECTED_OUTPUT_TOKENS = 220
"""Length of an answer nobody has bounded: between the medians of public chat traces (129-350)."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The needs of one job. Token counts are estimates."""

    model: str
    capabilities: frozenset[str]
    prompt_tokens: int
    output_tokens: int


def demand_of(job: Job, model: str) -> Demand:
    """The demand of a job for the canonical model id `model`."""
    expected = EXPECTED_OUTPUT_TOKENS
    if job.max_tokens is not None:
        expected = min(expected, job.max_tokens)
    if job.kind == "embedding":
        expected = 0
    return Demand(model, capabilities_of(job), prompt_tokens_of(job), expected)


def capabilities_of(job: Job) -> frozenset[str]:
    """The capability words that a model must have to take this job."""
    needed = {job.kind}
    if job.tools:
        needed.add("tools")
    if any(True for _ in _images(job.messages)):
        needed.add("vision")
    return frozenset(needed)


def prompt_tokens_of(job: Job) -> int:
    """Estimated tokens of the prompt, tools included; at least 1."""
    if job.prompt_tokens is not None:
        return max(1, len(job.prompt_tokens))
    size_bytes = _text_bytes(job.prompt) if job.prompt is not None else 0
    size_bytes += sum(_text_bytes(turn) for turn in job.messages)
    size_bytes += sum(_text_bytes(entry) for entry in job.inputs)
    size_bytes += _text_bytes(job.tools)
    images = sum(1 for _ in _images(job.messages))
    tokens = size_bytes / BYTES_PER_TOKEN
    return max(1, round(tokens) + TOKENS_PER_TURN * len(job.messages) + TOKENS_PER_IMAGE * images)


def _text_bytes(value: Any) -> int:
    """Characters of all text inside a JSON value, images left out; a stand-in for its bytes."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        if value.get("type") in _IMAGE_PARTS:
            return 0
        return sum(_text_bytes(entry) for key, entry in value.items() if key not in _MARKERS)
    if isinstance(value, list):
        return sum(_text_bytes(entry) for entry in value)
    return 0


def _images(turns: Iterable[Any]) -> Iterable[Any]:
    for turn in turns:
        content = turn.get("content") if isinstance(turn, dict) else None
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and part.get("type") in _IMAGE_PARTS:
                    yield part


_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
_MARKERS = frozenset({"role", "type"})
