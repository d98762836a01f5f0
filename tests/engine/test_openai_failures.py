"""Claims of meshd.engine.openai_failures: errors of adopted servers, in our words."""

from __future__ import annotations

import json

import pytest

from meshd.engine.openai_failures import failure_of_status


@pytest.mark.parametrize(
    ("status", "body", "code", "elsewhere"),
    [
        (400, b'{"error": {"message": "bad", "param": "n"}}', "bad_request", False),
        (400, b'{"error": {"type": "exceed_context_size_error", "message": "x"}}',
         "context_length_exceeded", False),
        (401, b"{}", "unauthorized", True),
        (402, b'{"error": {"message": "no credit"}}', "unauthorized", True),
        (403, b'{"error": {"message": "no access"}}', "unauthorized", True),
        (403, b'{"error": {"message": "Your input was flagged", "code": 403}}',
         "bad_request", True),
        (404, b'{"error": "model not found"}', "model_not_found", True),
        (404, b'{"detail": "Not Found"}', "unsupported", True),
        (404, b"<html>404 Not Found</html>", "unsupported", True),
        (405, b'{"detail": "Method Not Allowed"}', "unsupported", True),
        (422, b'{"detail": "bad"}', "bad_request", False),
        (429, b"slow down", "overloaded", True),
        (500, b"\xff", "engine_failed", True),
        (503, b'{"error": {"message": "Loading model"}}', "overloaded", True),
        (302, b"", "engine_failed", True),
    ],
)  # fmt: skip
def test_http_errors_keep_their_meaning(status, body, code, elsewhere):
    """Whose fault it is decides whether another node is asked."""
    failure = failure_of_status(status, body, "")
    assert (failure.code, failure.elsewhere) == (code, elsewhere)


def test_a_proxys_page_is_not_passed_on():
    """A person who asked a model reads no HTML."""
    failure = failure_of_status(502, b"\n<!DOCTYPE html><h1>502 Bad Gateway</h1>")
    assert failure.message.endswith("HTTP status 502, with a page and no reason")


def test_a_key_that_is_refused_is_the_nodes():
    """Whoever asked has given none to that server, and would change the wrong one."""
    body = b'{"error": {"message": "Invalid API key."}}'
    failure = failure_of_status(401, body, server="upstream http://box:8000")
    assert failure.message.startswith(
        "upstream http://box:8000 refuses the node that asked it, not you (HTTP status 401): "
        "Invalid API key. "
    )


def test_a_server_that_has_moved_says_where():
    """An address without its TLS, or without its slash, is the usual mistake."""
    failure = failure_of_status(301, b"<html>Moved</html>", location="https://box.lan/v1/models")
    assert "go to https://box.lan/v1/models" in failure.message


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("", 1.0), ("Wed, 1 Jan", 1.0)])
def test_retry_after_is_passed_on(header, seconds):
    """A busy server knows best when to come back."""
    assert failure_of_status(503, b"", header).retry_after_s == seconds


def test_an_upstreams_words_and_param_are_passed_on():
    """The person who asked reads what the server said."""
    body = b'{"error": {"message": "temperature must be below 2", "param": "temperature"}}'
    failure = failure_of_status(400, body, "")
    assert failure.message == "temperature must be below 2"
    assert failure.param == "temperature"


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        "You passed 15 input tokens. However, the model's context length is only 10 tokens.",
        "The prompt (total length 25938) is too long to fit into the model (context length 4096).",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "the model is loaded with context length of only 4096 tokens, which is not enough",
        "The number of tokens to keep from the prompt is greater than the context length.",
        "the request exceeds the available context size, try increasing it",
    ],
)
def test_a_prompt_that_does_not_fit_is_known_by_the_words_for_it(words):
    """vLLM (older and newer), SGLang, LM Studio and llama.cpp; agents shorten it and go on."""
    failure = failure_of_status(400, json.dumps({"error": {"message": words}}).encode())
    assert (failure.code, failure.message) == ("context_length_exceeded", words)
