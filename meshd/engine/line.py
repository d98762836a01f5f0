"""The stream between a model's worker process and the daemon, seen from the worker.

Two threads share little. The reader takes frames from the daemon, puts them into a queue, and beats
five times a second. The main thread does the work, and sleeps in the queue when there is none. When
the daemon goes away the stream ends, and the reader ends the process, whatever the main thread is
doing: a worker never outlives its daemon.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from meshd.engine import frames

READ_BYTES = 256 * 1024

OOM_SCORE = "500"
"""Added to what Linux thinks of this process when memory is out (-1000 to 1000): a model goes
before the daemon, which then says so, and before the owner's programs of the same size."""


class Line:
    """The stream to the daemon. Frames may be sent by both threads."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.received: SimpleQueue[list[Any]] = SimpleQueue()
        self.busy_since = 0.0
        """When the pass at hand began (monotonic s), 0 between passes."""

    def send(self, frame: bytes) -> None:
        """Blocks while the daemon is behind. A daemon that is gone ends the process."""
        try:
            with self._lock:
                self._stream.sendall(frame)
        except OSError:
            os._exit(0)

    def read_for_ever(self) -> None:
        """The reader thread."""
        buffer = bytearray()
        beat_at = time.monotonic()
        poller = select.poll()
        poller.register(self._stream, select.POLLIN)
        while True:
            wait = max(0.0, beat_at - time.monotonic())
            if poller.poll(wait * 1000):
                received = self._stream.recv(READ_BYTES)
                if not received:
                    os._exit(0)
                buffer += received
                self._cut(buffer)
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + frames.BEAT_EVERY_S
                since = self.busy_since
                self.send(frames.frame(frames.BEAT, time.monotonic() - since if since else 0.0))

    def _cut(self, buffer: bytearray) -> None:
        head = frames.LENGTH.size
        while len(buffer) >= head:
            end = head + frames.LENGTH.unpack_from(buffer)[0]
            if len(buffer) < end:
                return
            self.received.put(frames.read_frame(bytes(buffer[head:end])))
            del buffer[:end]


@contextlib.contextmanager
def at_work(line: Line) -> Iterator[None]:
    """A pass is at hand: the beats say for how long."""
    line.busy_since = time.monotonic()
    try:
        yield
    finally:
        line.busy_since = 0.0


def open_line() -> Line:
    """The stream that is this process's stdin, its reader running. What it belongs to is a model's
    process from now on, the first to go when memory is out."""
    with contextlib.suppress(OSError):  # macOS has no such file, and decides by itself
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    line = Line(socket.socket(fileno=sys.stdin.fileno()))
    threading.Thread(target=_read_or_die, args=(line,), name="reader", daemon=True).start()
    return line


def _read_or_die(line: Line) -> None:
    """Without its reader the process could neither be told anything nor notice its orphanhood."""
    try:
        line.read_for_ever()
    finally:
        os._exit(1)
