"""How long to wait before trying elsewhere, per phase, from size and measured speed.

One long time-out for everything makes a dead peer cost minutes; one short time-out makes a slow
prefill run again on every node. So each phase of an attempt has its own:

- *first event*: a multiple of what the score expected it to take, a larger one where the machine's
  speed was only assumed, and as much again of the prompt as everybody's who may come to be read
  beside it.
- *inter-token*: a stream that falls silent. Tokens come one gap after another, so a dozen missing
  gaps mean a stall, unless the machine has somebody else's prompt to read in between. Whether it
  has is in its record, and how long that can take follows from its measured prefill rate and from
  how much its engine reads in one go: ours read a fragment between two tokens, an adopted server
  may read a whole context.
- *both*, where tools are offered: a call of one leaves when it is whole, because half of it is of
  no use, and a file that a program has written takes minutes. So there the longest answer allowed
  must have its time as well; a machine that is gone shows by other signs.

When nobody else could take the job there is nothing to gain from giving up early: then only the
outer limits hold.

Left out: a limit on connecting, because the gateway asks a silent peer for a sign of life long
before any such limit would pass; and one on the whole, because an answer that comes is no fault.
"""

from __future__ import annotations

from meshd.core.routing.catalogue import Offer
from meshd.core.routing.cost import BATCH_SLOWDOWN_RATIO, Cost
from meshd.core.routing.decision import Candidate
from meshd.core.routing.demand import Demand
from meshd.core.routing.gates import is_ours
from meshd.core.routing.hardware import is_measured
from protocol.jobs import Job

PATIENCE_FACTOR = 4.0
"""Patience as a multiple of the expected time: estimates of prompt length and rate are off by 1.5
and 1.3; twice their product is a fault, not an error of estimation."""

UNMEASURED_FACTOR = 10.0
"""As much more where the rates are those hoped for of its kind of machine: a server on a PC with a
graphics card may run beside the card."""

FIRST_EVENT_FLOOR_S = 5.0
"""Least patience: an idle laptop waking its disk, a first request after an hour."""

FIRST_EVENT_MAX_S = 600.0
"""Most patience, and all of it when nobody else could take the job: what the clients' own read
time-outs allow."""

INTER_TOKEN_FLOOR_S = 2.0
"""Shortest silence that counts as a stall: twice the period of heartbeats, so that the record which
says who else is there is newer than the silence; a laptop's hiccup is shorter."""

INTER_TOKEN_GAPS = 12.0
"""Missing gaps between tokens that count as a stall; the slowest useful machine (4 tokens/s) is
given three seconds."""

INTER_TOKEN_MAX_S = 60.0
"""Longest silence inside a stream without tools, whatever the reason, and all of it without
alternatives."""

CALL_MAX_S = FIRST_EVENT_MAX_S
"""The same where tools are offered: as if it had not begun."""

FRAGMENT_TOKENS = 2_048
"""What an engine of ours reads at most of somebody's prompt before it goes on with everybody."""

CONTEXT_UNKNOWN_TOKENS = 8_192
"""Longest prompt that an adopted server is given time for when it does not tell its context."""

UNBOUNDED_TOKENS = 4_096
"""Length assumed for an answer that nobody bounded, when all of it must be waited for."""


def first_event_deadline_s(job: Job, chosen: Candidate, *, alternatives: bool) -> float:
    """Seconds to wait for the first event of an attempt at the chosen node.

    A job that is not streamed may be answered by an engine that speaks only once, at the end, and
    a call of a tool is spoken at once in any case, so the time to decode the longest answer allowed
    is added. What a picture or an hour of speech
    takes is not in any record, so a raw job gets all the time there is.
    """
    if not alternatives or job.kind == "raw":
        return FIRST_EVENT_MAX_S
    cost, load = chosen.cost, chosen.offer.load
    expected_s = cost.first_token_s
    if not job.stream or _may_call(job):
        expected_s += _longest_answer_s(job, chosen.demand, cost)
    factor = PATIENCE_FACTOR if is_measured(chosen.offer) else PATIENCE_FACTOR * UNMEASURED_FACTOR
    crowd_s = (load.slots - 1) * cost.prefill_s if load is not None else 0.0
    return min(max(FIRST_EVENT_FLOOR_S, factor * expected_s + crowd_s), FIRST_EVENT_MAX_S)


def silence_max_s(job: Job) -> float:
    """Longest silence inside a stream, whatever the reason."""
    return CALL_MAX_S if _may_call(job) else INTER_TOKEN_MAX_S


def inter_token_deadline_s(job: Job, offer: Offer, *, alternatives: bool) -> float:
    """Seconds of silence inside a stream from `offer` after which it counts as stalled."""
    load, most_s = offer.load, silence_max_s(job)
    if not alternatives or load is None or load.generation_tps <= 0:
        return most_s
    beside = max(0, load.in_flight - 1)
    gap_s = (1.0 + BATCH_SLOWDOWN_RATIO * beside) / load.generation_tps
    limit_s = max(INTER_TOKEN_FLOOR_S, INTER_TOKEN_GAPS * gap_s)
    if _others_at(offer):
        limit_s += _uninterrupted_prefill_s(offer)
    if _may_call(job):
        limit_s += gap_s * _longest_tokens(job)
    return min(limit_s, most_s)


def _may_call(job: Job) -> bool:
    return bool(job.tools) and job.tool_choice != "none"


def _longest_tokens(job: Job) -> int:
    return UNBOUNDED_TOKENS if job.max_tokens is None else job.max_tokens


def _longest_answer_s(job: Job, demand: Demand, cost: Cost) -> float:
    return cost.generation_s * max(1.0, _longest_tokens(job) / max(1, demand.output_tokens))


def _others_at(offer: Offer) -> bool:
    """Whether the machine has, or may have, somebody else's prompt to read."""
    record = offer.member.load
    return record is None or record.in_flight + record.queued > 1


def _uninterrupted_prefill_s(offer: Offer) -> float:
    """The longest time that this machine may spend on a prompt before anybody gets a token."""
    assert offer.load is not None
    if offer.load.prompt_tps <= 0:
        return INTER_TOKEN_MAX_S
    tokens = offer.model.context_length or CONTEXT_UNKNOWN_TOKENS
    if is_ours(offer.model):
        tokens = min(tokens, FRAGMENT_TOKENS)
    return tokens / offer.load.prompt_tps
