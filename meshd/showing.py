"""What a node shows of itself: the bodies behind the dashboard, its charts and the metrics page."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from meshd.core.membership.member import MeshView
from meshd.history import History
from meshd.metrics import CONTENT_TYPE, Metrics
from meshd.trends import EVERY_S, Trends

Body = Mapping[str, Any]


class Showing:
    """The `Views` of one node. Its history must tell `metrics.ended` of each request."""

    def __init__(
        self,
        metrics: Metrics,
        history: History,
        view: Callable[[], MeshView],
        *,
        status: Callable[[], Body],
        requests: Callable[[int], Body],
        counters: Callable[[], Mapping[str, int]],
    ) -> None:
        self._metrics = metrics
        self._history = history
        self._view = view
        self._counters = counters
        self._trends = Trends()
        self.status = status
        self.requests = requests

    def trends(self) -> Body:
        """See `meshd.api.board.Views.trends`."""
        return self._trends.body(time.monotonic())

    def metrics(self) -> tuple[str, bytes]:
        """See `meshd.api.board.Views.metrics`."""
        view = self._view()
        myself = view.myself
        assert myself.load is not None
        assert myself.capacity is not None
        states = Counter(member.state for member in view.members.values())
        total = myself.capacity.memory_total_bytes
        page = self._metrics.page(states, myself.load, total, self._counters())
        return CONTENT_TYPE, page

    async def keep_trends(self) -> None:
        """Take a sample now and then, until cancelled."""
        while True:
            myself = self._view().myself
            if myself.load is not None and myself.capacity is not None:
                self._trends.sample(
                    self._history.ended_stories(),
                    myself.load,
                    myself.capacity.memory_total_bytes,
                    time.monotonic(),
                )
            await asyncio.sleep(EVERY_S)
