"""Two relays in one process, on loopback, over real encrypted sockets."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest
import uvloop
import zmq

from meshd.core.membership.member import Member
from meshd.core.ports import Batch, EventStream
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.relay import Relay
from meshd.net.trust import Identity, identity_of
from protocol.jobs import Event, Failure, Finish, Job, TextDelta
from protocol.load import ModelLoad
from protocol.messages import Endpoint

MESH = "0123456789abcdef"
DONE = Finish("stop", 3, 2)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of the relay runs on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A ZeroMQ context of the test's own."""
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def gatekeeper(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Gatekeeper]:
    """The context's ZAP handler."""
    made = Gatekeeper(context)
    yield made
    made.close()


class World:
    """Makes relays that admit each other."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], gatekeeper: Gatekeeper) -> None:
        self.context = context
        self.gatekeeper = gatekeeper
        self.admitted: set[bytes] = set()
        self.admit_all = False

    @asynccontextmanager
    async def relay(
        self,
        answer: Callable[[str, Job], EventStream] | None = None,
        *,
        identity: Identity | None = None,
        mesh: str = MESH,
        member: bool = True,
        port: int = 0,
        loads: Mapping[str, ModelLoad] | None = None,
    ) -> AsyncIterator[Relay]:
        """A running relay; `member` says whether the others admit it."""
        identity = identity or new_identity()
        if member:
            self.admitted.add(identity.public_key)
        relay = Relay(
            identity,
            mesh,
            secrets.randbits(63),
            context=self.context,
            gatekeeper=self.gatekeeper,
            bind_host="127.0.0.1",
            bind_port=port,
            admit=lambda key: self.admit_all or key in self.admitted,
            answer=answer or (lambda _sender, _job: stream_of((DONE,))),
            load_of=(loads or {}).get,
        )
        relay.bind()
        await relay.start()
        try:
            yield relay
        finally:
            await relay.close()


@pytest.fixture
def world(context: zmq.Context[zmq.Socket[bytes]], gatekeeper: Gatekeeper) -> World:
    """Where relays meet."""
    return World(context, gatekeeper)


def new_identity() -> Identity:
    """A node nobody has met."""
    return identity_of(secrets.token_bytes(32))


def member_of(identity: Identity, port: int, name: str = "peer") -> Member:
    """The row that a member table would hold of a node listening on loopback."""
    endpoint = Endpoint("127.0.0.1", 1, port)
    return Member(
        node_id=identity.node_id,
        name=name,
        public_key=identity.public_key.hex(),
        state="alive",
        incarnation=1,
        boot_id=1,
        endpoints=(endpoint,),
        address=endpoint,
        capacity=None,
        load=None,
        load_at=0.0,
        heard_at=0.0,
        changed_at=0.0,
        reason="",
        rtt_s=None,
    )


def job(request_id: str = "r-1", text: str = "hello", hops: int = 0) -> Job:
    """A chat of one turn."""
    turn = {"role": "user", "content": text}
    return Job(request_id, "chat", "m", messages=(turn,), stream=True, hops=hops)


async def stream_of(*batches: Batch) -> AsyncGenerator[Batch, None]:
    """An answer that has all its batches ready."""
    for batch in batches:
        yield batch


async def events_of(stream: EventStream) -> list[Event]:
    """Every event of an answer."""
    return [event async for batch in stream for event in batch]


def text_of(events: list[Event]) -> str:
    """The text of an answer."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def failure_of(events: list[Event]) -> Failure:
    """The failure an answer ended with."""
    last = events[-1]
    assert isinstance(last, Failure), events
    return last


async def until(condition: Callable[[], bool]) -> None:
    """Returns once `condition` holds; the test's own limit ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 - what it waits for has no event to await
        await asyncio.sleep(0.005)
