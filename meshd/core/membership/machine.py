"""The membership machine: what happens comes in, what to do about it goes out.

This is the whole boundary between the rules and the world. Each method takes the time and returns
effects for the shell to carry out in order; between calls nothing happens, and `deadline()` says
when to call `tick` if nothing else does. There is no clock, socket or thread in here, so a
simulator can run a thousand of these machines, and does (`tests/sim`).

The parts: `table` holds rows, `beliefs` alone changes anybody's state, `inbox` reads messages,
`probe` asks, `pulse` and `owner` speak for this node, `links` decides on connections, `post` and
`gossip` send, `agenda` keeps every alarm, and `clockwork` wires them and answers the alarms.

The machine also watches itself. The agenda says when it ought to have been called; being called
much later means that this process was starved or stopped, and then the others cannot be blamed for
their silence.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from random import Random

from meshd.core.effects import Effect, ViewChanged
from meshd.core.membership.clockwork import BEAT, Clockwork
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.inbox import Frame
from meshd.core.membership.member import MeshView
from meshd.core.membership.table import Row
from protocol.frozen import frozen
from protocol.load import CapacityRecord, LoadRecord
from protocol.messages import ControlMessage, Endpoint, Gossip


@frozen
class Myself:
    """Who this node is, in this run."""

    node_id: str
    name: str
    public_key: str
    boot_id: int
    endpoints: tuple[Endpoint, ...]


class Membership:
    """One node's membership. `now` is monotonic seconds; a step back counts as no time passed.
    `wall_ms` is used once, to seed the incarnation."""

    def __init__(
        self,
        myself: Myself,
        capacity: CapacityRecord,
        load: LoadRecord,
        *,
        config: MembershipConfig,
        rng: Random,
        now: float,
        wall_ms: int,
    ) -> None:
        row = Row(
            node_id=myself.node_id,
            name=myself.name,
            public_key=myself.public_key,
            state="alive",
            incarnation=wall_ms,
            boot_id=myself.boot_id,
            endpoints=myself.endpoints,
            changed_at=now,
            reason="started",
        )
        self._config = config
        self._parts = Clockwork(row, capacity, load, config=config, rng=rng, now=now)
        self._now = now
        self._left = False
        self._announced = False
        self._promise = self._parts.kit.agenda.next()

    # What the network brings

    def receive(  # noqa: PLR0917 - an envelope's fields, in their order
        self,
        sender: str,
        boot_id: int,
        sequence: int,
        message: ControlMessage,
        now: float,
        link: str | None = None,
    ) -> list[Effect]:
        """A frame of a proven sender; `link` is our own link, if it came back over that."""
        now = self._begin(now)
        if not self._left:
            frame = Frame(sender, boot_id, sequence, message, link)
            if sender == self._parts.table.self_id:
                self._parts.inbox.echo(frame, now)
            else:
                self._parts.inbox.read(frame, now)
        return self._end(now)

    def candidate(
        self, link: str, now: float, *, node_id: str | None = None, typed: bool = False
    ) -> list[Effect]:
        """An address to try: an mDNS find (`node_id` known), or one that a person typed or that
        was remembered (retried for ever)."""
        now = self._begin(now)
        if node_id is not None and not typed:
            if node_id != self._parts.table.self_id:
                self._parts.links.found(link, node_id, now)
        elif not self._parts.links.typed(link, now):
            text = (
                f"the peer {link} is not tried: it is this node itself, or there are already"
                f" {self._config.typed_max} typed and remembered peers."
            )
            self._parts.kit.say("warning", text)
        return self._end(now)

    def link_up(self, link: str, now: float, host: str = "") -> list[Effect]:
        """The handshake of an outgoing connection finished; `host` is the address that a link with
        a name led to."""
        now = self._begin(now)
        up = self._parts.links.up(link, now, host)
        if up is not None:
            self._parts.say_hello(up)
        return self._end(now)

    def link_down(self, link: str, cause: str, now: float) -> list[Effect]:
        """An outgoing connection ended (`eof`, `timeout`), or an attempt failed (`refused`,
        `unreachable`, `timeout`, `handshake`: the other end holds another mesh key, or is no
        mesh port at all)."""
        now = self._begin(now)
        down = self._parts.links.down(link, cause, now)
        row = self._parts.table.rows.get(down.node_id or "")
        if row is not None:
            if down.gone:
                self._parts.beliefs.proven_gone(row, down.eof_at, now)
            self._parts.prober.ask(row.node_id, now)
        if down.wrong_key:
            text = (
                f"{link} answers, but not as a member of this mesh. Either it is no mesh port (8788"
                " unless --mesh there says otherwise; 8787 is for clients), or that machine holds"
                " another mesh key: give both the same mesh key file, or pair them."
            )
            self._parts.kit.say("warning", text)
        return self._end(now)

    def relay_heard(self, node_id: str, now: float) -> list[Effect]:
        """The peer's relay socket, and the loop behind it, answered: it lives, however silent its
        control socket."""
        now = self._begin(now)
        row = self._parts.table.rows.get(node_id)
        if row is not None and node_id != self._parts.table.self_id:
            self._parts.beliefs.contact(row, now)
            self._parts.links.hurry(node_id, now)
        return self._end(now)

    def relay_failed(self, node_id: str, cause: str, now: float) -> list[Effect]:
        """A request to the peer failed on its way. Proves nothing, but is a reason to ask."""
        now = self._begin(now)
        self._parts.prober.ask(node_id, now)
        return self._end(now)

    def evict(self, node_ids: Collection[str], now: float) -> list[Effect]:
        """Exactly these nodes are shut out from now on: revoked, or of another mesh. They leave the
        view and what this node tells at once, without suspicion, and nobody can bring them back."""
        now = self._begin(now)
        self._parts.beliefs.shut_out(frozenset(node_ids) - {self._parts.table.self_id})
        return self._end(now)

    def start_over(self, now: float) -> list[Effect]:
        """This node is in another mesh from now on: it knows nobody, and tells nobody there of the
        members of the last one, who would be taken for members."""
        now = self._begin(now)
        self._parts.beliefs.start_over()
        return self._end(now)

    # What this machine brings

    def report(self, load: LoadRecord, now: float) -> list[Effect]:
        """A reading of the own load, with any sequence: this machine numbers what it sends."""
        now = self._begin(now)
        due = self._parts.pulse.report(load, now)
        planned = self._parts.kit.agenda.at(BEAT)
        if due is not None and planned is not None and due < planned:
            self._parts.kit.agenda.set(BEAT, due)
        if due is not None:  # the rest is shown with the next look at heartbeats
            self._parts.show_own(now)
        return self._end(now)

    def announce(self, capacity: CapacityRecord, now: float) -> list[Effect]:
        """What this machine is or offers, with any version: this machine numbers it."""
        now = self._begin(now)
        if self._parts.pulse.announce(capacity):
            self._parts.show_own(now)
            for node_id in self._parts.table.peers.window(0, self._config.straight_peers):
                self._parts.post.send(node_id, self._parts.pulse.capacity_message())
        return self._end(now)

    def readdress(self, endpoints: tuple[Endpoint, ...], now: float) -> list[Effect]:
        """The addresses of this machine, best first."""
        now = self._begin(now)
        row = self._parts.owner.row
        if endpoints != row.endpoints:
            row.endpoints = endpoints
            self._parts.owner.rise()
            self._parts.table.touch(row)
            self._parts.post.news(row.claim(), now, straight=True)
        return self._end(now)

    def woke(self, now: float) -> list[Effect]:
        """The machine slept: cached ages are worthless, and nobody is judged before everybody was
        asked."""
        now = self._begin(now)
        self._parts.wake(now)
        return self._end(now)

    def leave(self, now: float) -> list[Effect]:
        """Tell everybody that this node goes on purpose. Nothing is sent after that."""
        now = self._begin(now)
        if not self._left:
            self._parts.table.move(self._parts.owner.row, "left", "leaving", now)
            self._parts.table.changes.clear()
            for node_id in self._parts.table.peers:
                self._parts.post.send(node_id, Gossip((self._parts.owner.row.claim(),)))
        effects = self._end(now)
        self._left = True
        return effects

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        now = self._begin(now)
        while not self._left and (key := self._parts.kit.agenda.pop(now)) is not None:
            self._parts.ring(key, now)
        return self._end(now)

    # What others may know

    def deadline(self) -> float:
        """When to call `tick` at the latest (monotonic s)."""
        return math.inf if self._left else self._promise

    def view(self) -> MeshView:
        """Everybody this node knows: the same object until something changes."""
        self._announced = False
        return self._parts.table.view()

    def remembered(self) -> tuple[str, ...]:
        """Links that have answered, the latest heard first: worth trying at the next start."""
        rows, answered = self._parts.table.rows, self._parts.links.answered_links()
        ranked = sorted(answered, key=lambda node_id: -rows[node_id].heard_at)
        return tuple([answered[node_id] for node_id in ranked[: self._config.remembered_max]])

    # Every input

    def _begin(self, now: float) -> float:
        """The time to work with. Notices when this process was kept from running."""
        self._now = now = max(now, self._now)
        late_s = now - self._promise
        if late_s > self._config.late_s and not self._left:
            self._parts.was_late(late_s, now)
        return now

    def _end(self, now: float) -> list[Effect]:
        """Draw the consequences of this input, and hand the effects over."""
        parts = self._parts
        if self._left:
            return []
        parts.settle(now)
        if parts.table.stale and not self._announced:
            self._announced = True
            parts.kit.effects.append(ViewChanged())
        self._promise = max(now, parts.kit.agenda.next())
        effects = list(parts.kit.effects)
        parts.kit.effects.clear()
        return effects
