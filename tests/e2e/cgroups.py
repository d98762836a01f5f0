"""A box with little memory for a daemon: a control group of its own, of either version."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path("/sys/fs/cgroup")
V1 = TOP / "memory"


@dataclass(frozen=True)
class Box:
    """One control group."""

    folder: Path
    limit_file: str
    kills_file: str

    def put(self, pid: int) -> None:
        """Move a process in; what it starts from now on is born here."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        found = re.search(
            r"^oom_kill (\d+)$", (self.folder / self.kills_file).read_text(), re.MULTILINE
        )
        assert found is not None
        return int(found[1])


def whynot() -> str:
    """Why no box can be made here; empty where one can."""
    try:
        with box(1 << 30):
            return ""
    except OSError as error:
        return f"no control group with a memory limit can be made here: {error}"


@contextlib.contextmanager
def box(limit_bytes: int) -> Iterator[Box]:
    """A control group with a limit; it is empty again when this ends. Raises OSError."""
    name = f"meshd-test-{os.getpid()}-{os.urandom(3).hex()}"
    if V1.is_dir():
        made = Box(V1 / name, "memory.limit_in_bytes", "memory.oom_control")
    else:
        made = Box(TOP / name, "memory.max", "memory.events")
    made.folder.mkdir()
    try:
        (made.folder / made.limit_file).write_text(str(limit_bytes))
        yield made
    finally:
        made.folder.rmdir()
