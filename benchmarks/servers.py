"""The servers under measurement, as real processes on loopback: ours, the stub, and the peers.

A peer that is not installed is left out. `nginx` is taken from PATH, `litellm` from `.peers/bin` (a
virtual environment made from `benchmarks/peers.txt`) or from PATH.
"""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stub import MODEL

START_LIMIT_S = 20.0
LITELLM_START_LIMIT_S = 90.0
"""Its imports alone take ten seconds on two cores."""

STOP_LIMIT_S = 5.0
POLL_S = 0.005
SLOTS = 64
"""Requests our engine sends to the stub at once: more than the load has open, so that no queue of
ours is measured."""

NGINX = """\
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
{user}events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  upstream stub {{ server 127.0.0.1:{stub}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

LITELLM = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{stub}/v1
      api_key: none
"""


class StartError(Exception):
    """A server did not come up; the text says which, and what it wrote."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    name: str
    port: int
    pid: int
    start_s: float
    """From the start of the process to the first good answer."""


def free_port(count: int = 1) -> int:
    """A port that is free now, as are the `count - 1` after it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if all(_is_free(port + offset) for offset in range(1, count)):
            return port


@contextmanager
def process(
    name: str,
    command: Sequence[str],
    ready: Callable[[], bool],
    home: Path,
    *,
    port: int,
    env: Mapping[str, str] | None = None,
    limit_s: float = START_LIMIT_S,
) -> Iterator[Server]:
    """A process that is ready; ended afterwards. Raises StartError."""
    log_path = home / f"{name}.log"
    with log_path.open("wb") as log:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        try:
            while not ready():
                if child.poll() is not None or time.perf_counter() - began > limit_s:
                    words = log_path.read_text(errors="replace").strip()[-800:]
                    raise StartError(f"{name} did not start: {words or 'it said nothing'}")
                time.sleep(POLL_S)
            yield Server(name, port, child.pid, time.perf_counter() - began)
        finally:
            child.terminate()
            try:
                child.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def stub(home: Path) -> Iterator[Server]:
    """The upstream that everybody stands in front of."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.stub", "--port", str(port)]
    with process("stub", command, lambda: answers(port, "/v1/models"), home, port=port) as made:
        yield made


@contextmanager
def node(
    home: Path,
    *,
    name: str = "meshd",
    upstream: int | None = None,
    mesh_key_file: Path | None = None,
    peer: int | None = None,
    mesh_port: int | None = None,
) -> Iterator[Server]:
    """A daemon of ours; ready at the first 200 on /health."""
    port = free_port()
    state = home / f"{name}-{secrets.token_hex(4)}"
    state.mkdir(mode=0o700)
    command = [sys.executable, "-m", "meshd", "run", "--http", f"127.0.0.1:{port}"]
    command += ["--mesh", f"127.0.0.1:{mesh_port or free_port(2)}", "--name", name]
    command += ["--state-dir", str(state), "--no-mdns"]
    command += ["--no-adopt", "--no-catalog"]
    if upstream is not None:
        command += ["--engine", f"openai:http://127.0.0.1:{upstream}/v1,slots={SLOTS}"]
    if mesh_key_file is not None:
        command += ["--mesh-key-file", str(mesh_key_file)]
    if peer is not None:
        command += ["--peer", f"127.0.0.1:{peer}"]
    with process(name, command, lambda: answers(port, "/health"), home, port=port) as made:
        yield made


@contextmanager
def nginx(home: Path, upstream: int) -> Iterator[Server | None]:
    """nginx as a plain reverse proxy; None when it is not installed."""
    binary = shutil.which("nginx")
    if binary is None:
        yield None
        return
    port = free_port()
    user = "user root; " if os.geteuid() == 0 else ""
    config = home / "nginx.conf"
    config.write_text(NGINX.format(home=home, user=user, stub=upstream, port=port))
    command = [binary, "-c", str(config), "-p", str(home), "-e", str(home / "error.log")]
    with process("nginx", command, lambda: answers(port, "/v1/models"), home, port=port) as made:
        yield made


@contextmanager
def litellm(home: Path, upstream: int) -> Iterator[Server | None]:
    """LiteLLM's proxy with the stub as an OpenAI model; None when it is not installed."""
    own = Path(".peers/bin/litellm")
    binary = str(own) if own.exists() else shutil.which("litellm")
    if binary is None:
        yield None
        return
    port = free_port()
    config = home / "litellm.yaml"
    config.write_text(LITELLM.format(model=MODEL, stub=upstream))
    command = [binary, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    env = {
        # Else it fetches a price list at start.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # No key to check on each request: its best case, and it listens on loopback only.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": "127.0.0.1",
    }
    with process(
        "litellm",
        command,
        lambda: answers(port, "/health/liveliness"),
        home,
        port=port,
        env=env,
        limit_s=LITELLM_START_LIMIT_S,
    ) as made:
        yield made


def answers(port: int, path: str) -> bool:
    """Whether a GET of this path is a 200 now."""
    return bool(get(port, path))


def get(port: int, path: str) -> bytes:
    """The body of a GET that is a 200, else nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
    return body if answer.status == 200 else b""


def wait_for_model(port: int, limit_s: float = START_LIMIT_S) -> None:
    """Returns once a node lists the stub's model. Raises StartError."""
    began = time.perf_counter()
    wanted = f'"id":"{MODEL}"'.encode()
    while wanted not in get(port, "/v1/models").replace(b" ", b""):
        if time.perf_counter() - began > limit_s:
            raise StartError(f"port {port} does not list {MODEL} after {limit_s:g} s")
        time.sleep(0.05)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
