"""The parts of membership, wired together, and what each alarm sets off.

State changes are not acted on where they happen: `beliefs` notes them in the table, and `settle`,
at the end of every input, draws the consequences for connections, probes and the people who watch.
So no rule has to know who else cares.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from meshd.core.membership.agenda import Key
from meshd.core.membership.beliefs import Beliefs
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.digest import digest_of
from meshd.core.membership.gossip import pull_interval_s
from meshd.core.membership.health import LocalHealth
from meshd.core.membership.inbox import Inbox
from meshd.core.membership.kit import Kit
from meshd.core.membership.link import NEVER, Link
from meshd.core.membership.links import Links
from meshd.core.membership.owner import Owner
from meshd.core.membership.post import Post
from meshd.core.membership.probe import Prober
from meshd.core.membership.pulse import Pulse
from meshd.core.membership.table import GONE, LIVING, Change, Row, Table
from meshd.core.membership.turns import Turns
from protocol.load import CapacityRecord, LoadRecord
from protocol.messages import LoadWanted, Pull

PROBE = ("probe", "")
BEAT = ("beat", "")
PULL = ("pull", "")

JUDGING = frozenset({"ack", "silence"})
"""Alarms that count silence against somebody: put back when this process was late itself."""


class Clockwork:
    """All parts of one node. `row` is its own."""

    def __init__(
        self,
        row: Row,
        capacity: CapacityRecord,
        load: LoadRecord,
        *,
        config: MembershipConfig,
        rng: Random,
        now: float,
    ) -> None:
        self.kit = kit = Kit(config, rng)
        self.health = LocalHealth(config.health_max)
        self.table = Table(row.node_id, config.members_max)
        self.owner = Owner(row)
        self.pulse = Pulse(config, capacity, load, now)
        self.links = Links(kit)
        self.post = Post(kit, self.table, self.links, self.pulse)
        self.beliefs = Beliefs(kit, self.table, self.post, self.health, now=now)
        turns = Turns(row.node_id, config.turn_interval_s, row.incarnation / 1_000 - now)
        self.prober = Prober(kit, self.table, self.health, turns, self.post.probe)
        self.inbox = Inbox(
            kit,
            self.table,
            self.owner,
            self.beliefs,
            prober=self.prober,
            pulse=self.pulse,
            links=self.links,
            post=self.post,
        )
        self.table.add(row)
        self.table.changes.clear()
        self.show_own(now)
        self._handlers = self._all_handlers()
        kit.agenda.set(PROBE, now + rng.random() * config.turn_interval_s)
        kit.agenda.set(BEAT, now + rng.random() * config.beat_look_s)
        kit.agenda.set(PULL, now + rng.random() * config.pull_interval_s)

    def ring(self, key: Key, now: float) -> None:
        """An alarm is due. Its consequences are drawn before the next one rings: a node found dead
        must not fail a probe in the same breath."""
        self._handlers[key[0]](key[1], now)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Draw the consequences of what has changed, and send what must go at once."""
        table = self.table
        for change in table.changes:
            self._follow(change, now)
        table.changes.clear()
        for node_id in table.dropped:
            self.prober.drop(node_id)
            self.kit.agenda.cancel(("again", node_id))
            self.links.forget(node_id, now)
            self.post.rumours.forget(node_id)
            self.kit.agenda.cancel(("tombstone", node_id))
        table.dropped.clear()
        for node_id in self.beliefs.doubted:
            self.prober.ask(node_id, now)
        self.beliefs.doubted.clear()
        for node_id in self.links.moved:
            self._show_address(node_id)
        self.links.moved.clear()
        self.post.flush()

    def was_late(self, late_s: float, now: float) -> None:
        """This process was kept from running for so long past its own deadline."""
        self.health.worse()
        self.kit.agenda.delay(JUDGING, late_s)
        self.beliefs.delay(late_s, now)
        if late_s > self.kit.config.pause_s:
            self.wake(now)

    def wake(self, now: float) -> None:
        """After a sleep: believe no age, judge nobody yet, ask everybody how they are."""
        self.beliefs.wake(now)
        self.prober.restart(now)
        for node_id in self.table.peers:
            self.post.send(node_id, LoadWanted(0))
            self.table.rows[node_id].beat_at = NEVER
        for node_id in self.table.rows:
            self.links.hurry(node_id, now)
        self.kit.agenda.set(BEAT, now)

    def show_own(self, now: float) -> None:
        """Bring this node's own row up to date."""
        row = self.owner.row
        row.load, row.capacity = self.pulse.load, self.pulse.capacity
        row.load_at = row.heard_at = now
        self.table.touch(row)

    def say_hello(self, link: Link) -> None:
        """First words on a link."""
        self.post.knock(link.name, link.node_id, self.inbox.hello(answer_wanted=True))

    def _all_handlers(self) -> dict[str, Callable[[str, float], None]]:
        return {
            "probe": lambda _, now: self.prober.turn(now),
            "ack": self.prober.unacked,
            "silence": self._probe_failed,
            "again": self._probe_again,
            "errand": lambda nonce, now: self.prober.errand_over(int(nonce), now),
            "errand late": lambda nonce, _: self.prober.errand_late(int(nonce)),
            "suspicion": self.beliefs.verdict,
            "tombstone": lambda node_id, _: self.beliefs.expire(node_id),
            "gossip": lambda _, now: self.post.gossip(now),
            "beat": lambda _, now: self._beat(now),
            "pull": lambda _, now: self._pull(now),
            "link": self._link_alarm,
        }

    def _follow(self, change: Change, now: float) -> None:
        """One row changed its state, or its addresses."""
        row, before = change.row, change.before
        lives, lived = row.state in LIVING, before in LIVING
        if lives:
            self.links.seek(row.node_id, row.endpoints, now)
        if lives and not lived:
            self.prober.joined(row.node_id)
            self.kit.say("info", f"{row.name} {'joined' if before is None else 'is back'}")
            self.post.send(row.node_id, Pull(digest_of(self.table)))
        elif lived and row.state in GONE:
            self.prober.drop(row.node_id)
            self.kit.agenda.cancel(("again", row.node_id))
            self.kit.say(
                "warning" if row.state == "dead" else "info",
                f"{row.name} is dead: {row.reason}" if row.state == "dead" else f"{row.name} left",
            )
            if row.state == "dead":
                self.links.lose(row.node_id, now)
            else:
                self.links.forget(row.node_id, now)

    def _show_address(self, node_id: str) -> None:
        row = self.table.rows.get(node_id)
        if row is not None:
            row.address = self.links.address(node_id)
            self.table.touch(row)

    def _probe_failed(self, target: str, now: float) -> None:
        judging = self.beliefs.judging(now)
        helpers = self.prober.unanswered(target, now, judging=judging)
        if judging:
            self.beliefs.unanswered(self.table.rows[target], helpers, now)
        again_s = self.health.stretch(self.kit.config.probe_interval_s)
        self.kit.agenda.set(("again", target), now + again_s)

    def _probe_again(self, target: str, now: float) -> None:
        """A suspect gets another chance, and the suspicion another check, each interval."""
        if target in self.table.suspects:
            self.prober.ask(target, now)

    def _beat(self, now: float) -> None:
        config, peers, owner = self.kit.config, self.table.peers, self.owner
        self.kit.agenda.set(BEAT, now + config.beat_look_s)
        full = self.pulse.renew(now) or len(peers) > config.straight_peers
        word = self.pulse.heartbeat if full else self.pulse.beat
        message = word(owner.row.incarnation)
        for node_id in peers.window(self.pulse.next_place(len(peers)), config.straight_peers):
            row = self.table.rows[node_id]
            if full or now - row.beat_at >= config.beat_interval_s:
                row.beat_at = now
                self.post.send(node_id, message)
        self.show_own(now)

    def _pull(self, now: float) -> None:
        config = self.kit.config
        interval_s = pull_interval_s(self.table.nodes, config.pull_interval_s)
        self.kit.agenda.set(PULL, now + interval_s)
        for node_id in self.table.peers.sample(1, self.kit.rng):
            self.post.send(node_id, Pull(digest_of(self.table)))

    def _link_alarm(self, name: str, now: float) -> None:
        link = self.links.alarm(name, now)
        if link is not None:
            self.say_hello(link)
