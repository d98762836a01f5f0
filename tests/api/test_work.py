"""Requests and draining over HTTP, in front of a desk that keeps what it was told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from meshd.api.answers import Answers
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.paths import OWNERS, WORK, Found, Route, find
from meshd.api.replies import Reply
from meshd.api.work import ROWS, answer_work
from tests.api.scripted import Scripted


class Work:
    """Says which of its words it was asked for."""

    def requests(self, limit: int) -> Mapping[str, Any]:
        return {"word": "requests", "limit": limit}

    def request(self, request_id: str) -> Mapping[str, Any] | None:
        return {"word": request_id} if request_id.startswith("r") else None

    def drain(self) -> Mapping[str, Any]:
        return {"word": "drain"}

    def resume(self) -> Mapping[str, Any]:
        return {"word": "resume"}

    def duty(self) -> Mapping[str, Any]:
        return {"word": "duty"}


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/mesh/v1/requests", {"word": "requests", "limit": ROWS}),
        ("GET", "/mesh/v1/requests/", {"word": "requests", "limit": ROWS}),
        ("GET", "/mesh/v1/requests/r-1%2F2", {"word": "r-1/2"}),
        ("GET", "/mesh/v1/drain", {"word": "duty"}),
        ("POST", "/mesh/v1/drain", {"word": "drain"}),
        ("POST", "/mesh/v1/resume", {"word": "resume"}),
    ],
)
async def test_each_path_is_a_word_to_the_desk(
    method: str, path: str, said: dict[str, Any]
) -> None:
    """No body is needed."""
    answers = Answers(Scripted(), "", lambda: 0.0, work=Work())
    reply = await answers.answer(find(method, path), b"", Asker("x"))
    assert isinstance(reply, Reply)
    assert json.loads(reply.body) == said


def test_a_request_that_is_not_known_is_404_and_says_what_is() -> None:
    """A node knows what entered it."""
    with pytest.raises(ApiError, match="entered it") as caught:
        answer_work(Work(), Found(Route.REQUEST, "x"))
    assert (caught.value.status, caught.value.code) == (404, "request_not_found")


def test_a_server_without_a_desk_says_so() -> None:
    """Not a fault of the request."""
    with pytest.raises(ApiError) as caught:
        answer_work(None, Found(Route.DRAIN))
    assert caught.value.status == 501


def test_draining_is_the_owners_and_looking_is_not() -> None:
    """Refused to other machines: `meshd.api.origin.check_owner`."""
    assert {Route.DRAIN, Route.RESUME} == WORK & OWNERS
