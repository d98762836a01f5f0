"""One machine under test, and scripted peers around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, TypeVar

from meshd.core.effects import Dial, Effect, Hangup, Notice, Send
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.machine import Membership, Myself
from meshd.core.membership.member import Member
from protocol.load import CapacityRecord, LoadRecord, ModelLoad
from protocol.messages import (
    Ack,
    Beat,
    ControlMessage,
    Endpoint,
    Hello,
    Nack,
    Ping,
    PingReq,
    Update,
)

M = TypeVar("M")

ME = "00" * 16
A, B, C, D = ("aa" * 16, "bb" * 16, "cc" * 16, "dd" * 16)
NAMES = {ME: "me", A: "ann", B: "bob", C: "cat", D: "dan"}
HOSTS = {ME: "10.0.0.1", A: "10.0.0.10", B: "10.0.0.11", C: "10.0.0.12", D: "10.0.0.13"}
WALL_MS = 1_000
BOOT = 7
CONFIG = MembershipConfig()


def endpoint(host: str, port: int = 8788) -> Endpoint:
    """An address with the usual ports."""
    return Endpoint(host, port, port + 1)


def link(node_id: str) -> str:
    """The link that a scripted peer's first address gives."""
    return f"{HOSTS[node_id]}:8788"


def claim(node_id: str, state: str = "alive", incarnation: int = 100, **changes: Any) -> Update:
    """What somebody says of a peer."""
    said = Update(
        node_id,
        state,
        incarnation,
        BOOT,
        NAMES.get(node_id, node_id[:4]),
        node_id * 2,
        (endpoint(HOSTS.get(node_id, "10.0.9.9")),),
    )
    return replace(said, **changes)


def load(in_flight: int = 0, sequence: int = 1, **changes: Any) -> LoadRecord:
    """A load record with one model."""
    model = ModelLoad("m", True, 4, in_flight, 0, 0.0, 500.0, 40.0, 0.0)
    record = LoadRecord(sequence, in_flight, 0, 8 * 2**30, 0, "normal", True, (model,))
    return replace(record, **changes)


def capacity(version: int = 1, chip: str = "chip") -> CapacityRecord:
    """A capacity record."""
    return CapacityRecord(version, "meshd", "Linux", chip, 4, 16 * 2**30, (), (), ())


def hello(node_id: str, *, answer_wanted: bool = False, **changes: Any) -> Hello:
    """First words of a scripted peer."""
    return Hello(claim(node_id, **changes), capacity(), load(), answer_wanted)


@dataclass
class Bench:
    """A machine, its clock, and everything it has asked for. Peers in `answering` ack pings, and
    find out for us whether others do."""

    config: MembershipConfig = CONFIG
    seed: int = 1
    now: float = 100.0
    answering: set[str] = field(default_factory=set)
    effects: list[Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Membership(
            Myself(ME, "me", ME * 2, BOOT, (endpoint(HOSTS[ME]),)),
            capacity(),
            load(),
            config=self.config,
            rng=Random(self.seed),
            now=self.now,
            wall_ms=WALL_MS,
        )
        self._sequences: dict[tuple[str, int], int] = {}

    # Inputs

    def do(self, ask: Callable[[Membership, float], list[Effect]]) -> list[Effect]:
        """One input now; its effects, which are also kept."""
        effects = ask(self.machine, self.now)
        self.effects += effects
        for effect in effects:
            self._answer(effect)
        return effects

    def hear(
        self,
        sender: str,
        message: ControlMessage,
        *,
        boot: int = BOOT,
        over: str | None = None,
        sequence: int | None = None,
    ) -> list[Effect]:
        """A frame from a peer; numbered by itself unless told otherwise."""
        key = sender, boot
        number = self._sequences.get(key, 0) + 1 if sequence is None else sequence
        self._sequences[key] = max(number, self._sequences.get(key, 0))
        return self.do(lambda m, now: m.receive(sender, boot, number, message, now, over))

    def meet(self, *peers: str, answering: bool = True) -> None:
        """Peers introduce themselves, and answer probes from now on."""
        for peer in peers:
            if answering:
                self.answering.add(peer)
            self.hear(peer, hello(peer))

    def connect(self, peer: str) -> None:
        """Our link to the peer comes up and is answered."""
        self.do(lambda m, now: m.link_up(link(peer), now))
        self.hear(peer, hello(peer), over=link(peer))

    def down(self, name: str, cause: str) -> list[Effect]:
        """A link ends or fails."""
        return self.do(lambda m, now: m.link_down(name, cause, now))

    def advance(self, seconds: float) -> None:
        """Let time pass, ticking whenever the machine wants to."""
        end = self.now + seconds
        while self.machine.deadline() <= end:
            self.now = max(self.now, self.machine.deadline())
            self.do(lambda m, now: m.tick(now))
        self.now = end

    def advance_until(self, true: Callable[[], bool], most_s: float = 30.0) -> float:
        """Let time pass until something is true; how long it took."""
        start = self.now
        while not true():
            assert self.now - start < most_s
            self.advance(0.01)
        return self.now - start

    def _answer(self, effect: Effect) -> None:
        match effect:
            case Send(str(peer), _, Ping(nonce, target)) if peer == target in self.answering:
                self.hear(peer, Ack(nonce, target))
            case Send(str(helper), _, PingReq(nonce, target)) if helper in self.answering:
                found = target in self.answering
                self.hear(helper, Ack(nonce, target) if found else Nack(nonce, target))

    # Questions

    def member(self, node_id: str) -> Member:
        """What the view shows of a node."""
        return self.machine.view().members[node_id]

    def state(self, node_id: str) -> str | None:
        """The state the view shows, None when the node is not listed."""
        member = self.machine.view().members.get(node_id)
        return None if member is None else member.state

    def sent(self, kind: type[M], to: str | None = None) -> list[M]:
        """Messages of a kind sent so far, to a peer."""
        return [
            effect.message
            for effect in self.effects
            if isinstance(effect, Send)
            and isinstance(effect.message, kind)
            and (to is None or effect.node_id == to)
        ]

    def said(self) -> list[str]:
        """Texts of the notices so far."""
        return [effect.text for effect in self.effects if isinstance(effect, Notice)]

    def dialled(self) -> list[str]:
        """Links dialled so far."""
        return [effect.link for effect in self.effects if isinstance(effect, Dial)]

    def hung_up(self) -> list[str]:
        """Links hung up so far."""
        return [effect.link for effect in self.effects if isinstance(effect, Hangup)]

    def forget(self) -> None:
        """Look only at what comes from now on."""
        self.effects.clear()

    def claims(self, of: str, to: str | None = None) -> list[Update]:
        """Everything said of one node so far, in whatever message."""
        return [
            update
            for effect in self.effects
            if isinstance(effect, Send) and (to is None or effect.node_id == to)
            for update in getattr(effect.message, "updates", ())
            if update.node_id == of
        ]

    def asked(self, target: str) -> list[PingReq]:
        """Indirect probes of a target sent so far."""
        return [request for request in self.sent(PingReq) if request.target == target]


def met(*peers: str, config: MembershipConfig = CONFIG) -> Bench:
    """A machine that has met these peers a while ago; all answer probes."""
    bench = Bench(config)
    bench.meet(*peers)
    bench.advance(8.0)
    bench.forget()
    return bench


def beat(incarnation: int = 100) -> Beat:
    """The short heartbeat of a scripted peer."""
    return Beat(incarnation, 1, 1)
