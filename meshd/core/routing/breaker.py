"""Who failed lately, as seen from here: per (node, model), because one broken model says nothing
of the others, and per observer, because a path that is cut from here may be fine from elsewhere.

Closed: requests pass. A failure opens it for OPEN_FIRST_S, doubled by each further failure up to
OPEN_MAX_S; after that one request may try (half-open): its dispatch closes the door again behind it
for as long, its first word opens it, and its whole answer closes the breaker. First words alone
forgive nothing: a machine that dies in the middle of each of its answers gives many.

Membership is not consulted and not told: a request that fails stops routing there at once, long
before anybody agrees that the node is dead; and a node that is merely full is not at fault.

Each failure also raises an error ratio, which the score turns into a cost. It fades with successes
and with time, the slower the more failures there were in a row: a node that failed once is back
within seconds, a node that has failed all day draws one request every few minutes.

The same table serves for the path to a whole node, under the model id EVERY_MODEL.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

OPEN_FIRST_S = 1.0
"""Pause after the first failure: long enough for a worker to be restarted."""

OPEN_MAX_S = 30.0
"""Longest pause: a machine that was repaired is tried again within half a minute."""

BREAKERS_MAX = 4_096
"""Entries kept: 64 models on 64 nodes. The one touched least recently gives way."""

ERROR_MEMORY = 0.5
"""Share of the error ratio that each new outcome leaves: about the last three count."""

FADE_FIRST_S = 4.0
"""Half-life of the error ratio after one failure."""

FADE_GROWTH = 6.0
"""Factor on it for each further failure in a row, up to FADE_MAX_S."""

FADE_MAX_S = 300.0
"""Longest half-life: a node that only ever fails is tried once in ten minutes or so per router."""

EVERY_MODEL = ""
"""Stands for the path to a node, whichever model is asked for."""


@dataclass(slots=True)
class _Entry:
    failures: int = 0
    open_until: float = float("-inf")
    error_ratio: float = 0.0
    at: float = 0.0

    @property
    def pause_s(self) -> float:
        return float(min(OPEN_FIRST_S * 2.0 ** min(self.failures - 1, 16), OPEN_MAX_S))

    def fade(self, now: float) -> None:
        half_life_s = min(
            FADE_FIRST_S * FADE_GROWTH ** min(max(0, self.failures - 1), 8), FADE_MAX_S
        )
        self.error_ratio *= 0.5 ** (max(0.0, now - self.at) / half_life_s)
        self.at = now


class Breakers:
    """The breakers of one router."""

    def __init__(self) -> None:
        self.entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        """By node id and model id; empty, as mostly, where nothing has failed."""

    def failed(self, node_id: str, model_id: str, now: float) -> None:
        """A request failed there through the node's fault."""
        entry = self._entry(node_id, model_id)
        entry.fade(now)
        entry.failures += 1
        blended = ERROR_MEMORY * entry.error_ratio + (1.0 - ERROR_MEMORY)
        entry.error_ratio = max(blended, 1.0 - ERROR_MEMORY**entry.failures)
        entry.open_until = now + entry.pause_s

    def tried(self, node_id: str, model_id: str, now: float) -> None:
        """A request is sent there. In a half-open breaker it is the one trial: the next waits for
        its outcome, or for another pause."""
        entry = self.entries.get((node_id, model_id))
        if entry is not None and entry.failures and entry.open_until <= now:
            entry.open_until = now + entry.pause_s

    def spoke(self, node_id: str, model_id: str) -> None:
        """An answer has begun there: others may try."""
        entry = self.entries.get((node_id, model_id))
        if entry is not None:
            entry.open_until = float("-inf")

    def succeeded(self, node_id: str, model_id: str) -> None:
        """A request was answered there, whole."""
        entry = self.entries.get((node_id, model_id))
        if entry is None:
            return
        entry.failures = 0
        entry.open_until = float("-inf")
        entry.error_ratio *= ERROR_MEMORY
        if entry.error_ratio < 0.01:
            del self.entries[node_id, model_id]

    def restarted(self, node_id: str) -> None:
        """The node runs anew: its breakers close. What its requests cost lately still counts, and
        fades, so a machine that starts over and over attracts nothing."""
        for (known, _), entry in self.entries.items():
            if known == node_id:
                entry.failures = 0
                entry.open_until = float("-inf")

    def open_for_s(self, node_id: str, model_id: str, now: float) -> float:
        """Seconds until a request may be tried there; 0 when the breaker is closed or half-open."""
        entry = self.entries.get((node_id, model_id))
        return max(0.0, entry.open_until - now) if entry else 0.0

    def error_ratio(self, node_id: str, model_id: str, now: float) -> float:
        """Share of recent requests that failed there, in [0, 1], faded by time."""
        entry = self.entries.get((node_id, model_id))
        if entry is None:
            return 0.0
        entry.fade(now)
        return entry.error_ratio

    def _entry(self, node_id: str, model_id: str) -> _Entry:
        key = (node_id, model_id)
        entry = self.entries.get(key)
        if entry is None:
            if len(self.entries) >= BREAKERS_MAX:
                self.entries.popitem(last=False)
            entry = self.entries[key] = _Entry()
        self.entries.move_to_end(key)
        return entry
