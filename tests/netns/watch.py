"""One observer of a whole mesh: it polls each daemon's member list and keeps what changed, when.

A single thread holds one kept-alive connection to each daemon, asks every 50 ms, and never waits
for one that does not answer. A change is dated when the answer that shows it arrives, so it is up
to one interval late and never early; a claim such as "seen by all within 0.5 s" errs against the
daemons.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.netns.sightings import Sightings
from tests.netns.within import inside

POLL_S = 0.05
"""Between two questions to one daemon."""

ANSWER_WAIT_S = 1.0
"""A daemon that takes longer is asked over a new connection: it was stopped, cut off or killed."""

READ_BYTES = 1 << 18
"""More than the member list of thirty nodes, so that one read usually takes it whole."""

QUESTION = b"GET /mesh/v1/members HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Door:
    """Where a daemon answers HTTP."""

    netns: str
    port: int


@dataclass
class Line:
    """The connection to one daemon."""

    name: str
    door: Door
    due: float = 0.0
    asked_at: float | None = None
    connection: socket.socket | None = None
    received: bytearray = field(default_factory=bytearray)


class Watch(Sightings):
    """Polls until closed. Use as a context manager; `doors` is a daemon's name -> where it is."""

    def __init__(self, doors: Mapping[str, Door], every_s: float = POLL_S) -> None:
        super().__init__()
        self._every_s = every_s
        self._lines = [Line(name, door) for name, door in doors.items()]
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._looking = threading.Event()
        self._looking.set()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        """Who says it -> about whom -> the row, as of the latest answer."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        if self._thread.ident is not None:
            self._thread.join(10)
        for line in self._lines:
            self._hang_up(line)
        self._selector.close()

    def look_away(self, seconds: float) -> None:
        """Ask nobody anything for so long, so that the daemons can be seen idle."""
        self._looking.clear()
        try:
            self.stay(seconds)
        finally:
            self._looking.set()

    def table(self) -> str:
        """Who sees whom how, and why."""
        return "\n".join(
            f"{name}: "
            + ", ".join(f"{who} {row['state']} ({row['reason']})" for who, row in rows.items())
            for name, rows in sorted(self.rows.items())
        )

    # The thread

    def _run(self) -> None:
        while not self._stopping:
            self._looking.wait()
            now = time.monotonic()
            for line in self._lines:
                self._step(line, now)
            for key, _ in self._selector.select(self._pause_s()):
                self._read(key.data)

    def _pause_s(self) -> float:
        idle = [line.due for line in self._lines if line.asked_at is None]
        soonest = min(idle, default=time.monotonic() + self._every_s)
        return max(0.0, min(self._every_s, soonest - time.monotonic()))

    def _step(self, line: Line, now: float) -> None:
        if line.asked_at is not None and now - line.asked_at > ANSWER_WAIT_S:
            self._hang_up(line)
        if line.asked_at is None and now >= line.due:
            self._ask(line, now)

    def _ask(self, line: Line, now: float) -> None:
        line.due = max(line.due + self._every_s, now)
        try:
            if line.connection is None:
                line.connection = self._dial(line.door)
                self._selector.register(line.connection, selectors.EVENT_READ, line)
            line.connection.send(QUESTION)
        except OSError:
            self._hang_up(line)
        else:
            line.asked_at = now

    def _dial(self, door: Door) -> socket.socket:
        """Loopback answers at once, so connecting may block; nothing else does."""
        with inside(door.netns):
            connection = socket.socket()
        connection.settimeout(ANSWER_WAIT_S)
        try:
            connection.connect(("127.0.0.1", door.port))
        except OSError:
            connection.close()
            raise
        connection.setblocking(False)
        return connection

    def _hang_up(self, line: Line) -> None:
        line.asked_at = None
        line.received.clear()
        if line.connection is not None:
            with suppress(KeyError):
                self._selector.unregister(line.connection)
            line.connection.close()
            line.connection = None

    def _read(self, line: Line) -> None:
        assert line.connection is not None
        try:
            chunk = line.connection.recv(READ_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            self._hang_up(line)
            line.due = time.monotonic() + self._every_s
            return
        line.received += chunk
        body = _whole_body(line.received)
        if body is not None:
            line.asked_at = None
            line.received.clear()
            self._learn(line.name, json.loads(body), time.monotonic())

    def _learn(self, name: str, body: Mapping[str, Any], now: float) -> None:
        self.rows[name] = {row["name"]: row for row in body["members"]}
        gone = self.states.get(name, {}).keys() - self.rows[name].keys()
        states = {other: row["state"] for other, row in self.rows[name].items()}
        self.note(name, dict.fromkeys(gone, "unknown") | states, now)


def _whole_body(received: bytearray) -> bytes | None:
    """The body of the one answer in the buffer, None while it is incomplete."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    length = next(
        int(line.split(b":", 1)[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    return bytes(body) if len(body) >= length else None
