"""A mesh of three as a daemon would publish it, and a small server that plays that daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from meshd.api.models import model_list
from meshd.core.membership.member import Member, MeshView
from meshd.status import members_body, status_body
from protocol.load import CapacityRecord, GpuRecord, LoadRecord, ModelLoad, ModelRecord
from protocol.messages import Endpoint

GB = 10**9


def member(name: str, state: str, pressure: str = "normal", *, free: int = 10) -> Member:
    models = (
        ModelRecord("SmolLM2-135M-Instruct", "llamacpp", context_length=8192),
        ModelRecord("gemma-3-27b", "llamacpp"),
    )
    load = LoadRecord(
        sequence=1,
        in_flight=1,
        queued=0,
        memory_available_bytes=free * GB,
        reserved_bytes=0,
        pressure=pressure,
        accepting=True,
        models=(ModelLoad("SmolLM2-135M-Instruct", True, 4, 1, 0, 0.2, 900.0, 41.5, 0.0),),
    )
    capacity = CapacityRecord(
        version=1,
        software="0.1.0",
        system="Linux aarch64",
        chip="Raspberry Pi 5",
        cores=4,
        memory_total_bytes=16 * GB,
        gpus=(GpuRecord("RTX 4090", 24 * GB),),
        engines=("llamacpp",),
        models=models,
    )
    return Member(
        node_id=name.encode().hex().ljust(32, "0"),
        name=name,
        public_key="1" * 64,
        state=state,
        incarnation=1_700_000_000_000,
        boot_id=1,
        endpoints=(Endpoint("192.168.1.20", 8788, 8789),),
        address=Endpoint("192.168.1.20", 8788, 8789),
        capacity=capacity,
        load=load,
        load_at=99.0,
        heard_at=99.2,
        changed_at=40.0,
        reason="no answer to 4 probes" if state != "alive" else "answered",
        rtt_s=0.00042,
    )


def mesh(*members: Member) -> dict[str, Any]:
    """Status, members and models of a mesh whose first member is the node asked."""
    view = MeshView(members[0].node_id, {each.node_id: each for each in members}, 1)
    status = status_body(
        view,
        100.0,
        name=members[0].name,
        version="0.1.0",
        started_at=10.0,
        label="0f0f0f0f",
        counters={},
        http="http://127.0.0.1:8787",
    )
    return {
        "/mesh/v1/status": status,
        "/mesh/v1/members": members_body(view, 100.0),
        "/v1/models": model_list([MODEL]),
        "/mesh/v1/explain": EXPLAIN,
    }


MODEL = {
    "id": "SmolLM2-135M-Instruct",
    "created": 0,
    "nodes": ["kitchen", "attic"],
    "context_length": 8192,
    "capabilities": ["chat"],
    "quantisation": "Q8_0",
    "aliases": [],
    "warm": True,
    "emulated": False,
    "second_hand": False,
}

EXPLAIN = {
    "model": "SmolLM2-135M-Instruct",
    "chosen": "attic",
    "chosen_id": "61",
    "reason": "expected in 1.20 s, next best 3.40 s",
    "candidates": [
        {
            "node": "attic",
            "id": "61",
            "eligible": True,
            "gates": [{"name": "model", "ok": True, "detail": "warm"}],
            "terms": {"rtt_s": 0.0004, "backlog_s": 0.0, "decode_s": 1.2, "total_s": 1.2},
            "score_s": 1.2,
            "expected_s": 0.8,
        },
        {
            "node": "shed",
            "id": "62",
            "eligible": False,
            "gates": [{"name": "pressure", "ok": False, "detail": "critical"}],
            "terms": {"rtt_s": 0.001, "backlog_s": 0.0, "decode_s": 3.4, "total_s": 3.4},
            "score_s": 3.4,
        },
    ],
}


@pytest.fixture
def healthy() -> dict[str, Any]:
    """Two nodes, both well."""
    return mesh(member("kitchen", "alive"), member("attic", "alive"))


@pytest.fixture
def degraded() -> dict[str, Any]:
    """Three nodes: one dead, one out of memory."""
    return mesh(
        member("kitchen", "alive"),
        member("attic", "dead"),
        member("shed", "alive", "critical", free=0),
    )


@dataclass
class Daemon:
    """Answers with `bodies`, or with `status` and an error; keeps what it was asked.

    A body is under its path, or under "METHOD path"; of a list each question gets the next one, and
    the last one stays.
    """

    bodies: Mapping[str, Any]
    status: int = 200
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    def body(self, method: str, path: str) -> Any:
        """What is said to a question now."""
        said = self.bodies.get(f"{method} {path}", self.bodies.get(path))
        if isinstance(said, list):
            return said.pop(0) if len(said) > 1 else said[0]
        return {"error": {"message": "said the daemon"}} if said is None else said


def _handler(daemon: Daemon) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_DELETE(self) -> None:
            self._answer(None)

        def _answer(self, question: Any) -> None:
            daemon.asked.append((self.path, dict(self.headers), question))
            body = daemon.body(self.command, self.path)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(daemon.status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    return Handler


@pytest.fixture
def daemon(healthy: dict[str, Any]) -> Iterator[Daemon]:
    """A daemon that publishes the healthy mesh, until told otherwise."""
    stub = Daemon(healthy)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub))
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stub
    server.shutdown()
    thread.join()
    server.server_close()


Meshctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def meshctl(daemon: Daemon) -> Meshctl:
    """Runs `meshctl` as a process that asks the daemon of this test."""

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MESH", "NO_COLOR"))}
        return subprocess.run(
            [sys.executable, "-m", "meshd.ctl", *words],
            env=clean | {"MESHCTL_URL": daemon.url} | env,
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )

    return run
