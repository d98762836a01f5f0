"""Real servers of other people, from `.peers`: run for a test, on a free port of loopback.

`benchmarks/METHODOLOGY.md` says how to install them. Where they are not, the tests that need them
skip and say so.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

BIN = Path(__file__).parents[2] / ".peers" / "bin"

START_S = 60.0
"""For a foreign server's imports, or its model: a few seconds on a quiet machine."""


def needs_peer(name: str) -> pytest.MarkDecorator:
    """A test that needs the package `name` of `.peers`."""
    found = list(BIN.parent.glob(f"lib/python3*/site-packages/{name}"))
    return pytest.mark.skipif(not found, reason=f"{name} is not installed in .peers")


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(command: Sequence[str], url: str) -> AsyncIterator[None]:
    """A server that answers 200 at `url` once it is ready; ended at the end."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while not await _answers(session, url):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.1)
        yield
    finally:
        process.kill()
        await process.wait()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
