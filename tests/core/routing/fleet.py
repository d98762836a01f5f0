"""A household on paper: members, views and jobs with every figure stated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshd.core.membership.member import Member, MeshView
from protocol.jobs import Job
from protocol.load import CapacityRecord, LoadRecord, ModelLoad, ModelRecord

MODEL = "smollm2"


def model_load(**changes: Any) -> ModelLoad:
    """A warm, idle model: 100 prompt tokens/s, 10 generated tokens/s, 2 slots."""
    idle = ModelLoad(
        model_id=MODEL,
        warm=True,
        slots=2,
        in_flight=0,
        queued=0,
        backlog_s=0.0,
        prompt_tps=100.0,
        generation_tps=10.0,
        load_s=0.0,
    )
    return replace(idle, **changes)


def load(*models: ModelLoad, **changes: Any) -> LoadRecord:
    """A machine at ease."""
    calm = LoadRecord(
        sequence=1,
        in_flight=0,
        queued=0,
        memory_available_bytes=8 << 30,
        reserved_bytes=0,
        pressure="normal",
        accepting=True,
        models=models or (model_load(),),
    )
    return replace(calm, **changes)


def model(**changes: Any) -> ModelRecord:
    """A text model with room for 1,000 tokens."""
    plain = ModelRecord(
        model_id=MODEL,
        engine="emulated",
        context_length=1_000,
        capabilities=("chat", "completion"),
    )
    return replace(plain, **changes)


def member(number: int, *models: ModelRecord, **changes: Any) -> Member:
    """Member `number` of the household, alive, heard of at time 0."""
    capacity = CapacityRecord(
        version=1,
        software="0",
        system="Linux",
        chip="",
        cores=4,
        memory_total_bytes=16 << 30,
        gpus=(),
        engines=(),
        models=models or (model(),),
    )
    known = Member(
        node_id=f"{number:032x}",
        name=f"node{number}",
        public_key="00" * 32,
        state="alive",
        incarnation=1,
        boot_id=1,
        endpoints=(),
        address=None,
        capacity=capacity,
        load=load(),
        load_at=0.0,
        heard_at=0.0,
        changed_at=0.0,
        reason="",
        rtt_s=0.001,
    )
    return replace(known, **changes)


def view(*members: Member) -> MeshView:
    """The household as member 1 sees it."""
    return MeshView(members[0].node_id, {each.node_id: each for each in members}, version=1)


def chat(text: str = "hello", **changes: Any) -> Job:
    """A short chat for MODEL."""
    job = Job(
        request_id="r1",
        kind="chat",
        model=MODEL,
        messages=({"role": "user", "content": text},),
        max_tokens=20,
    )
    return replace(job, **changes)
