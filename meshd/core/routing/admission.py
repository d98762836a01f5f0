"""Who may wait, and how long it will take: the bounds of a queue, in jobs and in seconds.

A queue that takes everything answers nobody in time. So a job is refused at once when its own wait,
in the order in which it would really be served, is longer than people wait; and two different
things are said. 429: you have your share of this queue and others wait too; more of yours would
only push back your own. 503: there is no capacity here, whoever asks.

The expected wait is made by playing the queue through: each job takes the slot that is free first,
for as long as its tokens take at the speeds that were measured here. What runs is expected to end
as was estimated when it began; what has run longer than that is expected to run on for a while.

Somebody with little in a full queue is not turned away for somebody with much: then the newest job
of whoever has most waiting gives its place up (`Verdict.instead`).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from meshd.core.routing.courtesy import QUEUE_WAIT_S
from meshd.core.routing.fairness import FairQueue, Ticket
from protocol.frozen import frozen
from protocol.jobs import Failure

QUEUE_MAX = 256
"""Jobs that wait for one model. At 50 KiB of prompt each 13 MiB; more would wait for an hour."""

BATCH_WAIT_FACTOR = 15.0
"""How much longer than an interactive job a batch job may expect to wait, because its sender said
that there is time: half an hour for two minutes."""

FREE_PLACES = 4
"""Jobs of one person that may wait however slow the machine is: an editor or a chat page asks for
several things at once, and a Raspberry Pi takes a minute for each."""

SHORT_S = 0.5
"""A wait that is over before anybody would be told of it."""

RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
"""Bounds of what a refused client is told to wait."""

OVERDUE_RATIO = 0.25
"""What is left of a job that has run longer than expected, as a share of what was expected, or of
how long it has run where that is more: lengths of answers have a long tail, so what has lasted long
will last. Simulated, a quarter of that is better on most traffic than none, and than a half."""


@frozen
class Pace:
    """The measured speed of one model here; 0 where it has not been measured."""

    prompt_tps: float = 0.0
    generation_tps: float = 0.0
    load_s: float = 0.0

    @property
    def is_known(self) -> bool:
        """Both rates have been measured."""
        return self.prompt_tps > 0 and self.generation_tps > 0

    def seconds(self, ticket: Ticket) -> float:
        """How long a slot will be busy with a job."""
        return self.spent_s(ticket.prompt_tokens, ticket.output_tokens)

    def spent_s(self, prompt_tokens: int, output_tokens: int) -> float:
        """How long a slot will be busy with so many tokens."""
        prompt_s = prompt_tokens / self.prompt_tps if self.prompt_tps > 0 else 0.0
        output_s = output_tokens / self.generation_tps if self.generation_tps > 0 else 0.0
        return prompt_s + output_s


@frozen
class Outlook:
    """When each waiting job should start, and when one more would, in seconds from now."""

    order: tuple[Ticket, ...]
    waits_s: tuple[float, ...]
    backlog_s: float

    def of(self, ticket: Ticket) -> tuple[int, float]:
        """Place in the queue, counted from 1, and wait."""
        place = self.order.index(ticket)
        return place + 1, self.waits_s[place]


@frozen
class Verdict:
    """None of the two: the job may wait."""

    refusal: Failure | None = None
    instead: Ticket | None = None
    """Who has to go so that the job may wait."""


WELCOME = Verdict()


def outlook(queue: FairQueue, pace: Pace, now: float) -> Outlook:
    """The queue played through."""
    return played(queue.order(now), tuple(queue.running.values()), queue.slots, pace, now)


def played(
    order: Sequence[Ticket], running: Sequence[Ticket], slots: int, pace: Pace, now: float
) -> Outlook:
    """Who starts when: each in turn takes the slot that is free first."""
    free = [_left_s(ticket, pace, now) for ticket in running]
    free += [pace.load_s] * max(0, slots - len(free))
    heapq.heapify(free)
    for _ in range(len(free) - max(1, slots)):  # more run than may start now: those ends are lost
        heapq.heappop(free)
    waits = []
    for ticket in order:
        waits.append(free[0])
        heapq.heapreplace(free, free[0] + pace.seconds(ticket))
    return Outlook(tuple(order), tuple(waits), free[0])


def is_short(queue: FairQueue, pace: Pace, *, wait_max_s: float = QUEUE_WAIT_S) -> bool:
    """Whether nobody in this queue can be refused, whatever the order: all that waits or runs would
    be done in time even by one slot, and in number it is within everybody's share. On a fast
    machine this is nearly always so, and it costs a division instead of playing the queue."""
    if len(queue) > QUEUE_MAX // max(1, queue.people) or not pace.is_known:
        return False
    return pace.load_s + pace.spent_s(queue.prompt_tokens, queue.output_tokens) < min(
        wait_max_s, SHORT_S
    )


def judge(
    queue: FairQueue, ticket: Ticket, seen: Outlook, *, wait_max_s: float = QUEUE_WAIT_S
) -> Verdict:
    """Whether `ticket`, which is in the queue already, may stay there and wait."""
    place, wait_s = seen.of(ticket)
    mine = queue.waiting_of(ticket.person)
    others = queue.people > 1
    share = max(FREE_PLACES, QUEUE_MAX // queue.people)
    if others and mine > share:
        return Verdict(over_share(mine, wait_s))
    longest_s = wait_max_s * (BATCH_WAIT_FACTOR if ticket.batch else 1.0)
    if wait_s > longest_s and mine > FREE_PLACES:
        return Verdict(over_share(mine, wait_s) if others else no_capacity(place, wait_s))
    if len(queue) > QUEUE_MAX:
        last = queue.last_of_longest()
        if last.person == ticket.person:
            return Verdict(over_share(mine, wait_s) if others else no_capacity(place, wait_s))
        return Verdict(instead=last)
    return WELCOME


def over_share(mine: int, wait_s: float) -> Failure:
    """429: this person's own jobs are what is in the way."""
    return Failure(
        "rate_limited",
        f"{mine} requests of yours wait here already, and others wait too; let some of yours "
        f"finish first, and ask again in {_retry_s(wait_s):.0f} s",
        elsewhere=True,
        retry_after_s=_retry_s(wait_s),
    )


def no_capacity(place: int, wait_s: float) -> Failure:
    """503: nobody's fault, and nobody's turn soon."""
    return Failure(
        "overloaded",
        f"this request would be number {place} in the queue and wait about {wait_s:.0f} s, which "
        f"is longer than this node lets anybody wait; ask again in {_retry_s(wait_s):.0f} s",
        elsewhere=True,
        retry_after_s=_retry_s(wait_s),
    )


def _left_s(ticket: Ticket, pace: Pace, now: float) -> float:
    expected_s = pace.seconds(ticket)
    assert ticket.started is not None
    elapsed_s = now - ticket.started
    left_s = pace.load_s + expected_s - elapsed_s
    return max(left_s, OVERDUE_RATIO * max(expected_s, elapsed_s))


def _retry_s(wait_s: float) -> float:
    """Half of the wait: by then the queue has moved, or somebody in it has given up."""
    return min(RETRY_MAX_S, max(RETRY_MIN_S, round(wait_s / 2, 1)))
