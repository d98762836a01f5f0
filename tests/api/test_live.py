"""The dashboard's stream: what has changed, once, to every page, and never to too many."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from meshd.api import live
from meshd.api.errors import ApiError
from meshd.api.live import PAGES_MAX, Live


class Looked:
    """A body that counts how often it was made."""

    def __init__(self) -> None:
        self.value = 1
        self.times = 0

    def __call__(self) -> dict[str, int]:
        self.times += 1
        return {"value": self.value}


def anybody() -> bool:
    """Nobody is asked for a key."""
    return True


@pytest.fixture
def now() -> list[float]:
    """A clock that moves when told."""
    return [0.0]


async def test_first_comes_everything_then_what_has_changed(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent look is a comment, so a page knows that the node is there."""
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.0)
    status, requests = Looked(), Looked()
    watched = Live({"status": status, "requests": requests}, lambda: now[0])
    async with aclosing(watched.open(anybody)) as stream:
        first = await anext(stream)
        assert first.count(b"event: ") == 2
        now[0] += 1
        assert (await anext(stream)).startswith(b":")
        now[0] += 1
        status.value = 2
        assert await anext(stream) == b'event: status\ndata: {"value":2}\n\n'


async def test_one_look_serves_every_page(now: list[float]) -> None:
    """Ten open pages cost ten writes, not ten looks."""
    status = Looked()
    watched = Live({"status": status}, lambda: now[0])
    pages = [watched.open(anybody) for _ in range(10)]
    assert len({await anext(page) for page in pages}) == 1
    assert status.times == 1
    await asyncio.gather(*(page.aclose() for page in pages))


async def test_one_page_too_many_is_refused_and_a_closed_one_makes_room(now: list[float]) -> None:
    """429, with words; nobody's page is cut off for it."""
    watched = Live({"status": Looked()}, lambda: now[0])
    pages = [watched.open(anybody) for _ in range(PAGES_MAX)]
    for page in pages:
        await anext(page)
    with pytest.raises(ApiError) as refused:
        watched.open(anybody)
    assert refused.value.status == 429
    await pages[0].aclose()
    another = watched.open(anybody)
    assert await anext(another)
    await asyncio.gather(*(page.aclose() for page in (*pages, another)))


async def test_a_stream_ends_with_the_key_that_opened_it(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lost the key sees nothing more, however long the page stays open."""
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.0)
    keys = {"kim"}
    watched = Live({"status": Looked()}, lambda: now[0])
    async with aclosing(watched.open(lambda: "kim" in keys)) as stream:
        assert await anext(stream)
        keys.clear()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
