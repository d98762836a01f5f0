"""When would this node be done? The expected completion time, term by term.

The score of a node is a time, so every influence has the same unit and the sum means something:

    rtt + max(0, backlog - age) + own + crowd + load + prefill + reading + decode + batch + pressure
        + correction + owner + penalty + queue

- `backlog` is the node's own estimate of its queue, drained by the record's age: a record of 2 s
  ago that spoke of 3 s of work speaks of 1 s now. Without the drain, old news repels for ever.
- `own` is what this router has sent there since that record was made. Without it, every request
  between two heartbeats goes to the same node. Jobs that find a free slot delay nobody; the others
  wait for as many endings as there are jobs ahead. `crowd` charges those beyond OWN_MAX_ROUNDS
  rounds of the slots once more: on data that old, others have been sending too.
- `prefill` counts the tokens that the node has not cached, `decode` the answer, at measured rates.
- `reading`: prompts that are read together share the machine (`core.routing.reading`), so beside
  the own prompt as much of each of the others is read, as long as they last. `prefill` is at the
  rate of one prompt alone.
- `batch`: streams decoded together slow each other. A measured rate already holds the company that
  a stream usually has there, so only the difference from the usual counts, either way.
- `pressure`: a machine that is short of memory, or runs other models beside this one, is slower.
- `correction` is what this router saw itself: attempts there took so much longer, or shorter, than
  the node's own figures said (`experience`).
- `queue` is what the others pay: whoever waits makes those behind wait, whoever reads makes those
  who read beside it wait as long as they make it wait, and a prompt that is read anew at a busy
  machine takes that time from all who come there. A router that minds only its own request fills
  the fast machines' queues where a slower machine is free, and reads a conversation again wherever
  a slot is.
- `owner`: on battery, hot or in use, a machine costs its owner more than time; it is asked when the
  others are that much busier. `penalty` prices errors, so that failing fast never attracts.

A record is priced once (`price_of`), when it arrives; a demand is then a few multiplications, and
`board` sifts a thousand prices before a few are scored. Simulated on an unequal fleet with one
heartbeat a second this stays within a few per cent of an oracle, where least-in-flight is off by
a factor of five (benchmarks/METHODOLOGY.md).
"""

from __future__ import annotations

from typing import NamedTuple

from meshd.core.routing.demand import Demand
from meshd.core.routing.experience import NO_EXPERIENCE, Experience
from meshd.core.routing.hardware import ANY_MACHINE, RATE_MIN_TPS, Rates
from meshd.core.routing.ledger import Outstanding
from protocol.frozen import frozen
from protocol.load import LoadRecord, ModelLoad

LOAD_UNMEASURED_S = 10.0
"""Assumed cold start before the first measurement: 5 GB from a disk at 500 MB/s."""

BATCH_SLOWDOWN_RATIO = 0.25
"""How much one more stream in the batch slows every stream. Between a GPU (about 0.05) and a CPU
(about 0.8, measured on two cores)."""

PRESSURE_WARN_RATIO = 0.5
"""A machine short of memory decodes slower and may have to evict: its own work counts half more."""

BUSY_BESIDE_RATIO = 0.5
"""The same for each other model that the machine is running: two that never pause get half of it
each, and half of the time the other one is about to end."""

ON_BATTERY_RATIO = 1.0
HOT_RATIO = 0.5
OWNER_ACTIVE_RATIO = 1.0
"""What a machine's owner pays beside time, as a share of the work: a battery empties, a fan howls
and clocks fall, a person waits. All three together make a machine look 3.5 times slower."""

ERROR_PENALTY_S = 10.0
ERROR_FACTOR = 10.0
"""Cost of a node whose every recent request failed: so many seconds, and so many times the work
itself, because a detour is always worth that. Scaled by its error ratio."""

QUEUE_RATIO = 2.0
"""What those behind pay for each second in a queue: simulated, 1 to 4 are better than 0 on every
kind of traffic tried; 2 costs the tail of none."""

OWN_MAX_ROUNDS = 2
"""Own dispatches on one record that are taken at face value: twice the node's slots."""


class Cost(NamedTuple):
    """The terms of one node's expected completion time, in seconds. They add up to the score."""

    rtt_s: float
    backlog_s: float
    own_dispatch_s: float
    load_s: float
    prefill_s: float
    decode_s: float
    penalty_s: float
    crowd_s: float = 0.0
    batch_s: float = 0.0
    pressure_s: float = 0.0
    correction_s: float = 0.0
    owner_s: float = 0.0
    queue_s: float = 0.0
    reading_s: float = 0.0

    @property
    def work_s(self) -> float:
        """Prefill and decode as they will really be, in this company and at this machine."""
        return self._planned_s + self.pressure_s + self.correction_s

    @property
    def generation_s(self) -> float:
        """The part of the work after the first token."""
        planned_s = self._planned_s
        return self.work_s * (self.decode_s + self.batch_s) / planned_s if planned_s else 0.0

    @property
    def first_token_s(self) -> float:
        """Expected time to the first token."""
        waiting_s = self.rtt_s + self.backlog_s + self.own_dispatch_s + self.load_s
        return waiting_s + self.work_s - self.generation_s

    @property
    def service_s(self) -> float:
        """Time the node itself will be busy with this job."""
        return self.load_s + self.work_s

    @property
    def expected_s(self) -> float:
        """Expected time to the end of the answer: what the asker waits, and nobody else pays."""
        return self.first_token_s + self.generation_s

    @property
    def total_s(self) -> float:
        """The score: expected completion time, and what others pay and repels."""
        return sum(self)

    @property
    def _planned_s(self) -> float:
        return self.prefill_s + self.reading_s + self.decode_s + self.batch_s


@frozen
class Price:
    """What a record says of a node, as coefficients."""

    at: float
    """When the record was received (monotonic s)."""
    rtt_s: float
    backlog_s: float
    load_s: float
    prompt_s: float
    """Seconds per prompt token, at the node's own figures."""
    output_s: float
    """Seconds per token of an answer, in the usual company."""
    slots: int
    ahead: int
    """Jobs running or waiting there."""
    usual_beside: float
    """Streams that one of them usually had beside it."""
    slow: float
    """Factor on work: memory pressure, and other models at work."""
    correction: float
    """Factor on work: what was seen from here."""
    owner: float
    """Factor on work beyond time: what it costs the owner."""
    error_ratio: float
    reading: int
    """Prompts being read there."""
    unread_s: float
    """How long reading the rest of them takes."""

    def batch(self, own_jobs: int) -> float:
        """How much slower than usual a stream is decoded beside what is there now."""
        beside = min(self.ahead + own_jobs, self.slots - 1)
        return (1.0 + BATCH_SLOWDOWN_RATIO * beside) / (
            1.0 + BATCH_SLOWDOWN_RATIO * self.usual_beside
        )

    @property
    def scale(self) -> float:
        """Seconds of score per second of work at the node's own figures."""
        return self.slow * self.correction * (1.0 + self.owner)


def price_of(
    load: LoadRecord,
    model: ModelLoad | None,
    *,
    at: float,
    rtt_s: float,
    experience: Experience = NO_EXPERIENCE,
    assumed: Rates = ANY_MACHINE,
    busy_beside: int = 0,
) -> Price:
    """The price of a node whose records `load` and `model` were received at `at` (monotonic s);
    `assumed` stands in for rates that it has not measured; `busy_beside` other models run there."""
    prompt_tps = _rate(model.prompt_tps if model else 0.0, assumed.prompt_tps)
    generation_tps = _rate(model.generation_tps if model else 0.0, assumed.generation_tps)
    return Price(
        at=at,
        rtt_s=rtt_s,
        backlog_s=model.backlog_s if model else 0.0,
        load_s=cold_start_s(model),
        prompt_s=1.0 / prompt_tps,
        output_s=1.0 / generation_tps,
        slots=max(1, model.slots if model else 1),
        ahead=model.in_flight + model.queued if model else 0,
        usual_beside=experience.beside,
        slow=1.0
        + (PRESSURE_WARN_RATIO if load.pressure != "normal" else 0.0)
        + BUSY_BESIDE_RATIO * busy_beside,
        correction=experience.correction(prompt_tps, generation_tps),
        owner=ON_BATTERY_RATIO * load.on_battery
        + HOT_RATIO * load.hot
        + OWNER_ACTIVE_RATIO * load.owner_active,
        error_ratio=load.error_ratio,
        reading=model.reading if model else 0,
        unread_s=model.unread_tokens / prompt_tps if model else 0.0,
    )


def expected_completion(
    demand: Demand,
    price: Price,
    outstanding: Outstanding,
    now: float,
    *,
    error_ratio: float = 0.0,
    cached_ratio: float = 0.0,
) -> Cost:
    """The cost of `demand` at a node of this price.

    `outstanding` is what this router has sent there since the record, `error_ratio` in [0, 1] its
    own recent experience with the node, `cached_ratio` in [0, 1] the share of the prompt that the
    node need not read again.

    This runs for every candidate of every request, so it asks first whether there is anything to
    bound: before Python 3.13, one call of `min` or `max` takes as long as ten of these lines.
    """
    jobs, ahead, slots = outstanding.jobs, price.ahead, price.slots
    prefill_s = price.prompt_s * demand.prompt_tokens * (1.0 - cached_ratio)
    decode_s = price.output_s * demand.output_tokens
    batch_s = decode_s * (price.batch(jobs) - 1.0)
    age_s = now - price.at if now > price.at else 0.0
    reading_s = 0.0
    if price.unread_s > age_s:
        reading_s = min(price.unread_s - age_s, price.reading * prefill_s)
    if jobs:
        reading_s += min(outstanding.prefill_s, jobs * prefill_s)
    planned_s = prefill_s + reading_s + decode_s + batch_s
    pressed_s = planned_s * price.slow
    work_s = pressed_s * price.correction
    own_s = crowd_s = 0.0
    if jobs:
        each_s = outstanding.service_s / jobs / slots
        own_s = each_s * (_waits(ahead + jobs, slots) - _waits(ahead, slots))
        if jobs > OWN_MAX_ROUNDS * slots:
            crowd_s = each_s * (jobs - OWN_MAX_ROUNDS * slots)
    backlog_s = price.backlog_s - age_s if price.backlog_s > age_s else 0.0
    busy = (ahead + jobs) / slots if ahead + jobs < slots else 1.0
    return Cost(  # in the order of its fields: naming them nearly doubles what this takes
        price.rtt_s,
        backlog_s,
        own_s,
        price.load_s,
        prefill_s,
        decode_s,
        max(price.error_ratio, error_ratio) * (ERROR_PENALTY_S + ERROR_FACTOR * work_s),
        crowd_s,
        batch_s,
        pressed_s - planned_s,
        work_s - pressed_s,
        work_s * price.owner,
        QUEUE_RATIO * (backlog_s + own_s) + reading_s + busy * prefill_s,
        reading_s,
    )


def cold_start_s(model: ModelLoad | None) -> float:
    """Seconds until the weights are resident: 0 when warm."""
    if model is None:
        return LOAD_UNMEASURED_S
    return 0.0 if model.warm else (model.load_s or LOAD_UNMEASURED_S)


def _waits(ahead: int, slots: int) -> int:
    """Endings that a job must wait for before it gets a slot."""
    return ahead - slots + 1 if ahead >= slots else 0


def _rate(measured_tps: float, otherwise_tps: float) -> float:
    return measured_tps if measured_tps > RATE_MIN_TPS else otherwise_tps
