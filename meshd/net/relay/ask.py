"""One request as the asker sees it."""

from __future__ import annotations

import asyncio

from meshd.net.relay import flow
from protocol.jobs import Failure


class Ask:
    """What has come in, and who waits for more."""

    __slots__ = ("_waiter", "intake", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.intake = flow.Intake()
        self._waiter: asyncio.Future[None] | None = None

    async def ready(self) -> None:
        """Returns when something can be taken."""
        if not self.intake:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def wake(self) -> None:
        """Something can be taken."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, failure: Failure) -> None:
        """End the answer after what is already here."""
        self.intake.fail(failure)
        self.wake()
