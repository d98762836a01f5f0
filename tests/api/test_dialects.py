"""Which route speaks which dialect."""

import json

import pytest

from meshd.api.dialect import Asker
from meshd.api.dialects import DIALECTS, PAGES, refusal_of
from meshd.api.errors import ApiError
from meshd.api.paths import BOARD, OWNERS, WORK, Route, find
from tests.api.scripted import MODEL

READ_ELSEWHERE = {
    Route.HEALTH,
    Route.MODELS,
    Route.MODEL,
    Route.STATUS,
    Route.MEMBERS,
    Route.EXPLAIN,
    Route.RAW,
}
"""Answered by `meshd.api.answers` itself."""


def test_every_route_is_somebodys():
    """And of one only, or a request would fall through."""
    rooms = [set(DIALECTS), set(PAGES), READ_ELSEWHERE, OWNERS | WORK, set(BOARD)]
    assert set().union(*rooms) == set(Route)
    assert sum(map(len, rooms)) == len(Route)


@pytest.mark.parametrize(
    ("target", "keys"),
    [
        ("/v1/models", {"error"}),
        ("/v1/messages", {"type", "error", "request_id"}),
        ("/api/nope", {"error"}),
    ],
)
def test_an_error_is_worded_for_its_path(target, keys):
    """By whoever reads there."""
    _, body = refusal_of(target)(ApiError(404, "no", code="unknown_url"), "r1")
    assert set(json.loads(body)) == keys


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("GET", "/api/tags", b"", b'"models"'),
        ("GET", "/api/ps", b"", b'"models"'),
        ("GET", "/api/version", b"", b'"version"'),
        ("POST", "/api/show", b'{"model":"tiny"}', b'"capabilities"'),
        ("POST", "/api/pull", b'{"model":"tiny"}', b'"success"'),
        (
            "POST",
            "/v1/messages/count_tokens",
            b'{"model":"tiny","messages":[{"role":"user","content":"Hi"}]}',
            b'"input_tokens"',
        ),
    ],
)
def test_a_page_needs_no_job(method, path, body, words):
    """Only the body and the models that there are."""
    found = find(method, path)
    assert words in PAGES[found.route](found, body, Asker("r1"), [MODEL]).body


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/push"), ("DELETE", "/v1/responses/resp_1")]
)
def test_what_is_not_served_is_a_4xx(method, path):
    """With words of its own."""
    found = find(method, path)
    with pytest.raises(ApiError) as caught:
        PAGES[found.route](found, b"", Asker("r1"), [MODEL])
    assert 400 <= caught.value.status < 500
