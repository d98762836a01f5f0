"""Daemons of one mesh, one on each host of a LAN, watched together.

A fleet is made once for many tests, because starting ten daemons takes seconds of both cores. Each
test finds it whole (`repair`), and may kill, stop, cut and drop as it likes.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.e2e.daemons import Daemon, write_key
from tests.netns.networks import Host, Lan
from tests.netns.watch import POLL_S, Door, Watch

HTTP_PORT = 18_787
MESH_PORT = 18_788
"""The same on every host: each has addresses of its own."""

HTTP = f"127.0.0.1:{HTTP_PORT}"
MESH = f"0.0.0.0:{MESH_PORT}"

START_LIMIT_S = 60.0
"""Ten Pythons that start at once on two cores which others use too."""

WHOLE_LIMIT_S = 30.0
"""Until a fleet that starts or was repaired is whole: a loaded machine starts one in three
seconds, ten of them in fifteen."""

SETTLE_S = 1.0
"""A newcomer is known by hearsay before it is connected to everybody: only a connection that ends
is proof of a death, so what is killed sooner than this is noticed like a silent host."""


class Fleet:
    """`n1` on the first host, and so on. Use as a context manager.

    `flags` go to every daemon, `own` to the one of that name. With `start_all` False nobody runs
    until `start` is called.
    """

    def __init__(
        self,
        home: Path,
        lan: Lan,
        *flags: str,
        own: Mapping[str, tuple[str, ...]] | None = None,
        start_all: bool = True,
        poll_s: float = POLL_S,
    ) -> None:
        self.lan = lan
        self.key_file = write_key(home / "mesh.key")
        self._start_all = start_all
        shared = ("--mesh-key-file", str(self.key_file), *flags)
        self.nodes: dict[str, Daemon] = {}
        self._hosts: dict[str, Host] = {}
        for number, host in enumerate(lan.hosts, 1):
            name = f"n{number}"
            mine = (own or {}).get(name, ())
            self.nodes[name] = Daemon(home, name, *shared, *mine, netns=host.netns)
            self._hosts[name] = host
        doors = {name: Door(node.netns, HTTP_PORT) for name, node in self.nodes.items()}
        self.watch = Watch(doors, poll_s)

    def __enter__(self) -> Self:
        try:
            if self._start_all:
                self.start(*self.nodes)
            self.watch.__enter__()
            if self._start_all:
                self.wait_whole()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.__exit__()
        for node in self.nodes.values():
            with contextlib.suppress(AssertionError):
                node.kill()

    @property
    def names(self) -> list[str]:
        """All of them, running or not."""
        return list(self.nodes)

    def others(self, *but: str) -> list[str]:
        """All names except these."""
        return [name for name in self.nodes if name not in but]

    def host(self, name: str) -> Host:
        """Where it runs."""
        return self._hosts[name]

    def hosts(self, names: Iterable[str]) -> list[Host]:
        """Where they run."""
        return [self._hosts[name] for name in names]

    def peer(self, name: str) -> str:
        """What another's --peer says to find it."""
        return f"{self._hosts[name].address}:{MESH_PORT}"

    def start(self, *names: str) -> None:
        """Start these at once, and wait until each serves."""
        for name in names:
            self.nodes[name].start(http=HTTP, mesh=MESH)
        for name in names:
            self.nodes[name].wait_ready(START_LIMIT_S)

    def kill(self, *names: str) -> float:
        """kill -9 to these, as close together as can be; when the first was sent."""
        began = time.monotonic()
        self.signal(signal.SIGKILL, *names)
        for name in names:
            self.nodes[name].kill()
        return began

    def signal(self, number: signal.Signals, *names: str) -> float:
        """Send a signal to each; when the first was sent (monotonic s)."""
        began = time.monotonic()
        for name in names:
            process = self.nodes[name].process
            assert process is not None
            process.send_signal(number)
        return began

    def settle(self) -> None:
        """Until everybody is whole, and each has had time to dial each."""
        self.wait_whole()
        self.watch.stay(SETTLE_S)

    def wait_dead(self, gone: Iterable[str], since: float, limit_s: float) -> float:
        """Until every survivor shows each of `gone` dead: when the last of them first did."""
        gone = list(gone)
        left = self.others(*gone)
        what = f"{', '.join(gone)} dead in the eyes of all others"
        self._wait(lambda: self.watch.agree("dead", left, gone, since), limit_s, what)
        return max(self.watch.seen_at("dead", name, left, since) for name in gone)

    def wait_whole(self, limit_s: float = WHOLE_LIMIT_S) -> float:
        """Until everybody shows everybody alive, in answers given from now on; seconds waited."""
        now, names = time.monotonic(), self.names
        agree = self.watch.agree
        return self._wait(lambda: agree("alive", names, names, now), limit_s, "all whole")

    def _wait(self, claim: Callable[[], object], limit_s: float, what: str) -> float:
        """As the watch's `wait`; a failure also says which daemons have ended, and their words."""
        try:
            return self.watch.wait(claim, limit_s, what)
        except AssertionError as error:
            ended = [node for node in self.nodes.values() if node.process and node.process.poll()]
            words = [f"{node.name} ended: {node.log.read_text()[-2_000:]}" for node in ended]
            raise AssertionError("\n".join([str(error), *words])) from None

    def repair(self) -> None:
        """Mend cables, drop rules, wake the stopped, restart the ended, and wait until all are
        whole; after a restart, until each has had time to dial each."""
        self.lan.forbid()
        for host in self.lan.hosts:
            self.lan.mend(host)
        ended = []
        for name, node in self.nodes.items():
            if node.process is None or node.process.poll() is not None:
                ended.append(name)
            else:
                node.process.send_signal(signal.SIGCONT)
        self.start(*ended)
        if ended:
            self.settle()
        else:
            self.wait_whole()

    def chat(self, name: str, model: str, text: str = "Name a colour.") -> tuple[str, str]:
        """Ask one node for a short answer: which node gave it, and the answer."""
        body = {
            "model": model,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": text}],
        }
        status, headers, answer = self.nodes[name].ask_fully("POST", "/v1/chat/completions", body)
        assert status == 200, answer
        return headers["x-mesh-node"], answer["choices"][0]["message"]["content"]


def rss_bytes(node: Daemon) -> int:
    """Resident memory of a daemon now."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def row(fleet: Fleet, observer: str, subject: str) -> dict[str, Any]:
    """The latest row about the subject that the observer showed."""
    return fleet.watch.rows[observer][subject]
