"""Loading and pinning over HTTP, in front of a desk that keeps what it was told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshd.api.answers import Answers
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.housing import ACTIONS, answer_housing
from meshd.api.paths import HOUSING, OWNERS, Route, find
from meshd.core.ports import RequestFailed
from protocol.jobs import Failure
from tests.api.scripted import Scripted


class ModelDesk:
    """Does what it is told, or refuses."""

    def __init__(self, refusal: Failure | None = None) -> None:
        self.refusal = refusal
        self.told: list[tuple[str, str, bool]] = []

    async def change(self, action: str, model: str, *, force: bool) -> dict[str, Any]:
        self.told.append((action, model, force))
        if self.refusal is not None:
            raise RequestFailed(self.refusal)
        return {"model": model, "warm": True}


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("word", ["load", "unload", "pin", "unpin"])
async def test_each_word_reaches_the_desk(word: str) -> None:
    """The path is the word; the answer is the desk's own."""
    desk = ModelDesk()
    route = find("POST", f"/mesh/v1/models/{word}").route
    assert await answer_housing(desk, route, body(model="m")) == {"model": "m", "warm": True}
    assert desk.told == [(word, "m", False)]


async def test_force_is_for_loading() -> None:
    """Explicit, and nowhere else."""
    desk = ModelDesk()
    await answer_housing(desk, Route.LOAD_MODEL, body(model="m", force=True))
    assert desk.told == [("load", "m", True)]
    with pytest.raises(ApiError, match="'force' is not a field"):
        await answer_housing(desk, Route.PIN_MODEL, body(model="m", force=True))


async def test_a_model_has_to_be_named() -> None:
    """The message says where to look."""
    with pytest.raises(ApiError, match="meshctl models"):
        await answer_housing(ModelDesk(), Route.LOAD_MODEL, b"{}")


async def test_a_node_without_models_of_its_own_says_so() -> None:
    """Not a fault of the request."""
    with pytest.raises(ApiError) as caught:
        await answer_housing(None, Route.LOAD_MODEL, body(model="m"))
    assert caught.value.status == 501


@pytest.mark.parametrize(
    ("code", "status"), [("insufficient_memory", 507), ("overloaded", 503), ("bad_request", 400)]
)
async def test_a_refusal_is_its_status_and_its_sum(code: str, status: int) -> None:
    """What cannot fit is not what has to wait."""
    desk = ModelDesk(Failure(code, "m needs 9 GB", elsewhere=False))
    answers = Answers(Scripted(), "", lambda: 0.0, models=desk)
    found = find("POST", "/mesh/v1/models/load")
    with pytest.raises(ApiError, match="m needs 9 GB") as caught:
        await answers.answer(found, body(model="m"), Asker("r"))
    assert caught.value.status == status


def test_memory_is_the_owners() -> None:
    """Every one of these routes is refused to other machines."""
    assert set(ACTIONS) == HOUSING
    assert HOUSING <= OWNERS
