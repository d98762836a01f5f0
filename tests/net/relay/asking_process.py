"""A relay in a process of its own that asks, to be killed: opens one request and reads for ever.

`python -m tests.net.relay.asking_process MESH PUBLIC_KEY PORT`, all as text.
"""

from __future__ import annotations

import asyncio
import secrets
import sys

import zmq

from meshd.net.gatekeeper import Gatekeeper
from meshd.net.relay import Relay
from meshd.net.trust import Identity, identity_of, node_id_of
from tests.net.relay.conftest import events_of, job, member_of, stream_of


async def ask(mesh: str, public_key: bytes, port: int) -> None:
    """One request to the relay at `port`."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    relay = Relay(
        identity_of(secrets.token_bytes(32)),
        mesh,
        1,
        context=context,
        gatekeeper=Gatekeeper(context),
        bind_host="127.0.0.1",
        bind_port=0,
        admit=lambda _key: True,
        answer=lambda _sender, _job: stream_of(),
    )
    relay.bind()
    await relay.start()
    server = Identity(node_id_of(public_key), public_key, b"")
    await events_of(relay.generate(member_of(server, port), job()))


if __name__ == "__main__":
    asyncio.run(ask(sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3])))
