"""From paths to routes."""

import pytest

from meshd.api.errors import ApiError
from meshd.api.paths import Family, Found, Route, family, find


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/v1/chat/completions",
        "/v1/chat/completions/",
        "//v1//chat/completions",
        "/v1/chat/completions?beta=true&x=/v1/models",
    ],
)
def test_every_spelling_of_a_path_finds_its_route(path):
    """Base URLs come with and without `/v1`, and with slashes in odd places."""
    assert find("POST", path) == Found(Route.CHAT, path="/chat/completions")


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/", Route.ROOT),
        ("HEAD", "/", Route.ROOT),
        ("GET", "/?x", Route.ROOT),
        ("GET", "/v1", Route.ROOT),
        ("GET", "/v1/", Route.ROOT),
        ("HEAD", "/health", Route.HEALTH),
        ("POST", "/v1/completions", Route.COMPLETION),
        ("POST", "/v1/embeddings", Route.EMBEDDING),
        ("GET", "/models", Route.MODELS),
        ("GET", "/v1/models/", Route.MODELS),
        ("GET", "/mesh/v1/status", Route.STATUS),
        ("GET", "/mesh/v1/members/", Route.MEMBERS),
        ("POST", "/mesh/v1/explain", Route.EXPLAIN),
        ("POST", "/mesh/v1/pair", Route.INVITE),
        ("GET", "/mesh/v1/pair", Route.INVITATIONS),
        ("DELETE", "/mesh/v1/pair/", Route.WITHDRAW),
        ("POST", "/mesh/v1/join", Route.JOIN),
        ("POST", "/mesh/v1/revoke?x", Route.REVOKE),
        ("POST", "/v1/responses", Route.RESPONSES),
        ("DELETE", "/v1/responses/resp_1", Route.RESPONSE),
        ("POST", "/v1/responses/resp_1/cancel", Route.RESPONSE),
        ("POST", "/v1/messages?beta=true", Route.MESSAGES),
        ("POST", "/v1/messages/count_tokens", Route.COUNT_TOKENS),
        ("POST", "/api/chat", Route.OLLAMA_CHAT),
        ("GET", "/api/tags", Route.OLLAMA_TAGS),
        ("HEAD", "/api/version", Route.OLLAMA_VERSION),
        ("DELETE", "/api/delete", Route.OLLAMA_REFUSED),
        ("HEAD", "/api/blobs/sha256:ab", Route.OLLAMA_REFUSED),
        ("POST", "/v1/audio/speech", Route.RAW),
        ("POST", "/v1/whatever/comes/next", Route.RAW),
    ],
)
def test_every_route_is_found(method, path, route):
    """One line each."""
    assert find(method, path).route is route


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/tiny", "tiny"),
        ("/models/org/tiny:q4", "org/tiny:q4"),
        ("/v1/models/org%2Ftiny%3Aq4/", "org/tiny:q4"),
        ("/v1/models/v1/x?y=z", "v1/x"),
    ],
)
def test_a_model_id_keeps_its_slashes_and_colons(path, model):
    """Escaped or not."""
    found = find("GET", path)
    assert (found.route, found.name) == (Route.MODEL, model)


def test_an_unknown_path_travels_as_it_should_have_been_spelt():
    """Whoever serves it finds one `/v1` in front, and no query."""
    assert find("POST", "/v1/v1/audio/speech/?x").path == "/v1/audio/speech"


@pytest.mark.parametrize(
    ("target", "whose"),
    [
        ("/v1/chat/completions", Family.OPENAI),
        ("/nope", Family.OPENAI),
        ("/v1/messages?beta=true", Family.ANTHROPIC),
        ("/messages/count_tokens", Family.ANTHROPIC),
        ("/v1/api/chat", Family.OLLAMA),
        ("/api/nope", Family.OLLAMA),
    ],
)
def test_the_path_says_whose_errors_are_read(target, whose):
    """Also where nothing is served."""
    assert family(target) is whose


@pytest.mark.parametrize("path", ["/nope", "/v1/chat", "/v2/models", "evil.com:443"])
def test_an_unknown_path_is_a_404_that_names_it(path):
    """And says what is served."""
    with pytest.raises(ApiError) as caught:
        find("GET", path)
    assert caught.value.status == 404
    assert path in caught.value.message
    assert "/v1/chat/completions" in caught.value.message


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/models/x", "GET, HEAD, OPTIONS"),
        ("PUT", "/mesh/v1/pair", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("GET", "/mesh/v1/revoke", "POST, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method, path, allow):
    """RFC 9110 wants `allow` beside a 405."""
    with pytest.raises(ApiError) as caught:
        find(method, path)
    assert caught.value.status == 405
    assert caught.value.headers == (("allow", allow),)
