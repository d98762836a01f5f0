"""How the relay notices that the other side is gone: real processes, killed and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from meshd.core.membership.member import Member
from meshd.core.ports import Batch
from protocol.jobs import TextDelta

from .conftest import (
    MESH,
    World,
    events_of,
    failure_of,
    job,
    member_of,
    new_identity,
    text_of,
    until,
)


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process of this tree; gone afterwards."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[asyncio.subprocess.Process, Member]]:
    """A relay in another process, and how to ask it."""
    them = new_identity()
    secret = them.secret_key.hex()
    async with process("tests.net.relay.serving_process", secret, MESH) as child:
        assert child.stdout is not None
        port = int(await child.stdout.readline())
        yield child, member_of(them, port, "kitchen")


async def test_a_killed_peer_fails_its_requests_at_once(world: World) -> None:
    """After kill -9 the reader has its failure within 100 ms, behind what had arrived."""
    async with world.relay() as asker, serving() as (child, member):
        streams = [asker.generate(member, job(f"r-{index}")) for index in range(3)]
        begun = [await anext(stream) for stream in streams]
        assert begun == [[TextDelta("a")]] * 3
        child.kill()
        async with asyncio.timeout(0.1):
            ends = [await events_of(stream) for stream in streams]
        assert asker.stats.peers == 0
    failure = failure_of(ends[0])
    assert (failure.code, failure.elsewhere) == ("unreachable", True)
    assert "kitchen" in failure.message


async def test_a_stopped_peer_is_given_up(world: World) -> None:
    """A process that keeps its connection but is frozen fails its requests within 5 s."""
    async with world.relay() as asker, serving() as (child, member):
        stream = asker.generate(member, job())
        await anext(stream)
        os.kill(child.pid, signal.SIGSTOP)
        async with asyncio.timeout(5):
            failure = failure_of(await events_of(stream))
        os.kill(child.pid, signal.SIGCONT)
    assert failure.code == "unreachable"


async def test_a_killed_asker_frees_its_slot(world: World) -> None:
    """The engine's stream ends within 200 ms of the asker's kill -9, though nothing was to send."""
    begun, freed = asyncio.Event(), asyncio.Event()

    async def waiting() -> AsyncGenerator[Batch, None]:
        begun.set()
        try:
            await asyncio.Event().wait()
            yield (TextDelta("never"),)
        finally:
            freed.set()

    them = new_identity()
    world.admit_all = True
    async with world.relay(lambda *_: waiting(), identity=them) as server:
        arguments = (MESH, them.public_key.hex(), str(server.port))
        async with process("tests.net.relay.asking_process", *arguments) as child:
            await begun.wait()
            child.kill()
            async with asyncio.timeout(0.2):
                await freed.wait()
        assert server.stats.sessions == 0
        assert server.counters()["relay_expired"] == 1


async def test_a_port_where_nobody_listens_fails_at_once(world: World) -> None:
    """A refused connection is not waited for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with world.relay() as asker:
        member = member_of(new_identity(), port)
        async with asyncio.timeout(1):
            events = await events_of(asker.generate(member, job()))
        with pytest.raises(TimeoutError):
            await asker.ping(member, 5)
    assert failure_of(events).elsewhere


async def test_a_member_without_an_address_cannot_be_asked(world: World) -> None:
    """There is nowhere to send to, and the failure says so."""
    nowhere = replace(member_of(new_identity(), 1), address=None, endpoints=())
    async with world.relay() as asker:
        events = await events_of(asker.generate(nowhere, job()))
        with pytest.raises(TimeoutError, match="address"):
            await asker.ping(nowhere, 1)
    assert "address" in failure_of(events).message


async def test_forgetting_a_peer_fails_its_requests(world: World) -> None:
    """What the member table knows to be dead is not waited for."""
    async with world.relay() as asker, serving() as (_child, member):
        stream = asker.generate(member, job())
        await anext(stream)
        asker.forget(member.node_id)
        asker.forget(member.node_id)
        events = await events_of(stream)
        assert asker.stats.peers == 0
    assert failure_of(events).code == "unreachable"


async def test_a_peer_that_comes_back_is_asked_again(world: World) -> None:
    """A lost connection is not held against the peer: the next request makes a new one."""
    them = new_identity()

    async def hello() -> AsyncGenerator[Batch, None]:
        yield (TextDelta("a"),)
        await asyncio.Event().wait()

    async with world.relay() as asker:
        async with world.relay(lambda *_: hello(), identity=them) as server:
            port = server.port
            stream = asker.generate(member_of(them, port), job())
            await anext(stream)
        assert failure_of(await events_of(stream)).code == "unreachable"
        async with world.relay(lambda *_: hello(), identity=them, port=port) as server:
            stream = asker.generate(member_of(them, port), job("r-2"))
            assert text_of(list(await anext(stream))) == "a"
            await stream.aclose()
            await until(lambda: server.stats.answering == 0)
