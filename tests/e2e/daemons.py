"""Real daemons for tests: started, awaited, killed and always cleaned up."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.netns.within import connect

START_LIMIT_S = 40.0
"""Longest wait for /health; the goal is 0.7 s, a test machine under load took forty times that."""

POLL_S = 0.02


def free_port_pair() -> int:
    """A port p such that p and p + 1 are free on loopback now: control and relay."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return int(port)
    raise AssertionError("no two neighbouring free ports")


def write_key(path: Path) -> Path:
    """A mesh key file as a user would make it."""
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path


class Daemon:
    """One `meshd run` process, with its own state directory, ports and log."""

    def __init__(self, home: Path, name: str, *flags: str, netns: str = "") -> None:
        self.name = name
        self.flags = flags
        self.netns = netns
        self.module = "meshd"
        """What `python -m` runs."""
        self.state_dir = home / name
        self.log = home / f"{name}.log"
        self.mesh_port = free_port_pair()
        self.http_port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def peer(self) -> str:
        """What another node's --peer says to find this one."""
        return f"127.0.0.1:{self.mesh_port}"

    @property
    def base_url(self) -> str:
        """The OpenAI base URL."""
        return f"http://127.0.0.1:{self.http_port}/v1"

    def start(
        self, http: str = "127.0.0.1:0", mesh: str = "", env: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start the process; `wait_ready` says when it answers. `env` adds to the environment."""
        mesh = mesh or self.peer
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(["ip", "netns", "exec", self.netns] if self.netns else []),
                    *(sys.executable, "-m", self.module, "run", "--name", self.name),
                    *("--state-dir", str(self.state_dir), "--http", http, "--mesh", mesh),
                    *self.flags,
                ],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                    "MESHD_NO_ADOPT": "1",
                    "MESHD_NO_CATALOG": "1",
                    "PYTHONWARNINGS": "default",
                    **(env or {}),
                },
            )
        return self

    def wait_ready(self, limit_s: float = START_LIMIT_S) -> Daemon:
        """Wait until the log names the endpoint and /health answers 200."""
        limit = time.monotonic() + limit_s
        while time.monotonic() < limit:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended:\n{self.log.read_text()}"
            self.http_port = self._announced_port()
            if self.http_port and self._healthy():
                return self
            time.sleep(POLL_S)
        raise AssertionError(f"{self.name} is not ready:\n{self.log.read_text()}")

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return self.ask("GET", path)[1]

    def ask(self, method: str, path: str, body: Any = None, *, key: str = "") -> tuple[int, Any]:
        """Status and JSON of one request."""
        status, _, answer = self.ask_fully(method, path, body, key=key)
        return status, answer

    def ask_fully(
        self, method: str, path: str, body: Any = None, *, key: str = ""
    ) -> tuple[int, http.client.HTTPMessage, Any]:
        """Status, headers and JSON of one request, made inside the daemon's namespace."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=15)
        with contextlib.closing(connection):
            connection.sock = connect(self.netns, "127.0.0.1", self.http_port, timeout_s=15)
            headers = {"authorization": f"Bearer {key}"} if key else {}
            packed = None if body is None else json.dumps(body)
            connection.request(method, path, packed, headers)
            response = connection.getresponse()
            return response.status, response.headers, json.loads(response.read())

    def states(self) -> dict[str, str]:
        """Member name -> state, as this node sees it."""
        return {row["name"]: row["state"] for row in self.get("/mesh/v1/members")["members"]}

    def serving(self, model: str) -> list[str]:
        """The nodes that this one could send a request for a model to now."""
        rows = [r for r in self.get("/mesh/v1/members")["members"] if r["state"] == "alive"]
        return [
            row["name"]
            for row in rows
            if any(each["id"] == model and each["warm"] for each in row["models"] or ())
        ]

    def kill(self) -> None:
        """kill -9, and wait for the process to be gone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int | None:
        """SIGTERM and its exit code; SIGKILL when that is not enough. Idempotent."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        return self.process.returncode

    def _announced_port(self) -> int:
        for line in reversed(self.log.read_text(errors="replace").splitlines()):
            if line.startswith(f"{self.name} answers at http"):
                return int(line.rsplit(":", 1)[1].split("/")[0])
        return 0

    def _healthy(self) -> bool:
        try:
            return self.ask("GET", "/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def wait_until(claim: Any, limit_s: float, what: str) -> float:
    """Seconds until `claim()` is true; fails after `limit_s`."""
    started = time.monotonic()
    while not claim():
        assert time.monotonic() - started < limit_s, f"not within {limit_s} s: {what}"
        time.sleep(POLL_S)
    return time.monotonic() - started
