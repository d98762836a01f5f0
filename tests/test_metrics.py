"""The metrics page: every name declared once, labels bounded, figures right."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshd.core.routing.demand import Demand
from meshd.core.routing.router import Decision
from meshd.history import History
from meshd.metrics import METRICS, OTHER, Metrics
from protocol.jobs import Failure, Finish, Job
from protocol.limits import MODELS_MAX
from protocol.load import LoadRecord, ModelLoad

UNDECIDED = Decision(None, (), None, 0, tuple, "")
"""A choice among nobody: the page asks for no more of it than the model's name beside it."""

LOAD = LoadRecord(
    sequence=1,
    in_flight=2,
    queued=1,
    memory_available_bytes=4_000,
    reserved_bytes=0,
    pressure="warn",
    accepting=True,
    models=(ModelLoad("m", True, 4, 2, 1, 0.5, 300.0, 40.0, 0.0),),
)


def asked(history: History, model: str, last: Finish | Failure | None, now: float = 10.0) -> None:
    """One request for `model`, ended."""
    story = history.opened(Job(request_id="r", kind="chat", model=model, stream=True), now)
    story.decided(Demand(model, frozenset(), 5, 5), UNDECIDED)
    story.attempt_started("id", "attic", now).ended("finished", now + 3)
    story.first_byte(now + 0.2)
    story.finished(last, now + 3.2)


@pytest.fixture
def metrics() -> Metrics:
    """Empty counts."""
    return Metrics()


@pytest.fixture
def history(metrics: Metrics) -> History:
    """Requests, counted as they end."""
    return History(metrics.ended)


def families(metrics: Metrics) -> dict[str, object]:
    """The page, read by the library's own parser."""
    page = metrics.page({"alive": 2, "dead": 1}, LOAD, 8_000, {"frames_in": 7}).decode()
    return {family.name: family for family in text_string_to_metric_families(page)}


def value(metrics: Metrics, sample_name: str, /, **labels: str) -> float:
    """One sample of the page."""
    found = [
        sample.value
        for family in families(metrics).values()
        for sample in family.samples  # type: ignore[attr-defined]
        if sample.name == sample_name and labels.items() <= sample.labels.items()
    ]
    return float(found[0])


def test_the_page_has_every_declared_metric_and_no_other(metrics: Metrics) -> None:
    """One source per name."""
    assert set(families(metrics)) == set(METRICS)


def test_a_finished_request_is_counted_everywhere(history: History, metrics: Metrics) -> None:
    """Its ending, its try, its times and its tokens."""
    asked(history, "m", Finish("stop", 7, 31))
    assert value(metrics, "mesh_requests_total", state="done") == 1
    assert value(metrics, "mesh_attempts_total", why="first", outcome="finished") == 1
    model = {"gen_ai_response_model": "m"}
    tokens = "gen_ai_client_token_usage_tokens_total"
    assert value(metrics, tokens, gen_ai_token_type="input", **model) == 7
    assert value(metrics, tokens, gen_ai_token_type="output", **model) == 31
    first = "gen_ai_server_time_to_first_token_seconds"
    assert value(metrics, f"{first}_bucket", le="0.1", **model) == 0
    assert value(metrics, f"{first}_bucket", le="0.25", **model) == 1
    assert value(metrics, f"{first}_count", **model) == 1
    per_token = "gen_ai_server_time_per_output_token_seconds_sum"
    assert value(metrics, per_token, **model) == pytest.approx(0.1)


def test_a_failed_request_and_one_whose_client_left(history: History, metrics: Metrics) -> None:
    """Counted by how they ended; no tokens are claimed for them."""
    asked(history, "m", Failure("timeout", "late", elsewhere=True))
    asked(history, "m", None)
    assert value(metrics, "mesh_requests_total", state="failed") == 1
    assert value(metrics, "mesh_requests_total", state="cancelled") == 1


def test_model_names_are_bounded(history: History, metrics: Metrics) -> None:
    """Whoever asks for a thousand models makes no thousand series."""
    for number in range(MODELS_MAX + 20):
        asked(history, f"model-{number}", Finish("stop", 1, 1))
    page = metrics.page({}, LOAD, 1, {}).decode()
    assert f'gen_ai_response_model="{OTHER}"' in page
    assert f"model-{MODELS_MAX + 5}" not in page


def test_gauges_say_what_the_load_record_says(metrics: Metrics) -> None:
    """Read when asked."""
    assert value(metrics, "mesh_in_flight") == 2
    assert value(metrics, "mesh_memory_pressure_ratio") == 0.5
    assert value(metrics, "mesh_members", state="dead") == 1
    assert value(metrics, "mesh_events_total", name="frames_in") == 7
    assert value(metrics, "mesh_model_warm", gen_ai_response_model="m") == 1


def test_what_also_falls_is_no_counter(metrics: Metrics) -> None:
    """Prometheus takes a counter that fell for one that began anew, and adds it up again."""
    counters = {"control_links": 3, "control_strangers": 1, "frames_in": 7}
    page = metrics.page({}, LOAD, 8_000, counters).decode()
    assert "mesh_links 3.0" in page
    assert 'mesh_events_total{name="frames_in"} 7.0' in page
    assert "control_" not in page


def test_the_shipped_grafana_dashboard_asks_for_metrics_that_exist() -> None:
    """Each query names one; a renamed metric would be an empty panel."""
    board = json.loads((files("meshd.api") / "static" / "grafana.json").read_text("utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert queries
    for query in queries:
        assert any(name in query for name in METRICS), query
