"""The last hour of one node in a few numbers every ten seconds: what its charts are drawn from.

A sample is made from what is kept anyway: the stories of the requests that ended since the sample
before (`meshd.history`), and the node's own load record. So a request costs nothing here, and the
whole hour is SAMPLES_MAX rows of a dozen floats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from meshd.history import Story
from protocol.jobs import Finish
from protocol.load import LoadRecord

EVERY_S = 10.0
"""Pause between samples: finer than the eye can tell on an hour's chart."""

SAMPLES_MAX = 360
"""One hour."""

PRESSURE = {"normal": 0.0, "warn": 0.5, "critical": 1.0}

COLUMNS = (
    "ttft_p50_s", "ttft_p95_s", "tokens_per_s", "requests", "failed",
    "in_flight", "queued", "memory_ratio", "pressure",
)  # fmt: skip


class Trends:
    """The samples of one node. Times are monotonic seconds, given by the caller."""

    def __init__(self) -> None:
        self._rows: deque[tuple[float, tuple[float | None, ...]]] = deque(maxlen=SAMPLES_MAX)
        self._last = float("-inf")

    def sample(
        self, stories: Iterable[Story], load: LoadRecord, memory_total_bytes: int, now: float
    ) -> None:
        """Add a row. `stories` are ended requests, newest first; those of earlier rows are left."""
        ended = []
        for story in stories:
            if story.ended_at is None or story.ended_at <= self._last:
                break
            ended.append(story)
        span_s = min(now - self._last, EVERY_S * 2)
        self._last = now
        first = sorted(s.first_at - s.opened_at for s in ended if s.first_at is not None)
        finishes = [story.last for story in ended if isinstance(story.last, Finish)]
        tokens = sum(finish.completion_tokens for finish in finishes)
        row = (
            _quantile(first, 0.5),
            _quantile(first, 0.95),
            round(tokens / span_s, 2),
            float(len(ended)),
            float(sum(story.state == "failed" for story in ended)),
            float(load.in_flight),
            float(load.queued),
            _used(load.memory_available_bytes, memory_total_bytes),
            PRESSURE.get(load.pressure, 0.5),
        )
        self._rows.append((now, row))

    def body(self, now: float) -> dict[str, Any]:
        """The body of `/mesh/v1/trends`: one list a column, oldest first; null where nothing was
        asked."""
        columns = {
            name: [row[index] for _, row in self._rows] for index, name in enumerate(COLUMNS)
        }
        ages = [round(now - at, 1) for at, _ in self._rows]
        return {"every_s": EVERY_S, "age_s": ages, **columns}


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which `share` of them lie (nearest rank)."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)


def _used(available_bytes: int, total_bytes: int) -> float | None:
    if total_bytes <= 0:
        return None
    return round(max(0.0, 1.0 - available_bytes / total_bytes), 4)
