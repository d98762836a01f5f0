"""What a job asks of a machine."""

import pytest

from meshd.core.routing.demand import (
    capabilities_of,
    demand_of,
    prompt_tokens_of,
)
from meshd.core.routing.lengths import EXPECTED_OUTPUT_TOKENS
from protocol.jobs import RawRequest
from tests.core.routing.fleet import MODEL, chat

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000}}


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [(None, EXPECTED_OUTPUT_TOKENS), (5, 5), (100_000, EXPECTED_OUTPUT_TOKENS), (0, 0)],
)
def test_expected_output_is_the_smaller_of_the_limit_and_the_usual(max_tokens, expected):
    """A client's bound counts only when it is below what people usually get."""
    assert demand_of(chat(max_tokens=max_tokens), MODEL).output_tokens == expected


def test_an_embedding_generates_nothing():
    """Only its prompt costs time."""
    demand = demand_of(chat(kind="embedding", messages=(), inputs=("some text",)), MODEL)
    assert demand.output_tokens == 0
    assert demand.prompt_tokens == round(9 / 3.6)


@pytest.mark.parametrize(
    ("job", "tokens"),
    [
        (chat("x" * 360), 106),
        (chat("é" * 180), 106),
        (chat(messages=({"role": "user", "content": [{"type": "text", "text": "x" * 36}]},)), 16),
        (chat(messages=({"role": "user", "content": [IMAGE]},)), 606),
        (chat(messages=({"role": "user", "content": 7},)), 6),
        (chat(messages=(), prompt="x" * 36), 10),
        (chat(messages=(), prompt_tokens=(1, 2, 3)), 3),
        (chat(messages=(), prompt=""), 1),
        (chat("", tools=[{"function": {"name": "x" * 36}}]), 16),
    ],
)
def test_prompt_tokens_follow_the_bytes_of_the_text(job, tokens):
    """Text counts by its UTF-8 bytes, an image by a fixed price, a turn by its markers."""
    assert prompt_tokens_of(job) == tokens


def test_tools_and_images_need_a_model_that_can_use_them():
    """What the job holds decides what the model must be able to do."""
    job = chat(tools=[{}], messages=({"role": "user", "content": [IMAGE]},))
    assert capabilities_of(job) == {"chat", "tools", "vision"}


def test_a_recording_needs_a_model_that_hears():
    """It is refused by name where none does, never dropped."""
    heard = [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]
    job = chat(messages=({"role": "user", "content": heard},))
    assert capabilities_of(job) == {"chat", "audio"}
    assert capabilities_of(chat()) == {"chat"}


@pytest.mark.parametrize(
    ("path", "capabilities"),
    [
        ("/v1/audio/transcriptions", {"transcription"}),
        ("/v1/audio/speech?x=1", {"speech"}),
        ("/v1/images/edits", {"image"}),
        ("/v1/rerank", set()),
    ],
)
def test_a_request_that_nobody_reads_needs_what_its_path_says(path, capabilities):
    """Nothing where nobody knows the path; and no token is expected of it."""
    job = chat(kind="raw", messages=(), raw=RawRequest(path, "application/json", b"{}"))
    assert capabilities_of(job) == capabilities
    assert demand_of(job, MODEL).output_tokens == 0


def test_a_schema_with_several_types_is_counted():
    """`"type": ["string", "null"]` is what every optional field of a tool looks like."""
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert prompt_tokens_of(chat(tools=[tool])) > prompt_tokens_of(chat())
