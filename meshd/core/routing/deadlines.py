"""How long to wait before trying elsewhere, per phase, from size and measured speed.

One long time-out for everything makes a dead peer cost minutes; one short time-out makes a slow
prefill run again on every node. So the wait for the first token is a multiple of what the score
expected it to take, and each later gap has its own limit. When nobody else could take the job there
is nothing to gain from giving up early: then only the outer limit holds.
"""

from __future__ import annotations

from meshd.core.routing.cost import Cost
from meshd.core.routing.demand import Demand
from protocol.jobs import Job

PATIENCE_FACTOR = 4.0
"""Patience as a multiple of the expected time to the first token: estimates of prompt length and
rate are off by 1.5 and 1.3; twice their product is a fault, not an error of estimation."""

FIRST_EVENT_FLOOR_S = 5.0
"""Least patience: an idle laptop waking its disk, a first request after an hour."""

FIRST_EVENT_MAX_S = 600.0
"""Most patience, and all of it when nobody else could take the job: what the clients' own read
time-outs allow."""

INTER_TOKEN_MAX_S = 60.0
"""Longest silence inside a stream: sixty times the slowest useful machine's gap, and long enough
for someone else's long prompt to be prefilled in between."""


UNBOUNDED_TOKENS = 4_096
"""Length assumed for an answer that nobody bounded, when all of it must be waited for."""


def first_event_deadline_s(job: Job, demand: Demand, cost: Cost, *, alternatives: bool) -> float:
    """Seconds to wait for the first event of an attempt.

    A job that is not streamed may be answered by an engine that speaks only once, at the end, so
    the time to decode the longest answer allowed is added.
    """
    if not alternatives:
        return FIRST_EVENT_MAX_S
    expected_s = cost.first_token_s
    if not job.stream:
        longest = UNBOUNDED_TOKENS if job.max_tokens is None else job.max_tokens
        expected_s += cost.decode_s * max(1.0, longest / max(1, demand.output_tokens))
    return min(max(FIRST_EVENT_FLOOR_S, PATIENCE_FACTOR * expected_s), FIRST_EVENT_MAX_S)
