"""Is it still there? SWIM's question, asked of one peer per interval.

    ping target ---- ack timeout ----> ping-req to k helpers ---- indirect timeout ----> unanswered
         |                                    |         |
        ack                          ack through one   nack from all: "it is silent to me, too"

Targets are taken from a rotation (`turns`), so that each peer is probed once per round and nobody
waits longer than two. Besides its turn, a peer is probed at once when there is reason to: somebody
accuses it, its connection ended, a request to it failed.

An answer that comes late, even after the probe was called unanswered, is still an answer: it names
a nonce that nobody but the target of this probe has seen. So each probe is remembered a while.

Helpers are drawn from those who are alive. One that sends neither ack nor nack counts against our
own health only if it was heard of since the probe began: it is there, it would have said so, and
the fault lies on our side. A helper that is as silent as the target says nothing of us: half a mesh
that falls silent at once (a switch between two rooms) would otherwise make this node doubt itself
ninefold, and wait ninefold for every verdict.

This module decides nothing about anybody's state. It sends, counts, and reports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshd.core.membership.health import LocalHealth
from meshd.core.membership.kit import Kit
from meshd.core.membership.roundtrip import RoundTrips
from meshd.core.membership.table import Table
from meshd.core.membership.turns import Turns
from protocol.frozen import frozen
from protocol.messages import Ack, Nack, Ping, PingReq

NONCE_START_MAX = 2**15
"""Nonces count up from a random number below this, so that they are short on the wire and two runs
of a node seldom share one."""

Send = Callable[[str, Ping | Ack | PingReq | Nack, float], None]


@dataclass(slots=True)
class Probe:
    """One question to one target."""

    target: str
    nonce: int
    sent_at: float
    helpers: tuple[str, ...] = ()
    nacks: set[str] = field(default_factory=set)
    over_at: float | None = None
    """When it was answered or given up, None while it runs."""


@frozen
class Errand:
    """A probe that is run for another node."""

    asker: str
    nonce: int
    target: str


@frozen
class Answered:
    """A probe of `target` was answered; `rtt_s` only when it answered us itself, in time."""

    target: str
    rtt_s: float | None


class Prober:
    """All probes of one node, its own and those it runs for others."""

    def __init__(
        self, kit: Kit, table: Table, health: LocalHealth, turns: Turns, send: Send
    ) -> None:
        self._config = kit.config
        self._agenda = kit.agenda
        self._rng = rng = kit.rng
        self._table = table
        self._peers = table.peers
        self._health = health
        self._turns = turns
        self._send = send
        self._round_trips = RoundTrips(kit.config)
        self._rotation: list[str] = []
        self._nonce = rng.randrange(NONCE_START_MAX)
        self._probes: dict[int, Probe] = {}
        self._asking: dict[str, Probe] = {}
        self._errands: dict[int, Errand] = {}

    def turn(self, now: float) -> None:
        """The next target's turn; sets the alarm for the one after."""
        self._forget(now)
        for _ in range(len(self._rotation) + len(self._peers)):
            if not self._rotation:
                self._rotation = self._turns.order(self._peers, now)[::-1]
            target = self._rotation.pop()
            if target in self._peers and target not in self._asking:
                self.ask(target, now)
                break
        interval_s = self._health.stretch(self._config.turn_interval_s)
        self._agenda.set(("probe", ""), self._turns.next(now, interval_s))

    def joined(self, node_id: str) -> None:
        """A new peer gets its turn at a random place of the current round."""
        if node_id in self._rotation:
            return
        self._rotation.insert(self._rng.randrange(len(self._rotation) + 1), node_id)

    def ask(self, target: str, now: float) -> None:
        """Probe the target now, if it is a living peer and no probe of it is under way."""
        if target in self._asking or target not in self._peers:
            return
        probe = Probe(target, self._next_nonce(), now)
        self._asking[target] = self._probes[probe.nonce] = probe
        wait_s = self._health.stretch(self._round_trips.ack_timeout_s)
        self._agenda.set(("ack", target), now + wait_s)
        self._send(target, Ping(probe.nonce, target), now)

    def unacked(self, target: str, now: float) -> None:
        """The direct wait is over: ask helpers."""
        probe = self._asking[target]
        without = {target: None, **self._table.suspects}
        probe.helpers = tuple(
            self._peers.sample(self._config.indirect_probes, self._rng, without=without)
        )
        for helper in probe.helpers:
            self._send(helper, PingReq(probe.nonce, target), now)
        wait_s = self._health.stretch(self._config.indirect_timeout_s)
        self._agenda.set(("silence", target), now + wait_s)

    def unanswered(self, target: str, now: float, *, judging: bool) -> int:
        """The whole wait is over: how many helpers were asked in vain. Not `judging`, right after
        a wake, connections are still being made again, and silent helpers say nothing of us."""
        probe = self._asking[target]
        if judging:
            self._health.worse(sum(self._kept_from_us(helper, probe) for helper in probe.helpers))
        self._close(probe, now)
        return len(probe.helpers)

    def drop(self, target: str) -> None:
        """The target is gone: expect no answer any more."""
        probe = self._asking.pop(target, None)
        if probe is not None:
            del self._probes[probe.nonce]
            self._agenda.cancel(("ack", target))
            self._agenda.cancel(("silence", target))

    def restart(self, now: float) -> None:
        """After a wake: what was asked before it means nothing; ask everybody."""
        for target in list(self._asking):
            self.drop(target)
        for target in list(self._peers):
            self.ask(target, now)

    def acked(self, sender: str, ack: Ack, now: float) -> Answered | None:
        """An Ack came from `sender`: what it answers, if anything that we asked."""
        errand = self._errands.get(ack.nonce)
        if errand is not None and errand.target == sender == ack.target:
            self._end_errand(ack.nonce)
            self._send(errand.asker, Ack(errand.nonce, errand.target), now)
        probe = self._probes.get(ack.nonce)
        if probe is None or probe.target != ack.target:
            return None
        if sender != probe.target and sender not in probe.helpers:
            return None
        rtt_s = now - probe.sent_at if sender == probe.target else None
        if rtt_s is not None and self._is_newest(probe):
            self._round_trips.add(rtt_s)
        if probe.over_at is None:
            self._health.better()
            self._close(probe, now)
        return Answered(probe.target, rtt_s)

    def nacked(self, sender: str, nack: Nack, now: float) -> None:
        """A helper is there, but hears nothing from the target either. Once all have said so,
        there is nothing left to wait for."""
        probe = self._probes.get(nack.nonce)
        if probe is not None and sender in probe.helpers and probe.target == nack.target:
            probe.nacks.add(sender)
            if len(probe.nacks) == len(probe.helpers) and probe.over_at is None:
                self._agenda.set(("silence", probe.target), now)

    def asked(self, asker: str, request: PingReq, now: float) -> None:
        """Somebody wants to know whether the target answers us."""
        if len(self._errands) >= self._config.errands_max:
            return
        nonce = self._next_nonce()
        self._errands[nonce] = Errand(asker, request.nonce, request.target)
        self._agenda.set(("errand", str(nonce)), now + self._config.nack_after_s)
        self._send(request.target, Ping(nonce, request.target), now)

    def errand_over(self, nonce: int, now: float) -> None:
        """The target did not answer us in time: say so first; an answer may still come."""
        errand = self._errands[nonce]
        self._send(errand.asker, Nack(errand.nonce, errand.target), now)
        self._agenda.set(("errand late", str(nonce)), now + self._config.late_ack_s)

    def errand_late(self, nonce: int) -> None:
        """No answer will come any more."""
        del self._errands[nonce]

    def _is_newest(self, probe: Probe) -> bool:
        """Whether the target was not asked again since. When a cable is put back, all that was
        asked meanwhile is answered at once: that is one slow answer, not many."""
        target, sent_at = probe.target, probe.sent_at
        return not any(p.target == target and p.sent_at > sent_at for p in self._probes.values())

    def _kept_from_us(self, helper: str, probe: Probe) -> bool:
        """Whether a helper lives, but its word on this probe has not reached us."""
        row = self._table.rows.get(helper)
        return row is not None and row.heard_at > probe.sent_at and helper not in probe.nacks

    def _close(self, probe: Probe, now: float) -> None:
        probe.over_at = now
        del self._asking[probe.target]
        self._agenda.cancel(("ack", probe.target))
        self._agenda.cancel(("silence", probe.target))

    def _forget(self, now: float) -> None:
        """Probes that ended `late_ack_s` ago. With each turn, because an alarm for each would wake
        this node as often again as the probes themselves."""
        for nonce, probe in list(self._probes.items()):
            if probe.over_at is not None and now - probe.over_at >= self._config.late_ack_s:
                del self._probes[nonce]

    def _end_errand(self, nonce: int) -> None:
        del self._errands[nonce]
        self._agenda.cancel(("errand", str(nonce)))
        self._agenda.cancel(("errand late", str(nonce)))

    def _next_nonce(self) -> int:
        self._nonce += 1
        return self._nonce
