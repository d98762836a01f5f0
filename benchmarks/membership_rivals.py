"""kinship and serf on the same network, told to do the same: what ours is measured beside.

Each runs one process per host of the LAN, with its fastest preset (`local` for both). Nobody polls
them: kinship's processes print each event of its own stream (see `membership_kinship_node`), serf's
agents log theirs, and a line is dated when it arrives here. Our own daemons are polled, so what
polling costs in time counts against us.
"""

from __future__ import annotations

import base64
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.netns.fleet import SETTLE_S
from tests.netns.networks import Host, Lan
from tests.netns.sightings import Sightings

PORT = 7_946
WHOLE_LIMIT_S = 60.0
"""serf's agents repair what gossip missed every 15 s."""

PEERS_PYTHON = Path(".peers/bin/python")
KINSHIP_NODE = "benchmarks/membership_kinship_node.py"
KEY = base64.b64encode(bytes(range(32))).decode()

SERF_EVENT = re.compile(r"EventMember(Join|Failed|Leave): (\S+) ")
SERF_STATES = {"Join": "alive", "Failed": "dead", "Leave": "left"}

Reader = Callable[[str], tuple[str, str] | None]
"""A line of a process's output as (about whom, state), None for any other line."""


@dataclass(frozen=True, slots=True)
class Rival:
    """How one node of a rival is started, and how its words are read."""

    name: str
    command: Callable[[str, Host, str | None], list[str]]
    """Node name, its host, and the address of the node to join (None for the first)."""
    read: Reader


def kinship() -> Rival | None:
    """None when it is not installed in the environment of the rivals."""
    if not PEERS_PYTHON.exists():
        return None
    probe = subprocess.run([PEERS_PYTHON, "-c", "import kinship"], capture_output=True, check=False)
    return Rival("kinship", _kinship_command, _read_kinship) if probe.returncode == 0 else None


def serf() -> Rival | None:
    """None when it is not installed."""
    return Rival("serf", _serf_command, _read_serf) if shutil.which("serf") else None


def _kinship_command(name: str, host: Host, seed: str | None) -> list[str]:
    bind = f"{host.address}:{PORT}"
    seeds = [f"{seed}:{PORT}"] if seed else []
    return [str(PEERS_PYTHON), "-u", KINSHIP_NODE, name, bind, KEY, *seeds]


def _read_kinship(line: str) -> tuple[str, str] | None:
    words = line.split()
    return (words[1], words[2]) if len(words) == 3 and words[0] == "saw" else None


def _serf_command(name: str, host: Host, seed: str | None) -> list[str]:
    join = [f"-retry-join={seed}:{PORT}", "-retry-interval=1s"] if seed else []
    return [
        *("serf", "agent", f"-node={name}", f"-bind={host.address}:{PORT}", "-profile=local"),
        *("-rpc-addr=127.0.0.1:7373", f"-encrypt={KEY}", "-log-level=info", *join),
    ]


def _read_serf(line: str) -> tuple[str, str] | None:
    found = SERF_EVENT.search(line)
    return (found[2], SERF_STATES[found[1]]) if found else None


class Crew:
    """A mesh of one rival's nodes: `n1` on the first host, and so on. Use as a context manager."""

    def __init__(self, rival: Rival, lan: Lan) -> None:
        self._rival = rival
        self.lan = lan
        self.hosts = {f"n{number}": host for number, host in enumerate(lan.hosts, 1)}
        self.names = list(self.hosts)
        self.watch = Sightings()
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Crew:
        try:
            self.start("n1")
            self.start(*self.others("n1"))
            self.wait_whole()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(10)
        for reader in self._readers:
            reader.join(10)

    def others(self, *but: str) -> list[str]:
        """All names except these."""
        return [name for name in self.names if name not in but]

    def pids(self) -> list[int]:
        """Of all that run."""
        return [process.pid for process in self.processes.values() if process.poll() is None]

    def start(self, *names: str) -> None:
        """Start these; each joins the first node, or the second when it is the first."""
        for name in names:
            host = self.hosts[name]
            seed = self.hosts["n2" if name == "n1" else "n1"].address
            first = name == "n1" and not self.processes
            command = self._rival.command(name, host, None if first else seed)
            process = subprocess.Popen(
                ["ip", "netns", "exec", host.netns, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.processes[name] = process
            reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
            reader.start()
            self._readers.append(reader)

    def restart(self, *names: str) -> None:
        """Bring back what was killed."""
        self.start(*names)

    def kill(self, name: str) -> float:
        """kill -9; when (monotonic s)."""
        began = time.monotonic()
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(10)
        self.watch.forget(name)
        return began

    def wait_dead(self, gone: Sequence[str], since: float, limit_s: float) -> float:
        """Until every other node holds these for dead: when the last of them did."""
        left = self.others(*gone)
        watch = self.watch
        watch.wait(lambda: watch.agree("dead", left, gone), limit_s, f"{gone} dead to all")
        return max(watch.seen_at("dead", name, left, since) for name in gone)

    def wait_whole(self) -> None:
        """Until everybody holds everybody else for alive."""
        self.watch.wait(self._whole, WHOLE_LIMIT_S, f"{self._rival.name} whole")

    def settle(self) -> None:
        """Until whole, and a while more."""
        self.wait_whole()
        self.watch.stay(SETTLE_S)

    def _whole(self) -> bool:
        return all(self.watch.agree("alive", [name], self.others(name)) for name in self.names)

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        lines: Iterable[str] = process.stdout
        for line in lines:
            seen = self._rival.read(line)
            if seen is not None:
                self.watch.note(name, dict([seen]), time.monotonic())
        process.stdout.close()
