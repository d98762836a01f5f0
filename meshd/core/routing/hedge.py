"""When does a second attempt pay? A hedge against the one machine that is slow just now.

Of a hundred first bytes, a few come late for reasons that no record shows: a disk that wakes, a
page that was swapped, a cable. Asking a second machine once the first is later than 95 of 100 of
its kind cuts that tail, and costs a few per cent more work, no more: the budget is a token bucket
that each request fills by BUDGET_RATIO and each hedge empties by one, so hedging can never add to
an overload.

First bytes are compared within a class: the model, and the prompt's size by powers of two, because
a long prompt is late by nature. Long prompts are not hedged at all, as reading one twice is dear.
Nor is anything before SAMPLES_MIN first bytes of its class were seen: then nobody knows what late
means.

The gateway asks `delay_s` when it dispatches, and `spent` when the delay has passed without a first
byte; it starts the second attempt only if `spent` says yes, keeps whichever speaks first, and
cancels the other. Every first byte of a first attempt goes to `observed`, hedged or not.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from meshd.core.routing.demand import Demand

BUDGET_RATIO = 0.05
"""Hedges per request, at most: what a fleet at 80 % load carries without being felt."""

BUDGET_MAX = 5.0
"""Hedges that can be saved up: a hundred quiet requests do not buy a storm."""

PROMPT_MAX_TOKENS = 2_000
"""Longer prompts are not hedged: half a second of prefill on a good GPU, minutes on a Pi."""

PERCENTILE = 0.95
SAMPLES = 128
"""First bytes remembered per class: six of them are beyond the 95th percentile."""

SAMPLES_MIN = 20
"""With fewer there is no 95th percentile to speak of."""

RECOUNT_EVERY = 8
"""First bytes between two looks at the percentile: one in eight moves it by less than its error,
and sorting at each costs more than the rest of this module."""

CLASSES_MAX = 512
"""Classes kept: 40 models, a dozen sizes. The one used least recently gives way."""

DELAY_MIN_S = 0.02
"""Never sooner than this: below it, timers and a busy loop look like a late answer."""


class HedgePolicy:
    """Decides when a request gets a second attempt. One per router."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, int], deque[float]] = OrderedDict()
        self._late: dict[tuple[str, int], float] = {}
        self._budget = 0.0
        self._observed: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def budget(self) -> float:
        """Hedges that may be started now; whole ones count."""
        return self._budget

    def delay_s(self, demand: Demand, now: float) -> float | None:
        """Seconds without a first byte after which a second attempt may start; None for never.

        Called once per request, when its first attempt starts: each call earns budget.
        """
        del now  # first bytes do not age: a quiet night changes no percentile
        if self._budget < BUDGET_MAX:
            self._budget = min(BUDGET_MAX, self._budget + BUDGET_RATIO)
        if demand.prompt_tokens > PROMPT_MAX_TOKENS or self._budget < 1.0:
            return None
        return self._late.get(_class_of(demand))

    def spent(self) -> bool:
        """Take one hedge from the budget; False when there is none left: then do not hedge."""
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        return True

    def observed(self, demand: Demand, first_byte_s: float) -> None:
        """The first attempt's first byte came after `first_byte_s`. For one that a hedge overtook,
        the time until it was cancelled: late is late."""
        key = _class_of(demand)
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) >= CLASSES_MAX:
                oldest, _ = self._seen.popitem(last=False)
                self._late.pop(oldest, None)
                del self._observed[oldest]
            seen = self._seen[key] = deque(maxlen=SAMPLES)
            self._observed[key] = 0
        self._seen.move_to_end(key)
        seen.append(first_byte_s)
        self._observed[key] += 1
        if len(seen) >= SAMPLES_MIN and (
            key not in self._late or self._observed[key] % RECOUNT_EVERY == 0
        ):
            late_s = sorted(seen)[int(PERCENTILE * (len(seen) - 1) + 0.5)]
            self._late[key] = max(DELAY_MIN_S, late_s)


def _class_of(demand: Demand) -> tuple[str, int]:
    return demand.model, demand.prompt_tokens.bit_length()
