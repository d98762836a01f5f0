"""What this node measures of itself, in Prometheus' words: each metric is declared once, here.

Names are OpenTelemetry's for generative AI where it has one (`gen_ai_server_time_to_first_token`,
with a unit as Prometheus asks), `mesh_*` for the rest. `METRICS` is the table; the page, the
shipped Grafana dashboard and the tests are all held against it.

Requests are counted as they end, in plain lists, about two microseconds each; everything else is
read when somebody asks for the page, and the library that words it is loaded only then.

Labels are bounded: MODELS_MAX model names, then `other`; nodes and people are never labels, because
a mesh that people come to and leave would grow without end. No metric holds text of anybody's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from meshd.history import OUTCOMES, WHYS, Story
from protocol.frozen import frozen
from protocol.jobs import Finish
from protocol.limits import MODELS_MAX
from protocol.load import LoadRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Buckets of whole requests and first tokens: from a cached answer to a Pi with a long prompt."""

TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Buckets of one token: 500 a second to one."""

STATES = ("done", "failed", "cancelled")

OTHER = "other"


@frozen
class Metric:
    """One declaration. `labels` are its label names, in order; `buckets` for histograms."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


MODEL_LABEL = ("gen_ai_response_model",)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "gen_ai_server_request_duration_seconds",
            "histogram",
            "From arrival to the end of the answer.",
            MODEL_LABEL,
            SECONDS,
        ),
        Metric(
            "gen_ai_server_time_to_first_token_seconds",
            "histogram",
            "From arrival to the first word of the answer.",
            MODEL_LABEL,
            SECONDS,
        ),
        Metric(
            "gen_ai_server_time_per_output_token_seconds",
            "histogram",
            "Mean time between tokens after the first, per request.",
            MODEL_LABEL,
            TOKEN_SECONDS,
        ),
        Metric(
            "gen_ai_client_token_usage_tokens",
            "counter",
            "Tokens read and written for requests that entered here.",
            ("gen_ai_response_model", "gen_ai_token_type"),
        ),
        Metric("mesh_requests", "counter", "Requests that entered here, by ending.", ("state",)),
        Metric(
            "mesh_attempts",
            "counter",
            "Tries at nodes, by what they were for and how they ended.",
            ("why", "outcome"),
        ),
        Metric("mesh_members", "gauge", "Members known here, by state.", ("state",)),
        Metric("mesh_links", "gauge", "Nodes that this one is connected to."),
        Metric("mesh_in_flight", "gauge", "Requests this node's engines work on."),
        Metric("mesh_queued", "gauge", "Requests that wait for this node's engines."),
        Metric("mesh_draining", "gauge", "1 while this node takes no new work."),
        Metric("mesh_memory_available_bytes", "gauge", "Memory models could still have here."),
        Metric("mesh_memory_total_bytes", "gauge", "Memory of this machine."),
        Metric("mesh_memory_pressure_ratio", "gauge", "0 normal, 0.5 warn, 1 critical."),
        Metric("mesh_gateway_loop_lag_seconds", "gauge", "How late the gateway's loop turned."),
        Metric("mesh_model_warm", "gauge", "1 while the model is in memory here.", MODEL_LABEL),
        Metric(
            "mesh_model_generation_tokens_per_second",
            "gauge",
            "Measured decode rate of one stream.",
            MODEL_LABEL,
        ),
        Metric(
            "mesh_model_prompt_tokens_per_second", "gauge", "Measured prefill rate.", MODEL_LABEL
        ),
        Metric("mesh_events", "counter", "The node's own counters, by name.", ("name",)),
    )
}
"""Every metric by name. A counter's page name has `_total` added."""

LINKS = "control_links"
FALLING = frozenset({LINKS, "control_strangers"})
"""The node's own counters that also fall, which no counter of Prometheus' may: nodes that are
connected, and connections that have not shown the mesh key yet."""

PRESSURE_RATIO = {"normal": 0.0, "warn": 0.5, "critical": 1.0}


class _Histogram:
    """Counts by bucket, and the sum."""

    __slots__ = ("buckets", "counts", "total")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.buckets, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, how many are at most that)."""
        rows, seen = [], 0
        for bound, count in zip((*map(str, self.buckets), "+Inf"), self.counts, strict=True):
            seen += count
            rows.append((bound, float(seen)))
        return rows


class _Model:
    """What is counted of one model."""

    __slots__ = ("duration", "first", "read", "token", "written")

    def __init__(self) -> None:
        self.duration = _Histogram(SECONDS)
        self.first = _Histogram(SECONDS)
        self.token = _Histogram(TOKEN_SECONDS)
        self.read = 0
        self.written = 0


class Metrics:
    """The counts of one node."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._states = dict.fromkeys(STATES, 0)
        self._attempts = {(why, outcome): 0 for why in WHYS for outcome in OUTCOMES}

    def ended(self, story: Story) -> None:
        """A request is over."""
        self._states[story.state] = self._states.get(story.state, 0) + 1
        for attempt in story.attempts:
            key = (attempt.why, attempt.outcome)
            self._attempts[key] = self._attempts.get(key, 0) + 1
        if story.ended_at is None or not story.choices:
            return
        counts = self._model(story.choices[0][0].model)
        counts.duration.observe(story.ended_at - story.opened_at)
        if story.first_at is not None:
            counts.first.observe(story.first_at - story.opened_at)
        if isinstance(story.last, Finish):
            self._tokens(counts, story, story.last)

    def _tokens(self, counts: _Model, story: Story, finish: Finish) -> None:
        counts.read += finish.prompt_tokens
        counts.written += finish.completion_tokens
        if story.first_at is not None and story.ended_at is not None:
            gaps = finish.completion_tokens - 1
            if gaps > 0 and story.stream:
                counts.token.observe((story.ended_at - story.first_at) / gaps)

    def _model(self, model_id: str) -> _Model:
        found = self._models.get(model_id)
        if found is None:
            known = model_id if len(self._models) < MODELS_MAX else OTHER
            found = self._models.setdefault(known, _Model())
        return found

    def page(
        self,
        members: Mapping[str, int],
        load: LoadRecord,
        memory_total_bytes: int,
        counters: Mapping[str, int],
    ) -> bytes:
        """The text of `/metrics`. `members` counts them by state."""
        from prometheus_client import CollectorRegistry, generate_latest  # 30 ms, only when asked

        gauges = _gauges(members, load, memory_total_bytes, counters)
        registry = CollectorRegistry()
        registry.register(_Page({**self._rows(), **gauges}))
        return generate_latest(registry)

    def _rows(self) -> dict[str, Any]:
        models = self._models.items()
        attempts = {key: count for key, count in self._attempts.items() if count}
        return {
            "gen_ai_server_request_duration_seconds": {(m,): c.duration for m, c in models},
            "gen_ai_server_time_to_first_token_seconds": {(m,): c.first for m, c in models},
            "gen_ai_server_time_per_output_token_seconds": {(m,): c.token for m, c in models},
            "gen_ai_client_token_usage_tokens": {
                **{(m, "input"): c.read for m, c in models},
                **{(m, "output"): c.written for m, c in models},
            },
            "mesh_requests": {(state,): count for state, count in self._states.items()},
            "mesh_attempts": attempts,
        }


def _gauges(
    members: Mapping[str, int],
    load: LoadRecord,
    memory_total_bytes: int,
    counters: Mapping[str, int],
) -> dict[str, Any]:
    return {
        "mesh_members": {(state,): count for state, count in members.items()},
        "mesh_links": {(): counters.get(LINKS, 0)},
        "mesh_in_flight": {(): load.in_flight},
        "mesh_queued": {(): load.queued},
        "mesh_draining": {(): load.draining},
        "mesh_memory_available_bytes": {(): load.memory_available_bytes},
        "mesh_memory_total_bytes": {(): memory_total_bytes},
        "mesh_memory_pressure_ratio": {(): PRESSURE_RATIO.get(load.pressure, 0.5)},
        "mesh_gateway_loop_lag_seconds": {(): load.loop_lag_s},
        "mesh_model_warm": {(row.model_id,): row.warm for row in load.models},
        "mesh_model_generation_tokens_per_second": {
            (row.model_id,): row.generation_tps for row in load.models
        },
        "mesh_model_prompt_tokens_per_second": {
            (row.model_id,): row.prompt_tps for row in load.models
        },
        "mesh_events": {(name,): n for name, n in counters.items() if name not in FALLING},
    }


class _Page:
    """The rows as the library's families."""

    def __init__(self, rows: Mapping[str, Mapping[tuple[str, ...], Any]]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Any]:
        """Called by the library."""
        for name, metric in METRICS.items():
            yield _family(metric, self._rows[name].items())


def _family(metric: Metric, rows: Iterable[tuple[tuple[str, ...], Any]]) -> Any:
    from prometheus_client import core

    if metric.kind == "histogram":
        family = core.HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, counts in rows:
            family.add_metric(labels, counts.cumulative(), counts.total)
        return family
    kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily}
    family = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
    for labels, value in rows:
        family.add_metric(labels, float(value))
    return family
