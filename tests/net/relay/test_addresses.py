"""At which of a member's addresses it is asked."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from protocol.jobs import TextDelta
from protocol.messages import Endpoint

from .conftest import DONE, World, events_of, failure_of, job, member_of, new_identity, stream_of

pytestmark = pytest.mark.asyncio


async def test_a_member_that_has_moved_is_asked_where_it_is_now(world: World) -> None:
    """The warm connection to its old address, whose cable may be out, is not tried first; one that
    is in use stays, and so does one whose member answers nowhere at the moment."""
    them = new_identity()
    async with (
        world.relay() as asker,
        world.relay(lambda *_: stream_of((TextDelta("a"), DONE)), identity=them) as old,
        world.relay(lambda *_: stream_of((TextDelta("b"), DONE)), identity=them) as new,
    ):
        before, after = member_of(them, old.port), member_of(them, new.port)
        running = asker.generate(before, job("r-1"))
        await anext(running)
        assert await events_of(asker.generate(after, job("r-2"))) == [TextDelta("a"), DONE]
        await events_of(running)
        nowhere = replace(after, address=None)
        assert await events_of(asker.generate(nowhere, job("r-3"))) == [TextDelta("a"), DONE]
        assert await events_of(asker.generate(after, job("r-4"))) == [TextDelta("b"), DONE]
        assert asker.stats.peers == 1


async def test_a_name_in_place_of_an_address_is_not_looked_up(world: World) -> None:
    """libzmq would do it in the thread that moves all frames, so that a name service that is
    silent made this node look dead to everybody; membership tells addresses alone."""
    them = new_identity()
    named = replace(member_of(them, 1), address=Endpoint("localhost", 1, 2))
    async with world.relay() as asker:
        failure = failure_of(await events_of(asker.generate(named, job())))
        assert failure.code == "unreachable"
        assert "'localhost' is no address" in failure.message
        assert asker.stats.peers == 0


async def test_who_cannot_be_reached_is_said_with_address_and_port(world: World) -> None:
    """libzmq does not tell a refusal from silence, so neither is claimed; where it was tried is
    what the owner of a firewall needs, above all when only the other direction is open."""
    async with world.relay() as asker:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            port = deaf.getsockname()[1]
            member = member_of(new_identity(), port)
            failure = failure_of(await events_of(asker.generate(member, job())))
        assert failure.code == "unreachable"
        assert f"no connection can be made to tcp://127.0.0.1:{port} " in failure.message
