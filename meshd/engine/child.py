"""A worker process, seen from the daemon: started, listened to, and never outlived.

`run` starts the process, hands every frame to its owner, and returns when the process is gone,
saying why. Three ways to go, all noticed within about a second:

- it exits or is killed: the stream ends at once;
- it hangs or is stopped: no frame for `SILENCE_TICKS` ticks, and no thread of it wants to run. One
  that does is starved by others, not hung, and is given `STARVED_TICKS`. Ticks are counted, not
  seconds: a daemon that was itself held up has not listened, and must not blame the worker for it.
  Until the model is loaded the limit is `LOADING_TICKS`, because reading libraries from a cold disk
  holds the interpreter up;
- the library inside it hangs: one pass takes longer than `PASS_MAX_S`.

What the process writes to stderr is read, so that it can never block on a full pipe; the last bytes
are kept to explain a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshd.engine import frames
from protocol.errors import ProtocolError

ENVIRONMENT = {"GGML_NO_BACKTRACE": "1"}
"""What the process gets beside the daemon's own variables. Where there is a debugger, ggml runs it
when an assertion fails, and its last words would be all that is kept."""

TICK_S = frames.BEAT_EVERY_S
SILENCE_TICKS = 5
"""Heartbeats missed in a row that mean a hang: one second."""

LOADING_TICKS = 300
"""The same until the model is loaded: one minute."""

PASS_MAX_S = 60.0
"""One pass of at most 768 tokens: a machine that needs longer answers nobody anyway."""

STDERR_TAIL_BYTES = 2_000
"""Kept for the explanation: an assertion of ggml and the lines above it."""

STARVED_TICKS = 25
"""The same for a process that wants to run and may not, because others hold the processor: five
seconds. One that is stopped or waits for itself does not want to run."""

EXIT_WAIT_S = 0.5
"""For a process whose stream has ended to exit by itself: usually a millisecond."""

STOP_WAIT_S = 5.0
"""For a killed process to be reaped; only the kernel can delay that."""

BUFFER_BYTES = 4 * 1024 * 1024
"""What may lie unread or unwritten before the other side waits."""

Receive = Callable[[list[Any]], None]


class WorkerProcess:
    """One process; used once. `run` owns everything that it starts."""

    def __init__(self, receive: Receive, module: str) -> None:
        """`receive` takes each frame but heartbeats; it must not raise. `module` is what runs."""
        self._receive = receive
        self._module = module
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._silent_ticks = 0
        self._silence_max = LOADING_TICKS
        self._stderr = b""
        self._verdict = ""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    def send(self, frame: bytes) -> None:
        """Queue a frame. Frames for a process that is gone are dropped: its end is reported."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame)

    async def run(self, first: bytes) -> str:
        """Start the process, send it `first`, and pump frames until it is gone.

        Returns why it went, as a clause for people. Raises OSError when it cannot be started.
        Cancelling kills the process. `-P`: what lies in the folder that the daemon was started in
        may be anybody's, and is no module of ours.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                self._module,
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, **ENVIRONMENT},
            )
            theirs.close()
            try:
                reader, self._writer = await asyncio.open_unix_connection(
                    sock=ours, limit=BUFFER_BYTES
                )
                self.send(first)
                await self._pump(reader)
            finally:
                await self._end()
        return self._why(self._process.returncode)

    async def _pump(self, reader: asyncio.StreamReader) -> None:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(), name="engine: worker watch")
            drain = group.create_task(self._keep_stderr(), name="engine: worker stderr")
            await self._read(reader)
            watch.cancel()
            await self._exit()
            await drain

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Frames until the stream ends, which it does when the process dies."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = frames.LENGTH.unpack(await reader.readexactly(frames.LENGTH.size))
                packed = await reader.readexactly(length)
                self._silent_ticks = 0
                try:
                    values = frames.read_frame(packed)
                except ProtocolError as error:  # pragma: no cover - both ends are one version
                    self._verdict = f"it sent a broken frame ({error})"
                    return
                if values[0] == frames.BEAT:
                    self._check_pass(values[1])
                    continue
                if values[0] == frames.READY:
                    self._silence_max = SILENCE_TICKS
                self._receive(values)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._silent_ticks += 1
            if self._silent_ticks > self._silence_max:
                if self._silent_ticks <= STARVED_TICKS and self._is_starved():
                    continue
                self._verdict = f"it hung (silent for {self._silent_ticks * TICK_S:.0f} s)"
                self.kill()
                return

    def _is_starved(self) -> bool:
        return self._process is not None and wants_to_run(self._process.pid)

    def _check_pass(self, busy_s: float) -> None:
        if busy_s > PASS_MAX_S:
            self._verdict = f"its model hung (one pass took more than {PASS_MAX_S:.0f} s)"
            self.kill()

    async def _keep_stderr(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while received := await self._process.stderr.read(STDERR_TAIL_BYTES):
            self._stderr = (self._stderr + received)[-STDERR_TAIL_BYTES:]

    def kill(self) -> None:
        """End the process now. Its memory goes back to the system with it."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _exit(self) -> None:
        """The stream has ended. The process is given a moment to go with its own exit status:
        a signal sent now would find it dead, and lose the status that says why."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), EXIT_WAIT_S)
        self.kill()

    async def _end(self) -> None:
        self.kill()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_WAIT_S)

    def _why(self, status: int | None) -> str:
        if self._verdict:
            return self._verdict
        tail = self._stderr.decode("utf-8", "replace").strip().splitlines()
        said = f": {tail[-1][:300]}" if tail else ""
        if status is not None and status < 0:
            return f"it was killed by {signal.Signals(-status).name}{said}"
        return f"it exited with status {status}{said}"


def wants_to_run(pid: int) -> bool:
    """Is a thread of the process running, or waiting for a processor? False where the system does
    not say (other than Linux), or the process is gone."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[0] == "R":
                return True
    return False
