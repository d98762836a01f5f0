"""A client that leaves while attempts are being closed leaves nothing behind."""

import asyncio

from protocol.jobs import TextDelta
from tests.core.routing.fleet import chat
from tests.gateway.household import STALL, Household
from tests.gateway.test_beginning import Eager


class Lingering(Household):
    """Its second node takes a moment to stop; `stopping` is set when it has begun to."""

    def __init__(self, *lingering, **household):
        super().__init__(**household)
        self.lingering = lingering
        self.stopping = asyncio.Event()

    async def generate(self, to, job, demand):
        """As the household does."""
        stream = super().generate(to, job, demand)
        try:
            async for batch in stream:
                yield batch
        finally:
            if to.name in self.lingering:
                self.stopping.set()
                await asyncio.sleep(0.05)
            await stream.aclose()


async def leave(house):
    """Ask, hang up once somebody is being stopped, and wait until all is quiet."""
    asking = asyncio.create_task(house.gateway.submit(chat(stream=True)))
    await asyncio.wait_for(house.stopping.wait(), 10.0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.1)


async def test_leaving_while_the_hedge_is_closed_ends_the_winner_too():
    """The first has spoken and nobody has it yet: its slot would be taken for ever."""
    house = Lingering("node2", hedges=Eager(), node1=[0.05, TextDelta("a"), STALL], node2=[STALL])
    await leave(house)
    assert house.asked == ["node1", "node2"]
    assert house.is_tidy


async def test_leaving_while_the_first_is_closed_ends_the_hedge_that_won():
    """The same the other way round."""
    house = Lingering("node1", hedges=Eager(), node1=[STALL], node2=[0.03, TextDelta("a"), STALL])
    await leave(house)
    assert house.asked == ["node1", "node2"]
    assert house.is_tidy


async def test_a_doubt_while_all_is_closed_asks_nobody():
    """Membership may suspect a node in the very moment in which its client leaves."""
    house = Lingering("node2", node1=[STALL], node2=[STALL], node3=[STALL])
    asking = asyncio.create_task(house.gateway.submit(chat(stream=True)))
    await house.until_asked("node1")
    (first,) = house.gateway._means.open[house.members[0].node_id]
    first.doubt(doubted=True)
    await house.until_asked("node2")
    asking.cancel()
    await asyncio.wait_for(house.stopping.wait(), 10.0)
    first.doubt(doubted=True)
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert house.asked == ["node1", "node2"]
    assert house.is_tidy
