"""What the endpoint's tests share: a scripted gateway, and a server in front of it."""

import pytest

from tests.api.scripted import Scripted, serving


@pytest.fixture
def gateway():
    """Answers "Hello" until a test scripts it otherwise."""
    return Scripted()


@pytest.fixture
async def server(gateway):
    """A server on loopback in front of `gateway`."""
    async with serving(gateway, name="attic") as server:
        yield server
