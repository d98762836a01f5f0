"""A relay in a process of its own, to be killed: prints its port, begins answers, never ends them.

`python -m tests.net.relay.serving_process SECRET` with the node's secret key in hexadecimal.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

import zmq

from meshd.core.ports import Batch
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.relay import Relay
from meshd.net.trust import identity_of
from protocol.jobs import TextDelta


async def begin() -> AsyncGenerator[Batch, None]:
    """One word, and then nothing."""
    yield (TextDelta("a"),)
    await asyncio.Event().wait()


async def serve(secret: bytes, mesh: str) -> None:
    """Admit everybody, until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    relay = Relay(
        identity_of(secret),
        mesh,
        1,
        context=context,
        gatekeeper=Gatekeeper(context),
        bind_host="127.0.0.1",
        bind_port=0,
        admit=lambda _key: True,
        answer=lambda _sender, _job: begin(),
    )
    relay.bind()
    await relay.start()
    print(relay.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(bytes.fromhex(sys.argv[1]), sys.argv[2]))
