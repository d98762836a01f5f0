"""Failures in HTTP's words."""

import json

import pytest

from meshd.api.errors import ApiError, from_failure, retry_after_s
from protocol.jobs import FAILURES, Failure

STATUS = {
    "bad_request": 400,
    "context_length_exceeded": 400,
    "model_not_found": 404,
    "unsupported": 400,
    "overloaded": 503,
    "draining": 503,
    "insufficient_memory": 507,
    "engine_failed": 502,
    "unreachable": 503,
    "timeout": 504,
    "cancelled": 499,
    "rate_limited": 429,
    "unauthorized": 502,
}


def test_every_failure_code_has_a_status():
    """A code that is added to the wire cannot be forgotten here."""
    assert {code: from_failure(Failure(code, "", False)).status for code in FAILURES} == STATUS


@pytest.mark.parametrize("code", FAILURES)
def test_an_error_has_all_four_keys(code):
    """Clients index message, type, param and code without asking."""
    error = json.loads(from_failure(Failure(code, "why", elsewhere=False)).body())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith("why")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("it has 9 tokens", "This model's maximum context length is exceeded: it has 9 tokens"),
        ("this model's maximum context length is 8.", "this model's maximum context length is 8."),
    ],
)
def test_a_prompt_that_does_not_fit_is_told_in_openais_words(words, said):
    """LiteLLM knows it by them alone, and programs above it shorten the conversation and go on."""
    error = from_failure(Failure("context_length_exceeded", words, elsewhere=False))
    assert error.object()["error"]["message"] == said


@pytest.mark.parametrize("code", ["overloaded", "draining", "unreachable", "rate_limited"])
def test_what_may_succeed_later_says_when(code):
    """The SDKs wait as long as `retry-after` says."""
    error = from_failure(Failure(code, "", elsewhere=True, retry_after_s=2.2))
    assert error.headers == (("retry-after", "3"),)


@pytest.mark.parametrize("code", ["insufficient_memory", "unauthorized"])
def test_what_will_not_succeed_asks_not_to_be_retried(code):
    """A model that does not fit, or a server that wants another key of its node, would otherwise
    be asked three times."""
    error = from_failure(Failure(code, "", elsewhere=True))
    assert error.headers == (("x-should-retry", "false"),)


def test_an_unknown_model_names_its_parameter():
    """Home Assistant and others show `param` beside the message."""
    assert from_failure(Failure("model_not_found", "", elsewhere=False)).param == "model"


def test_a_failure_keeps_its_own_parameter():
    """What the engine blamed is what the client reads."""
    failure = Failure("bad_request", "", elsewhere=False, param="tools")
    assert from_failure(failure).param == "tools"


@pytest.mark.parametrize(("wanted", "said"), [(0.0, 1), (1.0, 1), (1.01, 2), (9999.0, 120)])
def test_a_wait_is_whole_seconds_within_what_clients_obey(wanted, said):
    """Zero is a busy loop, and beyond 120 s the SDKs ignore it."""
    assert retry_after_s(wanted) == said


def test_an_error_reads_as_its_message():
    """In a log line or a traceback the words are enough."""
    assert str(ApiError(400, "why", code="x")) == "why"
