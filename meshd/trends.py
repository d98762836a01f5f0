"""The last hour of one node in a few numbers every ten seconds: what its charts are drawn from.

A sample is made from what is kept anyway: the stories of the requests that ended since the sample
before (`meshd.history`), and the node's own load record. So a request costs nothing here, and the
whole hour is SAMPLES_MAX rows of a dozen floats.

How many words an answer had is known at its end. They were said all along, so they are shared out
among the rows of that time: counted where it ended, the answer of a Pi that wrote for five minutes
would look like one of a machine thirty times as fast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from meshd.history import Story
from protocol.jobs import Finish
from protocol.load import LoadRecord

EVERY_S = 10.0
"""Pause between samples: finer than the eye can tell on an hour's chart."""

SAMPLES_MAX = 360
"""One hour."""

SPAN_MAX_S = EVERY_S * 2
"""Longest time a row may tell of: what was slept through is no part of it."""

PRESSURE = {"normal": 0.0, "warn": 0.5, "critical": 1.0}

TOKENS = "tokens_per_s"

COLUMNS = (
    "ttft_p50_s", "ttft_p95_s", TOKENS, "requests", "failed",
    "in_flight", "queued", "memory_ratio", "pressure",
)  # fmt: skip


class _Row:
    """One sample: when, of how many seconds, its columns, and the tokens of that time."""

    __slots__ = ("at", "columns", "span_s", "tokens")

    def __init__(self, at: float, span_s: float, columns: Mapping[str, float | None]) -> None:
        self.at = at
        self.span_s = span_s
        self.columns = columns
        self.tokens = 0.0

    def shared_s(self, began: float, ended: float) -> float:
        """How much of its time lies between the two."""
        return max(0.0, min(self.at, ended) - max(self.at - self.span_s, began))

    def cell(self, name: str) -> float | None:
        if name == TOKENS:
            return round(self.tokens / self.span_s, 2)
        return self.columns[name]


class Trends:
    """The samples of one node. Times are monotonic seconds, given by the caller."""

    def __init__(self) -> None:
        self._rows: deque[_Row] = deque(maxlen=SAMPLES_MAX)
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
        span_s = min(now - self._last, SPAN_MAX_S)
        self._last = now
        first = sorted(s.first_at - s.opened_at for s in ended if s.first_at is not None)
        columns = {
            "ttft_p50_s": _quantile(first, 0.5),
            "ttft_p95_s": _quantile(first, 0.95),
            "requests": float(len(ended)),
            "failed": float(sum(story.state == "failed" for story in ended)),
            "in_flight": float(load.in_flight),
            "queued": float(load.queued),
            "memory_ratio": _used(load.memory_available_bytes, memory_total_bytes),
            "pressure": PRESSURE.get(load.pressure, 0.5),
        }
        self._rows.append(_Row(now, span_s, columns))
        for story in ended:
            self._share_out(story)

    def _share_out(self, story: Story) -> None:
        """The tokens of an answer, to the rows of the time in which it was given."""
        if not isinstance(story.last, Finish) or story.ended_at is None:
            return
        began = story.opened_at if story.first_at is None else story.first_at
        rows = takewhile(lambda row: row.at > began, reversed(self._rows))
        shares = [(row, row.shared_s(began, story.ended_at)) for row in rows]
        whole_s = sum(share_s for _, share_s in shares)
        if not whole_s:
            self._rows[-1].tokens += story.last.completion_tokens
            return
        for row, share_s in shares:
            row.tokens += story.last.completion_tokens * share_s / whole_s

    def body(self, now: float) -> dict[str, Any]:
        """The body of `/mesh/v1/trends`: one list a column, oldest first; null where nothing was
        asked."""
        columns = {name: [row.cell(name) for row in self._rows] for name in COLUMNS}
        ages = [round(now - row.at, 1) for row in self._rows]
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
