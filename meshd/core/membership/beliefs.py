"""Who is alive, as far as this node can tell: every change of anybody's state happens here.

Evidence, from the strongest down:

1. *Its own word*: the node says it lives, at an incarnation. Nobody else can raise that number.
2. *Proof*: its connection ended and was then refused. Only its own kernel says both; it is dead.
3. *Contact*: any frame of its current run ends a suspicion here, at once. That alone cannot help
   the others, so the suspect is told of the accusation and refutes it before everybody.
4. *Silence*: a probe failed, directly and through helpers. It is suspect, and stays so until it is
   heard or until the suspicion times out; then it is dead.
5. *Hearsay*: what others claim. Suspicions are joined and confirmed; leaving is believed; but
   "dead" is only ever taken as a suspicion with all confirmations in, because its teller may be the
   sick one, and a check of our own costs a fifth of a second.

The dead and the left are not argued with: whoever is heard from while it is held dead gets told so,
and comes back with its own word. That takes one round trip and keeps everybody's order the same.

Verdicts wait while this node has reason to doubt itself: just after waking, and while more than
half of the peers are silent at once (`uplink`).
"""

from __future__ import annotations

from dataclasses import replace

from meshd.core.membership.health import LocalHealth
from meshd.core.membership.kit import Kit
from meshd.core.membership.post import Post
from meshd.core.membership.precedence import INCARNATION_MAX, answerable, supersedes
from meshd.core.membership.suspicion import Suspicion, begin_suspicion
from meshd.core.membership.table import GONE, LIVING, Change, Row, Table, row_from
from meshd.core.membership.uplink import Uplink
from protocol.messages import Update


class Beliefs:
    """The judge. Moves rows, sets the alarms of verdicts and tombstones, and spreads the news."""

    def __init__(
        self, kit: Kit, table: Table, post: Post, health: LocalHealth, *, now: float
    ) -> None:
        self._kit = kit
        self._config = kit.config
        self._agenda = kit.agenda
        self._rng = kit.rng
        self._table = table
        self._post = post
        self._health = health
        self._uplink = Uplink(kit.config, now)
        self._suspicions: dict[str, Suspicion] = {}
        self._judge_from = now
        self._full = False
        self._shut_out: frozenset[str] = frozenset()
        self.doubted: list[str] = []
        """Nodes to be probed at once; emptied within each input."""

    # Who is not to be known at all

    def shut_out(self, node_ids: frozenset[str]) -> None:
        """Exactly these are not to be in the table from now on, whatever anybody says of them."""
        self._shut_out = node_ids
        for node_id in sorted(node_ids & self._table.rows.keys()):
            row = self._table.rows[node_id]
            self._forget(row)
            self._kit.say("info", f"{row.name} was shut out of the mesh")

    def start_over(self) -> None:
        """Nobody but this node is in the table any more."""
        for row in list(self._table.rows.values()):
            if row.node_id != self._table.self_id:
                self._forget(row)

    def ignores(self, node_id: str) -> bool:
        """Whether nothing is heard from or of this node."""
        return node_id in self._shut_out

    # What a node says of itself

    def introduce(self, claim: Update, now: float) -> Row | None:
        """A node presents itself. Its row, or None when this run of it is not to be listened to:
        its claim is stale (it was told so), it is a clone, or the table is full."""
        if claim.incarnation > INCARNATION_MAX:
            return None
        row = self._table.rows.get(claim.node_id)
        if row is None:
            return self._newcomer(claim, "introduced itself", now)
        if claim.boot_id != row.boot_id:
            if now < row.quarantine_until:
                return None
            if claim.incarnation <= row.incarnation < INCARNATION_MAX:
                self._post.tell(row, row.claim(), now)
                return None
        if claim.incarnation > row.incarnation or _is_last_word(claim, row):
            self._rise(row, claim, "introduced itself", now)
        else:
            self.own_word(row, claim.incarnation, now)
        return row

    def own_word(self, row: Row, incarnation: int, now: float) -> bool:
        """A heartbeat states an incarnation. False when it is ahead of what is held: the words
        that belong to it were missed, and must be asked for."""
        if incarnation < row.incarnation:
            self._post.tell(row, row.claim(), now)
        return incarnation <= row.incarnation

    def contact(self, row: Row, now: float) -> None:
        """A frame of the node's current run arrived, or its relay answered: it lives now."""
        row.heard_at = now
        self._uplink.heard(now)
        if row.state == "alive":
            return
        self._post.tell(row, row.claim(), now)
        if row.state == "suspect":
            row.disprove(self._suspicions[row.node_id].accusers, now)
            self._acquit(row, "answered", now)

    # What this node finds out

    def unanswered(self, row: Row, helpers: int, now: float) -> None:
        """Our probe of a living node failed."""
        assert row.state in LIVING, "a probe of the dead was not dropped"
        me = self._table.self_id
        suspicion = self._suspicions.get(row.node_id)
        if suspicion is None:
            how = f"directly and through {helpers} others" if helpers else "directly"
            self._suspect(row, me, f"did not answer, {how}", now)
            if not self._uplink.frozen(now):
                self._post.news(row.claim(), now, straight=True)
            return
        if suspicion.accuse(me):
            self._post.news(replace(row.claim(), accuser=me), now)
        else:
            suspicion.repeat()
        self._plan_verdict(row, suspicion, now)

    def proven_gone(self, row: Row, eof_at: float, now: float) -> None:
        """Its connection ended at `eof_at` and a new one was refused."""
        if row.state in LIVING and row.heard_at <= eof_at + self._config.proof_margin_s:
            self._bury(row, "its connection closed and its port refuses: the process ended", now)

    def verdict(self, node_id: str, now: float) -> None:
        """A suspicion's time is up."""
        row = self._table.rows[node_id]
        if not self.judging(now) or self._uplink.frozen(now):
            self._agenda.set(("suspicion", node_id), now + self._config.probe_interval_s)
            return
        voices = len(self._suspicions[node_id].accusers)
        silence = f", silent for {now - row.heard_at:.1f} s" if row.heard_at else ""
        self._bury(row, f"suspected by {voices} of {self._table.nodes - 1}{silence}", now)

    def wake(self, now: float) -> None:
        """This node slept or was stopped: whatever it was about to decide is void."""
        self._judge_from = now + self._config.wake_grace_s
        for node_id in list(self._suspicions):
            self._acquit(self._table.rows[node_id], "to be judged anew after a sleep", now)
        for row in self._table.rows.values():
            if row.node_id != self._table.self_id:
                row.load, row.believed = None, False
                self._table.touch(row)

    def judging(self, now: float) -> bool:
        """Whether silence counts: not right after a wake."""
        return now >= self._judge_from

    def refuted(self) -> None:
        """Others suspected this node: it may be the slow one (Lifeguard)."""
        self._health.worse()

    def delay(self, by_s: float, now: float) -> None:
        """This process was kept from running for so long: that time counts against nobody."""
        for node_id, suspicion in self._suspicions.items():
            suspicion.started_at += by_s
            self._plan_verdict(self._table.rows[node_id], suspicion, now)

    def expire(self, node_id: str) -> None:
        """A tombstone has stood long enough."""
        self._table.drop(node_id)

    # What others say

    def hear(self, claim: Update, now: float) -> None:
        """A claim about somebody else than this node."""
        if not answerable(claim) or self.ignores(claim.node_id):
            return
        row = self._table.rows.get(claim.node_id)
        if row is None:
            known = claim.state in LIVING
            row = self._newcomer(claim, "heard of from a peer", now) if known else None
        if row is None:
            return
        if claim.state == "alive":
            self._hear_alive(row, claim, now)
        elif claim.state == "left":
            self._hear_left(row, claim, now)
        else:
            self._hear_accusation(row, claim, now)

    def _hear_alive(self, row: Row, claim: Update, now: float) -> None:
        foreign = claim.boot_id != row.boot_id
        if claim.incarnation > row.incarnation and not (foreign and now < row.quarantine_until):
            self._rise(row, claim, "says so itself", now)

    def _hear_left(self, row: Row, claim: Update, now: float) -> None:
        if supersedes(claim, row.incarnation, row.state):
            self._describe(row, claim, now)
            self._close(row)
            self._table.move(row, "left", "left the mesh", now)
            self._agenda.set(("tombstone", row.node_id), now + self._config.tombstone_s)
            self._post.news(claim, now)

    def _hear_accusation(self, row: Row, claim: Update, now: float) -> None:
        """Suspect or dead. Both are an accuser's voice; "dead" is one that has waited already."""
        suspicion = self._suspicions.get(row.node_id)
        joins = suspicion is not None and claim.incarnation == row.incarnation
        if not joins and not supersedes(claim, row.incarnation, row.state):
            return
        self._describe(row, claim, now)
        accuser = claim.accuser or ""
        if (row.state in GONE and claim.state == "dead") or self._echoes(row, accuser, now):
            return
        new = True
        if suspicion is not None and joins:
            new = suspicion.accuse(accuser)
        else:
            suspicion = self._suspect(row, accuser, f"{self._name(accuser)} says so", now)
            if self._rng.random() * self._table.nodes < self._config.verifiers:
                self.doubted.append(row.node_id)
        if claim.state == "dead":
            suspicion.convict()
            self.doubted.append(row.node_id)
        self._plan_verdict(row, suspicion, now)
        if new:
            self._post.news(replace(row.claim(), accuser=claim.accuser), now)

    def _echoes(self, row: Row, accuser: str, now: float) -> bool:
        """Whether this is a rumour still going round that contact has refuted here. An accuser who
        says so later has its reasons: the node may hear nobody, and so refute nothing."""
        disproved_at = row.disproved.get(accuser)
        return disproved_at is not None and now < disproved_at + self._config.rumour_s

    # Changes

    def _newcomer(self, claim: Update, reason: str, now: float) -> Row | None:
        row = row_from(replace(claim, state="alive", accuser=None), now, reason)
        if not self._table.add(row):
            self._say_full()
            return None
        self._post.news(row.claim(), now)
        return row

    def _rise(self, row: Row, claim: Update, reason: str, now: float) -> None:
        """The owner speaks at a higher incarnation: all that was said of a lower one is void."""
        self._take_over(row, claim, now)
        if row.state != "alive":
            self._agenda.cancel(("tombstone", row.node_id))
            self._acquit(row, reason, now)
        self._post.news(row.claim(), now)

    def _describe(self, row: Row, claim: Update, now: float) -> None:
        """Take over what the owner said of itself at the claim's incarnation, whoever passes it on;
        nothing happens unless that is higher than what is held."""
        if claim.incarnation > row.incarnation:
            self._take_over(row, claim, now)

    def _take_over(self, row: Row, claim: Update, now: float) -> None:
        if claim.boot_id != row.boot_id:
            if claim.boot_id in row.past_boots:
                self._found_clone(row, claim, now)
            row.new_run(claim.boot_id)
            self._table.move(row, row.state, "restarted", now)
        elif claim.endpoints != row.endpoints:
            self._table.changes.append(Change(row, row.state))
        row.describe(claim)
        row.disproved.clear()
        self._table.touch(row)

    def _suspect(self, row: Row, accuser: str, reason: str, now: float) -> Suspicion:
        self._agenda.cancel(("tombstone", row.node_id))
        row.accuser = accuser or None
        suspicion = begin_suspicion(self._table.nodes, self._health.score + 1, now, self._config)
        suspicion.accuse(accuser)
        self._suspicions[row.node_id] = suspicion
        self._table.move(row, "suspect", reason, now)
        self._plan_verdict(row, suspicion, now)
        self._observe(now)
        return suspicion

    def _acquit(self, row: Row, reason: str, now: float) -> None:
        self._close(row)
        self._table.move(row, "alive", reason, now)
        self._observe(now)

    def _bury(self, row: Row, reason: str, now: float) -> None:
        self._close(row)
        row.accuser = self._table.self_id
        self._table.move(row, "dead", reason, now)
        self._agenda.set(("tombstone", row.node_id), now + self._config.tombstone_s)
        self._post.news(row.claim(), now)
        self._observe(now)

    def _close(self, row: Row) -> None:
        row.accuser = None
        self._suspicions.pop(row.node_id, None)
        self._agenda.cancel(("suspicion", row.node_id))

    def _forget(self, row: Row) -> None:
        self._close(row)
        self._table.drop(row.node_id)

    def _plan_verdict(self, row: Row, suspicion: Suspicion, now: float) -> None:
        self._agenda.set(("suspicion", row.node_id), max(now, suspicion.verdict_at))

    def _observe(self, now: float) -> None:
        peers = len(self._table.peers)
        if self._uplink.observe(len(self._table.suspects), peers, now):
            text = (
                f"{len(self._table.suspects)} of {peers} peers fell silent together: this machine's"
                " own network may be down. Nobody is declared dead until that is clear; check its"
                " cable or Wi-Fi."
            )
            self._kit.say("warning", text)

    # Words for people

    def _found_clone(self, row: Row, claim: Update, now: float) -> None:
        row.quarantine_until = now + self._config.clone_quarantine_s
        places = " and ".join(_places(where) for where in (row.endpoints, claim.endpoints))
        text = (
            f"two daemons run with the identity of {row.name} ({row.node_id}), at {places}: one has"
            " a copy of the other's state directory. Stop one of them, delete its state directory"
            " and start it again; it will get an identity of its own."
        )
        self._kit.say("warning", text)

    def _say_full(self) -> None:
        if not self._full:
            self._full = True
            text = (
                f"the member table is full ({self._config.members_max} nodes): newcomers are turned"
                " away until a listed node leaves."
            )
            self._kit.say("warning", text)

    def _name(self, node_id: str) -> str:
        row = self._table.rows.get(node_id)
        return "a peer" if row is None else row.name


def _is_last_word(claim: Update, row: Row) -> bool:
    """Whether a node at the last incarnation says what it could only say at a higher one."""
    news = claim.boot_id != row.boot_id or row.state in GONE
    return claim.incarnation == row.incarnation == INCARNATION_MAX and news


def _places(endpoints: tuple[object, ...]) -> str:
    hosts = [getattr(endpoint, "host", "") for endpoint in endpoints]
    return ", ".join(hosts) or "an unknown address"
