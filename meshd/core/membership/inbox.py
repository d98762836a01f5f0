"""What each message means.

Frames reach this point with a proven sender. First they are sorted by *run*: a node that restarts
gets a new boot id, and only a Hello, which tells everything, can introduce a run; whatever else
comes from a run that is not known is answered with "who are you?". Within a run each frame counts
once (`replay`). Then its message is read; and whatever it says, it is a sign of life.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from meshd.core.membership.beliefs import Beliefs
from meshd.core.membership.digest import chunks, compare, digest_of
from meshd.core.membership.kit import Kit
from meshd.core.membership.links import Links
from meshd.core.membership.owner import Owner
from meshd.core.membership.post import Post
from meshd.core.membership.probe import Prober
from meshd.core.membership.pulse import Pulse
from meshd.core.membership.replay import ReplayWindow
from meshd.core.membership.roundtrip import smooth
from meshd.core.membership.table import Row, Table
from protocol.frozen import frozen
from protocol.load import CapacityRecord, LoadRecord
from protocol.messages import (
    Ack,
    Beat,
    Capacity,
    CapacityWanted,
    ControlMessage,
    Gossip,
    Heartbeat,
    Hello,
    LoadWanted,
    Nack,
    Ping,
    PingReq,
    Pull,
    Update,
)

Handler = Callable[[Row, str | None, Any, float], None]
"""Takes the sender's row, the link to answer on, the message, and the time."""


@frozen
class Frame:
    """One frame as it arrived. `link` is our own link, if it came back over that."""

    sender: str
    boot_id: int
    sequence: int
    message: ControlMessage
    link: str | None


class Inbox:
    """Reads messages and has the others act on them."""

    def __init__(
        self,
        kit: Kit,
        table: Table,
        owner: Owner,
        beliefs: Beliefs,
        *,
        prober: Prober,
        pulse: Pulse,
        links: Links,
        post: Post,
    ) -> None:
        self._kit = kit
        self._config = kit.config
        self._table = table
        self._owner = owner
        self._beliefs = beliefs
        self._prober = prober
        self._pulse = pulse
        self._links = links
        self._post = post
        self._strangers: OrderedDict[str, float] = OrderedDict()
        self._handlers: dict[type[Any], Handler] = {
            Hello: self._hello,
            Heartbeat: self._heartbeat,
            Beat: self._beat,
            Capacity: self._capacity,
            CapacityWanted: self._capacity_wanted,
            LoadWanted: self._load_wanted,
            Ping: self._ping,
            Ack: self._ack,
            PingReq: self._ping_req,
            Nack: self._nack,
            Gossip: self._gossip,
            Pull: self._pull,
        }

    def read(self, frame: Frame, now: float) -> None:
        """Take in one frame from another node."""
        if self._beliefs.ignores(frame.sender):
            return
        row = self._table.rows.get(frame.sender)
        if row is None or row.boot_id != frame.boot_id:
            row = self._meet(frame, row, now)
            if row is None:
                return
        if row.window is None:
            row.window = ReplayWindow()
        if not row.window.accept(frame.sequence):
            return
        self._handlers[type(frame.message)](row, frame.link, frame.message, now)
        self._beliefs.contact(row, now)
        if not row.believed:
            self._prober.ask(row.node_id, now)
        if frame.link is not None:
            self._links.answered(frame.link, frame.sender, now)

    def hello(self, *, answer_wanted: bool) -> Hello:
        """Everything about this node."""
        claim = self._owner.row.claim()
        return Hello(claim, self._pulse.capacity, self._pulse.sent, answer_wanted)

    def echo(self, frame: Frame, now: float) -> None:
        """A frame from this node's own identity: our own voice, or a clone's."""
        if frame.boot_id == self._owner.row.boot_id:
            if frame.link is not None:
                self._links.ourselves(frame.link, now)
        elif isinstance(frame.message, Hello):
            self._owner_hears(frame.message.myself, now, teller=None)

    # Who speaks

    def _meet(self, frame: Frame, row: Row | None, now: float) -> Row | None:
        """A run that is not known: its row, if this frame introduces it."""
        sender, message = frame.sender, frame.message
        if isinstance(message, Hello):
            claim = message.myself
            if claim.node_id != sender or claim.boot_id != frame.boot_id:
                return None
            met = self._beliefs.introduce(claim, now)
            if met is None and message.answer_wanted:
                self._post.reply(sender, frame.link, self.hello(answer_wanted=False))
            return met
        if isinstance(message, Ping) and message.target == self._table.self_id:
            self._post.acknowledge(sender, frame.link, Ack(message.nonce, message.target), now)
        if self._may_ask_stranger(sender, row, now):
            self._post.reply(sender, frame.link, self.hello(answer_wanted=True))
        return None

    def _may_ask_stranger(self, sender: str, row: Row | None, now: float) -> bool:
        if row is not None:
            return now >= row.quarantine_until and self._post.may_ask(row, now)
        if now - self._strangers.get(sender, float("-inf")) < self._config.ask_interval_s:
            return False
        self._strangers[sender] = now
        self._strangers.move_to_end(sender)
        if len(self._strangers) > self._config.strangers_max:
            self._strangers.popitem(last=False)
        return True

    # What it says of itself

    def _hello(self, row: Row, link: str | None, hello: Hello, now: float) -> None:
        claim = hello.myself
        if claim.node_id != row.node_id or claim.boot_id != row.boot_id:
            return
        self._beliefs.introduce(claim, now)
        self._take_capacity(row, hello.capacity)
        self._take_load(row, hello.load, now)
        if hello.answer_wanted:
            self._post.reply(row.node_id, link, self.hello(answer_wanted=False))

    def _heartbeat(self, row: Row, link: str | None, heartbeat: Heartbeat, now: float) -> None:
        self._take_load(row, heartbeat.load, now)
        self._pulse_of(row, link, heartbeat.incarnation, heartbeat.capacity_version, now)
        self._hear(row, heartbeat.updates, now)

    def _beat(self, row: Row, link: str | None, beat: Beat, now: float) -> None:
        self._load_holds(row, link, beat.load_sequence, now)
        self._pulse_of(row, link, beat.incarnation, beat.capacity_version, now)

    def _pulse_of(
        self, row: Row, link: str | None, incarnation: int, version: int, now: float
    ) -> None:
        """What heartbeats of both sizes say: how far the node is, and how far its capacity."""
        if self._beliefs.own_word(row, incarnation, now):
            self._capacity_holds(row, link, version, now)
        elif self._post.may_ask(row, now):
            self._post.reply(row.node_id, link, self.hello(answer_wanted=True))

    def _load_holds(self, row: Row, link: str | None, sequence: int, now: float) -> None:
        """The sender says that this record of its load holds."""
        held = 0 if row.load is None else row.load.sequence
        if row.believed and held == sequence > 0:
            if now - row.load_at >= self._config.fresh_s:
                row.load_at = now
                self._table.touch(row)
        elif held < sequence and self._post.may_ask(row, now):
            self._post.reply(row.node_id, link, LoadWanted(held))

    def _capacity_holds(self, row: Row, link: str | None, version: int, now: float) -> None:
        held = 0 if row.capacity is None else row.capacity.version
        if held < version and self._post.may_ask(row, now):
            self._post.reply(row.node_id, link, CapacityWanted(held))

    def _capacity(self, row: Row, link: str | None, message: Capacity, now: float) -> None:
        self._take_capacity(row, message.capacity)

    def _take_capacity(self, row: Row, capacity: CapacityRecord) -> None:
        if row.capacity is None or capacity.version > row.capacity.version:
            row.capacity = capacity
            self._table.touch(row)

    def _take_load(self, row: Row, load: LoadRecord, now: float) -> None:
        """Newer only; and after a sleep nothing, until an answer shows that it is of today."""
        if row.believed and (row.load is None or load.sequence >= row.load.sequence):
            row.load, row.load_at = load, now
            self._table.touch(row)

    # What it asks for

    def _capacity_wanted(
        self, row: Row, link: str | None, message: CapacityWanted, now: float
    ) -> None:
        if message.held_version != self._pulse.capacity.version:
            self._post.reply(row.node_id, link, self._pulse.capacity_message())

    def _load_wanted(self, row: Row, link: str | None, message: LoadWanted, now: float) -> None:
        self._post.reply(row.node_id, link, self._pulse.heartbeat(self._owner.row.incarnation))

    def _pull(self, row: Row, link: str | None, pull: Pull, now: float) -> None:
        missing, behind = compare(self._table, pull.digest)
        for updates in chunks(missing):
            self._post.reply(row.node_id, link, Gossip(updates))
        if behind and now - row.pulled_at >= self._config.pull_answer_s:
            row.pulled_at = now
            self._post.reply(row.node_id, link, Pull(digest_of(self._table)))

    # Probes

    def _ping(self, row: Row, link: str | None, ping: Ping, now: float) -> None:
        self._hear(row, ping.updates, now)
        self._load_holds(row, link, ping.load_sequence, now)
        self._capacity_holds(row, link, ping.capacity_version, now)
        if ping.target == self._table.self_id:
            self._post.acknowledge(row.node_id, link, Ack(ping.nonce, ping.target), now)

    def _ack(self, row: Row, link: str | None, ack: Ack, now: float) -> None:
        self._hear(row, ack.updates, now)
        self._load_holds(row, link, ack.load_sequence, now)
        self._capacity_holds(row, link, ack.capacity_version, now)
        answered = self._prober.acked(row.node_id, ack, now)
        target = self._table.rows.get(answered.target) if answered else None
        if answered is None or target is None:
            return
        self._beliefs.contact(target, now)
        if answered.rtt_s is not None:
            target.rtt_s = smooth(target.rtt_s, answered.rtt_s)
            target.believed = True

    def _ping_req(self, row: Row, link: str | None, request: PingReq, now: float) -> None:
        self._hear(row, request.updates, now)
        if request.target == self._table.self_id:
            self._post.acknowledge(row.node_id, link, Ack(request.nonce, request.target), now)
        else:
            self._prober.asked(row.node_id, request, now)

    def _nack(self, row: Row, link: str | None, nack: Nack, now: float) -> None:
        self._prober.nacked(row.node_id, nack, now)

    # What it says of others

    def _gossip(self, row: Row, link: str | None, gossip: Gossip, now: float) -> None:
        self._hear(row, gossip.updates, now)

    def _hear(self, teller: Row, updates: tuple[Update, ...], now: float) -> None:
        for update in updates:
            if update.node_id == self._table.self_id:
                self._owner_hears(update, now, teller)
            else:
                self._beliefs.hear(update, now)

    def _owner_hears(self, claim: Update, now: float, teller: Row | None) -> None:
        """Somebody spoke of this node. What must be said in return goes to everybody."""
        outcome = self._owner.hear(claim)
        mine = self._owner.row
        if outcome == "answer" and teller is not None:
            self._post.tell(teller, mine.claim(), now)
        if outcome not in {"raised", "clone"}:
            return
        self._table.touch(mine)
        if claim.boot_id == mine.boot_id and claim.state in {"suspect", "dead"}:
            self._beliefs.refuted()
        self._post.news(mine.claim(), now, straight=True)
        if teller is not None:
            self._post.send(teller.node_id, self.hello(answer_wanted=False))
        if outcome == "clone":
            self._kit.say("warning", _clone_words(mine, claim))


def _clone_words(mine: Row, claim: Update) -> str:
    where = ", ".join(endpoint.host for endpoint in claim.endpoints) or "an unknown address"
    return (
        f"another daemon runs with the identity of this one ({mine.name}, {mine.node_id}), at"
        f" {where}: it has a copy of this node's state directory. Stop one of the two, delete its"
        " state directory and start it again; it will get an identity of its own."
    )
