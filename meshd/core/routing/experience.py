"""What this router saw itself of each (node, model), beside what the node says.

A node measures its own rates and tells them; it cannot measure the path to it, it may be wrong, and
a machine that has just become slow says so late. So every attempt that ran to its end is compared
here: the work it was, and the time it took from here, without the wait for a slot. Work and time
are kept as fading sums, not as a ratio, and are compared with the node's figures of the moment:
when the node corrects its figures, the correction made here goes back to one by itself, and a slow
machine is not punished twice.

What is seen seldom is believed less: with `n` attempts in memory (they fade by attempt and by
time) the correction goes n / (n + DOUBT) of the way. A machine that was left alone for a few
minutes stands there with its own figures again.

Beside that, the company: how many streams a stream usually has beside it there, from the node's
records while it is busy. A rate measured in company is a rate for that company.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from protocol.frozen import frozen
from protocol.jobs import Finish

KEEP = 0.5
"""Share of the past that each attempt leaves: three attempts and the past is an eighth."""

HALF_LIFE_S = 60.0
"""Time after which an observation counts half: a node gets a new chance within a few minutes."""

TOLERANCE = 2.0
"""Ratios up to this, either way, are the company of the moment and not the machine; beyond it, only
what exceeds it counts."""

DOUBT = 0.3
"""Attempts' worth of trust in the node's own figures."""

CORRECTION_MIN = 0.25
CORRECTION_MAX = 16.0
"""Bounds of a correction: beyond them something else is wrong (a clock, a cached answer)."""

COMPANY_KEEP = 0.8
"""Share of the past company that each record leaves; like the node's own meter of speed."""

SAMPLE_MIN_S = 0.02
"""Shorter attempts measure the gateway and the network, not the machine."""

ENTRIES_MAX = 4_096
"""(node, model) pairs kept: 64 models on 64 nodes. The one touched least recently gives way."""


@frozen
class Completion:
    """An attempt that ran to its end, as seen from here."""

    first_byte_s: float
    """From dispatch to the first event."""
    total_s: float
    """From dispatch to the last."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    queue_s: float
    """The node's own word on how long the job waited for a slot."""

    @staticmethod
    def of(finish: Finish, first_byte_s: float, total_s: float) -> Completion:
        """From the event that ended the answer, and the two times (s) taken here."""
        return Completion(
            first_byte_s,
            total_s,
            finish.prompt_tokens,
            finish.cached_tokens,
            finish.completion_tokens,
            finish.queue_s,
        )


@frozen
class Experience:
    """What is known of one (node, model) now."""

    attempts: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    """Answers' tokens, each weighed by how crowded the batch was."""
    seconds: float = 0.0
    beside: float = 0.0

    def correction(self, prompt_tps: float, generation_tps: float) -> float:
        """Observed time over the time that these rates would give."""
        if self.attempts <= 0:
            return 1.0
        said_s = self.prompt_tokens / prompt_tps + self.output_tokens / generation_tps
        ratio = self.seconds / said_s if said_s > 0 else 1.0
        ratio = max(1.0, ratio / TOLERANCE) if ratio > 1.0 else min(1.0, ratio * TOLERANCE)
        trust = self.attempts / (self.attempts + DOUBT)
        return min(max(1.0 + trust * (ratio - 1.0), CORRECTION_MIN), CORRECTION_MAX)


NO_EXPERIENCE = Experience()


@dataclass(slots=True)
class _Entry:
    attempts: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    seconds: float = 0.0
    at: float = 0.0
    beside: float = 0.0

    def fade(self, share: float) -> None:
        self.attempts *= share
        self.prompt_tokens *= share
        self.output_tokens *= share
        self.seconds *= share


class Experiences:
    """The experiences of one router."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def finished(
        self, node_id: str, model_id: str, seen: Completion, batch: float, now: float
    ) -> bool:
        """An attempt ran to its end there; whether it taught anything. `batch` is the crowding its
        score assumed."""
        seconds = seen.total_s
        if seen.queue_s > 0.0:
            seconds -= min(seen.queue_s, seen.first_byte_s)
        read, cached = seen.prompt_tokens, seen.cached_tokens
        prefilled = read - cached if read > cached else 0
        if seconds < SAMPLE_MIN_S or prefilled + seen.output_tokens <= 0:
            return False
        entry = self._entry(node_id, model_id)
        entry.fade(KEEP * _left(now - entry.at))
        entry.attempts += 1.0
        entry.prompt_tokens += prefilled
        entry.output_tokens += seen.output_tokens * batch
        entry.seconds += seconds
        entry.at = now
        return True

    def met(self, node_id: str, model_id: str, running: int) -> None:
        """A new record says that so many streams are running there."""
        if running <= 0:
            return
        entry = self._entry(node_id, model_id)
        entry.beside = COMPANY_KEEP * entry.beside + (1.0 - COMPANY_KEEP) * (running - 1)

    def of(self, node_id: str, model_id: str, now: float) -> Experience:
        """What is known of a (node, model); older observations count less."""
        entry = self._entries.get((node_id, model_id))
        if entry is None:
            return NO_EXPERIENCE
        left = _left(now - entry.at)
        return Experience(
            entry.attempts * left,
            entry.prompt_tokens * left,
            entry.output_tokens * left,
            entry.seconds * left,
            entry.beside,
        )

    def _entry(self, node_id: str, model_id: str) -> _Entry:
        key = (node_id, model_id)
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= ENTRIES_MAX:
                self._entries.popitem(last=False)
            entry = self._entries[key] = _Entry()
        self._entries.move_to_end(key)
        return entry


def _left(seconds: float) -> float:
    return float(0.5 ** (max(0.0, seconds) / HALF_LIFE_S))
