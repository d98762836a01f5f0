"""Models on a machine with a graphics card: what lies where, and who leaves it for whom."""

from __future__ import annotations

import asyncio

from meshd.core.residency.offload import CARD_RESERVE_BYTES, HOST_BYTES
from protocol.jobs import Finish
from tests.engine.test_residency import GB, Desk, ask, desk, ending, housed, until, warm

__all__ = ["desk", "housed"]


async def test_a_model_goes_to_the_card(desk: Desk, housed) -> None:
    """What is promised of the machine's memory is the driver's side alone."""
    desk.card_bytes = 8 * GB + CARD_RESERVE_BYTES
    async with housed(desk.lodger("a", 6)) as engine:
        assert isinstance(await ending(engine, ask("a")), Finish)
        assert (desk.on_card, desk.taken) == ({"a": 6 * GB}, {"a": 0})
        assert engine.reserved_bytes == HOST_BYTES


async def test_the_next_model_takes_an_idle_ones_place_on_the_card(desk: Desk, housed) -> None:
    """Half on the card and half off it would be the slower half of both."""
    desk.card_bytes = 8 * GB + CARD_RESERVE_BYTES
    async with housed(desk.lodger("a", 6), desk.lodger("b", 6)) as engine:
        for name in "ab":
            assert isinstance(await ending(engine, ask(name)), Finish)
        assert warm(engine) == {"b"}
        assert desk.on_card == {"b": 6 * GB}


async def test_beside_a_busy_one_it_is_divided(desk: Desk, housed) -> None:
    """Three of ten layers find room; the rest is promised of the machine's memory."""
    desk.card_bytes = 8 * GB + CARD_RESERVE_BYTES
    async with housed(desk.lodger("a", 6, tps=50), desk.lodger("b", 6)) as engine:
        running = asyncio.create_task(ending(engine, ask("a", tokens=40)))
        await until(lambda: "a" in warm(engine))
        assert isinstance(await ending(engine, ask("b")), Finish)
        assert not running.done()
        assert desk.on_card == {"a": 6 * GB, "b": round(1.8 * GB)}
        assert engine.reserved_bytes == round(4.2 * GB) + 2 * HOST_BYTES
        await running


async def test_a_model_larger_than_the_machine_runs_on_both(desk: Desk, housed) -> None:
    """12 GB, of 10 GB of memory and a card of 8."""
    desk.card_bytes = 8 * GB + CARD_RESERVE_BYTES
    async with housed(desk.lodger("huge", 12)) as engine:
        assert isinstance(await ending(engine, ask("huge")), Finish)
        assert desk.on_card == {"huge": round(7.2 * GB)}
