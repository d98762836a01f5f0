"""Any JSON in the two dialects of agents: a job that can cross the relay, or a shaped 4xx.

The other routes are in `test_any_body`; here the bodies are deep, so the readers are asked without
a server, which is a hundred times as many cases in the same time.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.anthropic_answer import MESSAGES
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.responses_answer import RESPONSES
from protocol.codec import encode_job
from tests.api.test_anthropic import CLAUDE_CODE
from tests.api.test_responses import CODEX

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
WORDS = ["type", "role", "content", "text", "name", "input", "output", "call_id", "source", "tools"]
WORDS += ["message", "user", "assistant", "tool_result", "tool_use", "image", "function", "custom"]
KEYS = st.sampled_from(WORDS) | st.text(max_size=3)
JSON = st.recursive(
    LEAVES | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def _places(value, path=()):
    """The path to every value inside."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in inner:
        yield from (
            _places(below, (*path, key)) if isinstance(below, dict | list) else [(*path, key)]
        )


def _with(value, path, other):
    """A copy of `value` with `other` at `path`."""
    if not path:
        return other
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _with(copied[path[0]], path[1:], other)
    return copied


def nearly(body):
    """A good body with something else in one place."""
    places = [path for path in _places(body) if path]
    return st.builds(_with, st.just(body), st.sampled_from(places), JSON)


@given(body=nearly(CODEX))
def test_any_responses_body(body):
    """Whatever stands in whichever place."""
    _judge(RESPONSES, body)


@given(body=nearly(CLAUDE_CODE))
def test_any_messages_body(body):
    """Whatever stands in whichever place."""
    _judge(MESSAGES, body)


@pytest.mark.parametrize("dialect", [RESPONSES, MESSAGES])
@given(body=st.dictionaries(KEYS, JSON))
def test_any_object(dialect, body):
    """Also what is no request at all."""
    _judge(dialect, body)


def _judge(dialect, body):
    status, said = _outcome(dialect, body)
    assert 200 <= status < 500
    assert said


def _outcome(dialect, body):
    """The job's bytes for the relay, or status and words of the refusal."""
    try:
        asked = dialect.read(body, Asker("r1"))
    except ApiError as error:
        status, refusal = dialect.refuse(error, "r1")
        return status, json.loads(refusal)["error"]["message"]
    return 200, encode_job(asked.job)
