"""What goes out: to whom, by which connection, with which news on board.

A message to a peer goes over the link we dialled; an answer goes back the way the question came, so
that a probe tests one connection in both directions. Probes and heartbeats carry rumours along, and
first of all what is held against their receiver, if anything is (Lifeguard's buddy system): the
accused hears of an accusation with the first word that anybody says to it.

News of our own goes straight to every peer in a mesh of up to fifty; in a larger one, and for what
we only pass on, there is gossip.
"""

from __future__ import annotations

import dataclasses

from meshd.core.effects import Send
from meshd.core.membership.gossip import Rumours
from meshd.core.membership.kit import Kit
from meshd.core.membership.links import Links
from meshd.core.membership.pulse import Pulse
from meshd.core.membership.table import Row, Table
from protocol import limits
from protocol.messages import (
    Ack,
    ControlMessage,
    Gossip,
    Heartbeat,
    Nack,
    Ping,
    PingReq,
    Update,
)

Carrier = Ping | Ack | PingReq | Heartbeat
"""Messages that rumours ride on."""

GOSSIP = ("gossip", "")


class Post:
    """Appends Send effects to the shared list."""

    def __init__(self, kit: Kit, table: Table, links: Links, pulse: Pulse) -> None:
        self._config = kit.config
        self._agenda = kit.agenda
        self._rng = kit.rng
        self._effects = kit.effects
        self._table = table
        self._links = links
        self._pulse = pulse
        self._straight: dict[str, Update] = {}
        self.rumours = Rumours(kit.config)

    def send(self, node_id: str, message: ControlMessage) -> None:
        """To a peer, over our link to it, or its own to us."""
        self.reply(node_id, self._links.path(node_id), message)

    def probe(self, node_id: str, message: Ping | Ack | PingReq | Nack, now: float) -> None:
        """A word of a probe, to a peer over our link to it."""
        if isinstance(message, Ping | Ack):
            message = self._with_beat(node_id, message, now)
        self.send(node_id, message)

    def acknowledge(self, node_id: str, link: str | None, ack: Ack, now: float) -> None:
        """The answer to a probe, back the way that it came."""
        self.reply(node_id, link, self._with_beat(node_id, ack, now))

    def reply(self, node_id: str, link: str | None, message: ControlMessage) -> None:
        """Back the way a message came: its link, or None for the peer's own connection."""
        if isinstance(message, Carrier):
            updates = self._riders(node_id)
            if updates:
                message = dataclasses.replace(message, updates=updates)
        self._effects.append(Send(node_id, link, message))

    def knock(self, link: str, node_id: str | None, message: ControlMessage) -> None:
        """Over a link whose other end may be unknown."""
        self._effects.append(Send(node_id, link, message))

    def news(self, update: Update, now: float, *, straight: bool = False) -> None:
        """Something new: gossip it soon; `straight` also sends it to every peer right away."""
        self.rumours.add(update)
        soon = now + self._config.gossip_soon_s
        planned = self._agenda.at(GOSSIP)
        if planned is None or planned > soon:
            self._agenda.set(GOSSIP, soon)
        if straight and len(self._table.peers) <= self._config.straight_peers:
            self._straight[update.node_id] = update

    def flush(self) -> None:
        """Send the straight news of this input, one frame to each peer."""
        if self._straight:
            updates = tuple(self._straight.values())[: limits.UPDATES_MAX]
            self._straight.clear()
            for node_id in self._table.peers:
                self.send(node_id, Gossip(updates))

    def gossip(self, now: float) -> None:
        """One round: rumours to a few random peers. Sets the next one while any are left."""
        for node_id in self._table.peers.sample(self._config.gossip_fanout, self._rng):
            updates = self.rumours.take(limits.UPDATES_MAX, self._table.nodes)
            if updates:
                self.send(node_id, Gossip(updates))
        if self.rumours and self._table.peers:
            config, young = self._config, self.rumours.young(self._table.nodes)
            wait_s = config.gossip_soon_s if young else config.gossip_interval_s
            self._agenda.set(GOSSIP, now + wait_s)

    def tell(self, row: Row, claim: Update, now: float) -> None:
        """Tell a node one thing, now and then: what is held against it, or what it has wrong."""
        if now - row.told_at >= self._config.ask_interval_s:
            row.told_at = now
            self.send(row.node_id, Gossip((claim,)))

    def may_ask(self, row: Row, now: float) -> bool:
        """Whether it is time to ask this peer for something again; it is asked, if so."""
        if now - row.asked_at < self._config.ask_interval_s:
            return False
        row.asked_at = now
        return True

    def _with_beat(self, node_id: str, word: Ping | Ack, now: float) -> Ping | Ack:
        """The same, saying which of our records hold, so that no `Beat` need follow."""
        row = self._table.rows.get(node_id)
        if row is not None:
            row.beat_at = now
        capacity, load = self._pulse.capacity, self._pulse.sent
        return dataclasses.replace(
            word, capacity_version=capacity.version, load_sequence=load.sequence
        )

    def _riders(self, node_id: str) -> tuple[Update, ...]:
        rumours = self.rumours.take(self._config.piggyback_max, self._table.nodes)
        row = self._table.rows.get(node_id)
        if row is None or row.state == "alive":
            return rumours
        return (row.claim(), *[update for update in rumours if update.node_id != node_id])
