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
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.core.stats import PROMPT_SAMPLE_MIN_TOKENS, Rate
from protocol.jobs import Finish

LEFT_MIN_RATIO = 0.05
"""What is at least left of a prompt that is still being read: the estimate was too low."""


@dataclass(slots=True)
class _Prompt:
    tokens: int
    left: float
    speaks: bool
    """Its first word will be seen."""
    began: float
    own_s: float = 0.0
    was_alone: bool = True


class Reading:
    """What one model is reading. Times are monotonic seconds; numbers name the prompts."""

    def __init__(self, now: float) -> None:
        self._prompts: dict[int, _Prompt] = {}
        self._shares: dict[int, float] = {}
        """Of prompts that were read and whose answers have not ended: own time over time."""
        self._at = now
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
        self._prompts[number] = _Prompt(tokens, float(tokens), speaks, now)

    def read(self, number: int, now: float) -> None:
        """Its first word is there. Idempotent."""
        if number not in self._prompts:
            return
        self._advance(now)
        prompt = self._prompts.pop(number)
        took_s = now - prompt.began
        if prompt.speaks:
            self._shares[number] = prompt.own_s / took_s if took_s > 0 else 1.0
        elif prompt.was_alone:
            self._shares[number] = 1.0

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
        lefts = [prompt.left for prompt in self._prompts.values() if prompt.left]
        return len(lefts), round(sum(lefts))

    def _advance(self, now: float) -> None:
        passed_s, self._at = now - self._at, now
        sharing = sum(prompt.left > 0 for prompt in self._prompts.values())
        if passed_s <= 0 or not sharing:
            return
        own_s = passed_s / sharing
        tokens = self.tps * own_s
        for prompt in self._prompts.values():
            prompt.own_s += own_s
            prompt.was_alone = prompt.was_alone and sharing == 1
            least = LEFT_MIN_RATIO * prompt.tokens if prompt.speaks else 0.0
            prompt.left = max(least, prompt.left - tokens)
