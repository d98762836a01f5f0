"""The mesh as JSON: what scripts and `meshctl` rely on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from meshd.core.membership.member import Member, MeshView
from meshd.status import members_body, plain, status_body
from protocol.load import CapacityRecord, GpuRecord, LoadRecord, ModelLoad, ModelRecord
from protocol.messages import Endpoint

MODEL = ModelRecord("SmolLM2-135M", "llamacpp", context_length=8192, quantisation="Q8_0")
CAPACITY = CapacityRecord(
    version=1,
    software="0.1.0",
    system="Linux x86_64",
    chip="EPYC",
    cores=2,
    memory_total_bytes=16_000,
    gpus=(GpuRecord("RTX", 24_000),),
    engines=("llamacpp",),
    models=(MODEL, replace(MODEL, model_id="cold")),
)
LOAD = LoadRecord(
    sequence=7,
    in_flight=1,
    queued=2,
    memory_available_bytes=9_000,
    reserved_bytes=0,
    pressure="normal",
    accepting=True,
    models=(ModelLoad("SmolLM2-135M", True, 4, 1, 2, 0.5, 900.0, 41.0, 0.0),),
    prefix_digest=b"\x00\xff",
)
ALICE = Member(
    node_id="aa" * 16,
    name="alice",
    public_key="11" * 32,
    state="alive",
    incarnation=1_000,
    boot_id=5,
    endpoints=(Endpoint("192.168.1.5", 8788, 8789), Endpoint("fe80::1%eth0", 8788, 8789)),
    address=None,
    capacity=CAPACITY,
    load=LOAD,
    load_at=90.0,
    heard_at=95.0,
    changed_at=40.0,
    reason="started",
    rtt_s=None,
)
BOB = replace(ALICE, node_id="bb" * 16, name="bob", address=Endpoint("fe80::2", 1, 2), rtt_s=0.0012)
CAROL = replace(
    ALICE,
    node_id="cc" * 16,
    name="Carol",
    state="dead",
    load=None,
    capacity=None,
    heard_at=-math.inf,
    reason="closed its sockets and refuses new ones",
)
VIEW = MeshView(BOB.node_id, {m.node_id: m for m in (CAROL, ALICE, BOB)}, 3)


def status() -> dict[str, object]:
    return status_body(
        VIEW,
        100.0,
        name="bob",
        version="0.1.0",
        started_at=40.0,
        label="0f0f",
        counters={"frames_in": 12},
        http="http://127.0.0.1:8787",
        memory_waits=[{"model": "b", "behind": ["a"]}],
    )


def test_the_node_asked_comes_first_and_is_never_old() -> None:
    """Then the others by name; ages are by this node's own clock."""
    body = members_body(VIEW, 100.0)
    rows = body["members"]
    assert body["self"] == BOB.node_id
    assert [row["name"] for row in rows] == ["bob", "Carol", "alice"]
    assert (rows[0]["age_s"], rows[0]["heard_s"]) == (0.0, 0.0)
    assert (rows[2]["age_s"], rows[2]["heard_s"], rows[2]["changed_s"]) == (10.0, 5.0, 60.0)


def test_a_row_says_all_that_the_table_holds() -> None:
    """The published names, so that a rename is a decision and not an accident."""
    row = members_body(VIEW, 100.0)["members"][0]
    assert list(row) == [
        *("id", "name", "state", "incarnation", "boot_id", "endpoints", "address", "age_s"),
        *("heard_s", "changed_s", "reason", "rtt_s", "load", "capacity", "models"),
    ]
    assert row["endpoints"] == ["192.168.1.5:8788", "[fe80::1%eth0]:8788"]
    assert row["address"] == "[fe80::2]:1"
    assert row["load"]["in_flight"] == 1
    assert row["load"]["prefix_digest"] == "00ff"
    assert row["capacity"]["gpus"] == [{"name": "RTX", "memory_bytes": 24_000}]


def test_a_model_row_joins_what_it_is_with_how_it_is() -> None:
    """One that has no state yet is cold."""
    warm, cold = members_body(VIEW, 100.0)["members"][0]["models"]
    assert (warm["id"], warm["warm"], warm["context_length"]) == ("SmolLM2-135M", True, 8192)
    assert warm["generation_tps"] == 41.0
    assert (cold["id"], cold["warm"]) == ("cold", False)
    assert "model_id" not in warm


def test_a_node_known_by_hearsay_has_no_ages() -> None:
    """Never heard and no load: null, not a made-up number."""
    carol = members_body(VIEW, 100.0)["members"][1]
    assert (carol["load"], carol["capacity"], carol["models"]) == (None, None, [])
    assert (carol["age_s"], carol["heard_s"]) == (None, None)


def test_totals_count_only_who_can_be_given_work() -> None:
    """The dead are listed and add nothing."""
    body = status()
    assert body["mesh"] == {
        "label": "0f0f",
        "members": 3,
        "alive": 2,
        "suspect": 0,
        "dead": 1,
        "left": 0,
    }
    assert body["totals"] == {
        "nodes": 2,
        "models": 2,
        "warm_models": 1,
        "slots": 8,
        "in_flight": 2,
        "queued": 4,
        "memory_total_bytes": 32_000,
        "memory_available_bytes": 18_000,
    }
    assert body["node"] == {
        "id": BOB.node_id,
        "name": "bob",
        "version": "0.1.0",
        "uptime_s": 60.0,
        "http": "http://127.0.0.1:8787",
    }
    assert body["memory_waits"] == [{"model": "b", "behind": ["a"]}]


def test_bodies_are_strict_json() -> None:
    """No infinity, no tuple, no bytes: any language reads them."""
    text = json.dumps(status(), allow_nan=False)
    assert json.loads(text) == status()


def test_plain_leaves_values_alone() -> None:
    """Only records, sequences and bytes change their form."""
    assert plain((1, "a", None, b"\x01")) == [1, "a", None, "01"]
