"""A scripted machine, and control planes that drive it over memory or over sockets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import zmq

from meshd.core.effects import Dial, Effect, Notice
from meshd.core.membership.member import MeshView
from meshd.net.control import ControlPlane
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.loopback import LoopbackTransport, Network
from meshd.net.trust import Identity, MeshKey, derive_mesh_key, identity_of
from protocol.load import LoadRecord
from protocol.messages import Endpoint
from tests.net.patience import wait_for

ANNA = identity_of(b"a" * 32)
BERT = identity_of(b"b" * 32)
KEY = derive_mesh_key(b"k" * 32)
LOAD = LoadRecord(1, 0, 0, 1, 0, "normal", accepting=True, models=())

Context = zmq.Context[zmq.Socket[bytes]]


class Script:
    """A machine that remembers each call and answers with the effects it was given for it."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Callable[..., Sequence[Effect]]] = {}
        self.due = float("inf")
        self.version = 0
        self.links: tuple[str, ...] = ()

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of that name, without the time."""
        return [call[1:] for call in self.calls if call[0] == name]

    def _called(self, name: str, *arguments: Any) -> Sequence[Effect]:
        self.calls.append((name, *arguments))
        answer = self.answers.get(name)
        return answer(*arguments) if answer is not None else ()

    def receive(
        self,
        sender: str,
        boot_id: int,
        sequence: int,
        message: Any,
        now: float,
        link: str | None = None,
    ) -> Sequence[Effect]:
        return self._called("receive", sender, boot_id, sequence, message, link)

    def candidate(
        self, link: str, now: float, *, node_id: str | None = None, typed: bool = False
    ) -> Sequence[Effect]:
        return self._called("candidate", link, node_id, typed)

    def link_up(self, link: str, now: float, host: str = "") -> Sequence[Effect]:
        return self._called("link_up", link)

    def link_down(self, link: str, cause: str, now: float) -> Sequence[Effect]:
        return self._called("link_down", link, cause)

    def relay_heard(self, node_id: str, now: float) -> Sequence[Effect]:
        return self._called("relay_heard", node_id)

    def relay_failed(self, node_id: str, cause: str, now: float) -> Sequence[Effect]:
        return self._called("relay_failed", node_id, cause)

    def report(self, load: LoadRecord, now: float) -> Sequence[Effect]:
        return self._called("report", load)

    def announce(self, capacity: Any, now: float) -> Sequence[Effect]:
        return self._called("announce", capacity)

    def evict(self, node_ids: Collection[str], now: float) -> Sequence[Effect]:
        return self._called("evict", node_ids)

    def start_over(self, now: float) -> Sequence[Effect]:
        return self._called("start_over")

    def readdress(self, endpoints: tuple[Endpoint, ...], now: float) -> Sequence[Effect]:
        return self._called("readdress", endpoints)

    def woke(self, now: float) -> Sequence[Effect]:
        return self._called("woke")

    def leave(self, now: float) -> Sequence[Effect]:
        return self._called("leave")

    def tick(self, now: float) -> Sequence[Effect]:
        self.due = float("inf")
        return self._called("tick")

    def deadline(self) -> float:
        return self.due

    def view(self) -> MeshView:
        return MeshView(self.node_id, {}, self.version)

    def remembered(self) -> tuple[str, ...]:
        return self.links


class Node:
    """A control plane and its script; everything is put away by `close`."""

    def __init__(self, plane: ControlPlane, script: Script, notices: list[Notice]) -> None:
        self.plane = plane
        self.script = script
        self.notices = notices

    @property
    def link(self) -> str:
        return f"127.0.0.1:{self.plane.port}"

    def start(self) -> None:
        self.plane.bind()
        self.plane.start(self.script)

    def dial(self, link: str) -> None:
        """Have the machine ask for a link."""
        self.script.answers["candidate"] = lambda asked, *_: [Dial(asked)]
        self.plane.candidate(link)
        wait_for(lambda: (link,) in self.script.named("link_up"))

    def say(self, *effects: Effect) -> None:
        """Have the machine ask for effects."""
        self.script.answers["report"] = lambda *_: effects
        self.plane.report(LOAD)


class Nodes:
    """Makes nodes, over memory or over sockets."""

    def __init__(self, state_dir: Path, context: Context, gatekeeper: Gatekeeper) -> None:
        self.state_dir = state_dir
        self.context = context
        self.gatekeeper = gatekeeper
        self.network = Network()
        self.made: list[Node] = []

    def memory(self, identity: Identity = ANNA, **options: Any) -> Node:
        transport = LoopbackTransport(self.network, identity, KEY)
        return self.make(identity, KEY, transport=transport, **options)

    def real(self, identity: Identity, key: MeshKey = KEY, **options: Any) -> Node:
        return self.make(identity, key, **options)

    def make(self, identity: Identity, key: MeshKey, **options: Any) -> Node:
        notices: list[Notice] = []
        arguments: dict[str, Any] = {
            "boot_id": 42,
            "bind_host": "127.0.0.1",
            "bind_port": 0,
            "context": self.context,
            "gatekeeper": self.gatekeeper,
            "state_dir": self.state_dir / identity.node_id,
            "on_notice": notices.append,
        }
        plane = ControlPlane(identity, key, **(arguments | options))
        node = Node(plane, Script(identity.node_id), notices)
        self.made.append(node)
        return node
