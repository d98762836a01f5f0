"""How fast a model runs here, learnt from the jobs it finishes.

A rate is total work over total time, both fading: each new sample multiplies what is remembered by
`KEEP` before it is added. Averaging sums rather than ratios lets a long job weigh more than a short
one, which matters because short jobs measure overhead, not speed; samples too short to say anything
are left out altogether.

`backlog_s` turns the same measurements into the wait that a new job would meet. It is deliberately
coarse: the node knows its own queue, but not how long an answer will be until it ends.

Left out on purpose: a rate per batch size. The figure is what one stream got from the traffic that
there was, and it moves within a few jobs when the traffic changes.
"""

from __future__ import annotations

from dataclasses import replace

from protocol.jobs import Finish

KEEP = 0.8
"""Share of the past kept at each sample: the last five jobs hold two thirds of the weight."""

PROMPT_SAMPLE_MIN_TOKENS = 16
"""Prompts with fewer new tokens than this measure the scheduler, not the prefill."""

GENERATION_SAMPLE_MIN_TOKENS = 4
"""Shorter answers hold too few gaps between tokens to time."""


RATE_MAX = 1e9
"""What a load record can tell. One that told more could not be sent at all."""

GAP_MIN_S = 20e-6
"""Between two tokens of one stream: fifty thousand a second. What comes faster was not made then
but handed over, a tool call in one piece for example, and says nothing of either phase."""


LOAD_GUESS_BYTES_S = 500e6
"""Loading speed told until measured: a SATA disk. Wrong by a factor of ten at worst."""

LOAD_GUESS_S = 10.0
"""Told of a model of unknown size: an 8B model of four bits from such a disk."""


def load_guess_s(size_bytes: int) -> float:
    """Seconds that loading so many bytes of weights (0: not known) probably takes."""
    return size_bytes / LOAD_GUESS_BYTES_S or LOAD_GUESS_S


class Rate:
    """Work per second, recent samples first. 0 until something was measured."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._seconds = 0.0

    @property
    def value(self) -> float:
        """Amount per second."""
        return min(self._amount / self._seconds, RATE_MAX) if self._seconds > 0 else 0.0

    def observe(self, amount: float, seconds: float) -> None:
        """`amount` was done in `seconds`; a sample without a duration says nothing."""
        if seconds <= 0:
            return
        self._amount = self._amount * KEEP + amount
        self._seconds = self._seconds * KEEP + seconds


class SpeedMeter:
    """The running speed of one model on this machine."""

    def __init__(self) -> None:
        self._prompt = Rate()
        self._generation = Rate()
        self._jobs = Rate()

    @property
    def prompt_tps(self) -> float:
        """Prefill, tokens per second; 0 until measured."""
        return self._prompt.value

    @property
    def generation_tps(self) -> float:
        """Decode of one stream, tokens per second; 0 until measured."""
        return self._generation.value

    def calibrate(self, prompt_tps: float, generation_tps: float) -> None:
        """What a trial run after the load measured: a first guess that real jobs soon outweigh."""
        self._prompt.observe(prompt_tps, 1.0)
        self._generation.observe(generation_tps, 1.0)

    def observe(self, finish: Finish) -> None:
        """Learn from a finished job. Tokens that came from a cache are not counted as work."""
        prefilled = finish.prompt_tokens - finish.cached_tokens
        gaps = finish.completion_tokens - 1
        if gaps >= GENERATION_SAMPLE_MIN_TOKENS and 0 < finish.generation_s < gaps * GAP_MIN_S:
            self._jobs.observe(1.0, finish.prompt_s + finish.generation_s)
            return
        if prefilled >= PROMPT_SAMPLE_MIN_TOKENS:
            self._prompt.observe(prefilled, finish.prompt_s)
        if gaps >= GENERATION_SAMPLE_MIN_TOKENS:
            self._generation.observe(gaps, finish.generation_s)
        self._jobs.observe(1.0, finish.prompt_s + finish.generation_s)

    def after_load(self, finish: Finish) -> Finish:
        """The account of an answer for which an adopted server may have loaded its model, which it
        does not time. What the work takes at the speeds measured so far stays, and the rest was
        waiting; learnt as speed, one load would outweigh all that is read in an hour."""
        prefilled = finish.prompt_tokens - finish.cached_tokens
        prompt_s = _at_most(finish.prompt_s, prefilled, self.prompt_tps)
        generation_s = finish.generation_s
        if not finish.prompt_s:  # it came in one piece, with the load in it
            generation_s = _at_most(generation_s, finish.completion_tokens, self.generation_tps)
        worked_s = prompt_s + generation_s
        waited_s = max(0.0, finish.prompt_s + finish.generation_s - worked_s)
        return replace(
            finish,
            prompt_s=prompt_s,
            generation_s=generation_s,
            queue_s=finish.queue_s + waited_s,
        )

    def backlog_s(self, in_flight: int, queued: int, slots: int) -> float:
        """Seconds until a job that arrives now would start: 0 while a slot is free.

        The queue ahead, and the running jobs counted as half done, drain through all slots.
        """
        if in_flight < slots or self._jobs.value == 0:
            return 0.0
        return (queued + in_flight / 2) / (max(slots, 1) * self._jobs.value)


def _at_most(seconds: float, amount: float, rate: float) -> float:
    """What `amount` takes at `rate`; 0 where the rate is not known."""
    return min(seconds, max(0.0, amount) / rate) if rate > 0 else 0.0
