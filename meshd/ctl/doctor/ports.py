"""Who holds a port of this machine: the name and number of the process, where it can be told.

Linux is read from /proc, whose tables name sockets by inode and processes by what they have open;
of other people's processes only root sees that. Elsewhere `lsof` is asked.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LISTENING = "0A"
"""TCP's LISTEN in /proc/net/tcp; UDP sockets have another word, and any will do."""

LSOF_MAX_S = 5.0
"""lsof looks at every open file of the machine."""


def holder_of(port: int, *, udp: bool = False) -> str:
    """`name (pid)` of who has the port open; empty when nobody, or nobody who can be seen."""
    proc = Path("/proc")
    if (proc / "net/tcp").exists():
        kinds = ("udp", "udp6") if udp else ("tcp", "tcp6")
        inodes = set[str]()
        for kind in kinds:
            with suppress(OSError):
                inodes |= inodes_of((proc / "net" / kind).read_text(), port, udp=udp)
        return ", ".join(_holders(proc, inodes))
    word = f"-iUDP:{port}" if udp else f"-iTCP:{port}"
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program
            ["lsof", "-nP", word, "-Fpc"],  # noqa: S607 - where the system has it
            capture_output=True,
            text=True,
            check=False,
            timeout=LSOF_MAX_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ", ".join(read_lsof(done.stdout))


def inodes_of(table: str, port: int, *, udp: bool = False) -> set[str]:
    """Inodes of the sockets at a local port, out of a table of /proc/net."""
    found = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or not (udp or fields[3] == LISTENING):
            continue
        if int(fields[1].rpartition(":")[2], 16) == port:
            found.add(fields[9])
    return found


def read_lsof(printed: str) -> list[str]:
    """`name (pid)` of each process in the output of `lsof -Fpc`: `p` and `c` lines in turn."""
    pid, found = "", []
    for line in printed.splitlines():
        if line.startswith("p"):
            pid = line[1:]
        elif line.startswith("c"):
            found.append(f"{line[1:]} ({pid})")
    return found


def _holders(proc: Path, inodes: set[str]) -> Iterable[str]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            if any(_target(link) in wanted for link in (process / "fd").iterdir()):
                yield f"{(process / 'comm').read_text().strip()} ({process.name})"


def _target(link: Path) -> str:
    """Where a link leads; nowhere when it was closed while we looked."""
    try:
        return str(link.readlink())
    except OSError:
        return ""
