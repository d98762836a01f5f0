"""Prompts that are read at the same time share the machine.

A machine that reads 4,000 tokens a second reads 500 a second of each of eight prompts. What one
prompt took therefore says how crowded it was, and not how fast the machine is. So the two are kept
apart: the rate at which a model reads when it reads one prompt (`Reading.tps`), and what it is
reading now (`Reading.left`). Whoever chooses a machine puts them together (`cost`).

The model is processor sharing: of everything that is being read each gets an equal part. Our own
scheduler plans its passes that way; of servers that read one prompt after the other it holds for
the sum of them. A prompt's own time is then its time divided, moment by moment, by the number of
prompts beside it.

How much of a prompt is left is an estimate: its length was estimated, and nobody tells how far a
reading is. It ends when the first word comes. An answer that comes in one piece has no first word;
its prompt counts as read when the estimate says so, and teaches the rate only if it was alone.

One clock serves all prompts: it runs at the share that each of them has, so a prompt's own time is
what this clock shows at its end less what it showed at its beginning.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from meshd.core.stats import PROMPT_SAMPLE_MIN_TOKENS, Rate
from protocol.jobs import Finish

LEFT_MIN_RATIO = 0.05
"""What is at least left of a prompt that is still being read: the estimate was too low."""

STALE_MAX = 64
"""Estimated ends that are kept although their prompts ended sooner, beside one for each prompt."""


@dataclass(slots=True)
class _Prompt:
    tokens: int
    speaks: bool
    """Its first word will be seen."""
    began: float
    clock_s: float
    """What the clock of shares showed then."""
    is_read: bool = False
    """By estimate; it takes no part any more."""


class Reading:
    """What one model is reading. Times are monotonic seconds; numbers name the prompts, each once.

    A prompt costs the same few steps however many are read beside it."""

    def __init__(self, now: float) -> None:
        self._prompts: dict[int, _Prompt] = {}
        self._shares: dict[int, float] = {}
        """Of prompts that were read and whose answers have not ended: own time over time."""
        self._ends: list[tuple[float, int]] = []
        """When those without a first word are read by estimate, on the clock of shares: a heap."""
        self._sharing = 0
        self._clock_s = 0.0
        self._at = now
        self._alone: int | None = None
        """The prompt that nobody has been read beside."""
        self._rate = Rate()
        self.told_tps = 0.0
        """What is believed until something was measured here; 0 for nothing."""

    @property
    def tps(self) -> float:
        """Tokens per second of one prompt alone; 0 while nobody knows."""
        return self._rate.value or self.told_tps

    def begin(self, number: int, tokens: int, now: float, *, speaks: bool = True) -> None:
        """A prompt of about so many tokens goes to the model."""
        self._advance(now)
        self._alone = None if self._sharing else number
        self._prompts[number] = _Prompt(tokens, speaks, now, self._clock_s)
        self._sharing += 1
        if not speaks and self.tps > 0:
            heapq.heappush(self._ends, (self._clock_s + tokens / self.tps, number))
            if len(self._ends) > len(self._prompts) + STALE_MAX:
                self._ends = [each for each in self._ends if each[1] in self._prompts]
                heapq.heapify(self._ends)

    def read(self, number: int, now: float) -> None:
        """Its first word is there. Idempotent."""
        if number not in self._prompts:
            return
        self._advance(now)
        prompt = self._prompts.pop(number)
        self._sharing -= not prompt.is_read
        took_s = now - prompt.began
        if self._alone == number or took_s <= 0:
            self._shares[number] = 1.0
        elif prompt.speaks:
            self._shares[number] = (self._clock_s - prompt.clock_s) / took_s

    def end(self, number: int, finish: Finish | None, now: float) -> None:
        """Its answer is over; `finish` says what it was, where it became whole. Idempotent."""
        self.read(number, now)
        share = self._shares.pop(number, None)
        if share is None or finish is None:
            return
        tokens = finish.prompt_tokens - finish.cached_tokens
        if tokens >= PROMPT_SAMPLE_MIN_TOKENS:
            self._rate.observe(tokens, finish.prompt_s * share)

    def left(self, now: float) -> tuple[int, int]:
        """How many prompts are being read, and about how many tokens of them are left."""
        self._advance(now)
        lefts = [self._left(prompt) for prompt in self._prompts.values() if not prompt.is_read]
        return len(lefts), round(sum(lefts))

    def _left(self, prompt: _Prompt) -> float:
        own_s = self._clock_s - prompt.clock_s
        return max(LEFT_MIN_RATIO * prompt.tokens, prompt.tokens - self.tps * own_s)

    def _advance(self, now: float) -> None:
        """Let the clock run on; where an estimated end comes first, up to there and then on."""
        if now <= self._at:
            return
        passed_s, self._at = now - self._at, now
        while passed_s > 0 and self._sharing:
            until_s = self._clock_s + passed_s / self._sharing
            if not self._ends or self._ends[0][0] > until_s:
                self._clock_s = until_s
                return
            end_s, number = heapq.heappop(self._ends)
            if number in self._prompts:
                passed_s -= max(0.0, end_s - self._clock_s) * self._sharing
                self._clock_s = max(end_s, self._clock_s)
                self._prompts[number].is_read = True
                self._sharing -= 1
