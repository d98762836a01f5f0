"""The mesh thread: membership and its sockets, in a loop of their own.

One thread owns the membership machine and the transport, and nobody else touches either. A long
JSON body, a busy gateway or a loading model therefore never makes this node look dead, nor others
look dead to it. Each turn of the loop waits for frames or for the machine's deadline, hands over
what happened, carries out the effects in order, and swaps in the new view.

In: other threads post letters (see `mailbox`); they never wait. Out: `view` is one attribute,
replaced whole, so readers take no lock. `on_view` and `on_notice` are called in the mesh thread
and must return at once.

What arrives is checked from the outside in: proven sender (transport), frame (codec), our mesh
label, and the envelope's sender held against the proven one. What fails is counted and dropped; a
stranger cannot make this node say anything. A fault of our own costs the frame or letter in hand:
it is counted and said once, and the loop goes on. `alive` and `last_turn_at` are for a watchdog.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import assert_never

import zmq

from meshd.address import parse_host_port
from meshd.core.effects import Dial, Effect, Hangup, Notice, Send, ViewChanged
from meshd.core.membership.member import MeshView
from meshd.net.dial import LinkDown, LinkUp
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.machine import Letter, Machine
from meshd.net.mailbox import Mailbox
from meshd.net.remembered import PeersFile
from meshd.net.sleep import SleepWatch, steady_clock
from meshd.net.transport import DOMAIN, Arrived, BindError, Happening, Transport, ZmqTransport
from meshd.net.trust import Identity, MeshKey, truly_named
from protocol.codec import decode_control, encode
from protocol.envelope import Envelope
from protocol.errors import ProtocolError
from protocol.load import CapacityRecord, LoadRecord
from protocol.messages import ControlMessage, Endpoint

__all__ = ["BindError", "ControlPlane", "Machine"]

TURN_MAX_S = 0.25
"""Longest wait in one turn: how stale letters that wake nobody, and `last_turn_at`, may get."""

FAULT_PAUSE_S = 0.05
"""Rest after a turn that failed, so that a fault that repeats does not eat a processor."""

FAULTS_SAID_MAX = 32
"""Different faults that are said aloud; the rest are only counted."""

READDRESS_EVERY_S = 5.0
"""How often the machine's own addresses are read: Wi-Fi takes about that long to change."""

STOP_WAIT_S = 5.0
"""A turn ends within TURN_MAX_S; this passes only when the thread is stuck, which is a bug."""

FAREWELL_S = 0.05
"""What a farewell gets to reach the kernel: a ROUTER closed at once loses one frame in ten."""

COUNTERS = (
    "sender_mismatch", "mesh_mismatch", "forged_key", "encode_errors", "faults", "naps",
    "addresses_read",
)  # fmt: skip
"""Counted here, beside the transport's, the mailbox's and one per ProtocolError code."""


class ControlPlane:
    """Membership on the network. `bind()`, then `start(machine)`, later `leave()` and `stop()`.

    `endpoints`, when given, is asked every READDRESS_EVERY_S for the addresses to advertise;
    `admit` says whether the holder of a raw public key, who knows the mesh key, may connect;
    `on_other_key` is called with the link of whoever was dialled and holds another mesh key.
    """

    def __init__(
        self,
        identity: Identity,
        mesh_key: MeshKey,
        *,
        boot_id: int,
        bind_host: str,
        bind_port: int,
        context: zmq.Context[zmq.Socket[bytes]],
        gatekeeper: Gatekeeper,
        state_dir: Path,
        on_view: Callable[[MeshView], object] = lambda _: None,
        on_notice: Callable[[Notice], object] = lambda _: None,
        endpoints: Callable[[], tuple[Endpoint, ...]] | None = None,
        admit: Callable[[bytes], bool] = lambda _: True,
        on_other_key: Callable[[str], object] = lambda _: None,
        transport: Transport | None = None,
    ) -> None:
        gatekeeper.policy(DOMAIN, admit)
        self._identity = identity
        self._label = mesh_key.label
        self._boot_id = boot_id
        jitter = Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._transport = transport or ZmqTransport(
            context, identity, mesh_key, bind_host=bind_host, bind_port=bind_port, rng=jitter
        )
        self._peers_file = PeersFile(state_dir)
        self._on_view = on_view
        self._on_notice = on_notice
        self._on_other_key = on_other_key
        self._read_endpoints = endpoints
        self._mailbox: Mailbox[Letter] = Mailbox()
        self._stopping = threading.Event()
        self._left = threading.Event()
        self._thread: threading.Thread | None = None
        self._machine: Machine | None = None
        self._counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._faults_said: set[str] = set()
        self._sequence = 0
        self._view_changed = False
        self._endpoints: tuple[Endpoint, ...] | None = None
        self._readdress_at = 0.0
        self.view = MeshView(identity.node_id, {}, 0)
        """The latest view; empty before `start`. Replaced whole: read it once per decision."""
        self.last_turn_at = time.monotonic()
        """When the loop last turned (monotonic s); older than a few seconds means it is stuck."""

    @property
    def port(self) -> int:
        """The port that `bind` opened, 0 before."""
        return self._transport.port

    @property
    def alive(self) -> bool:
        """Whether the mesh thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def bind(self) -> None:
        """Open the mesh port. Raises BindError, whose text is one line for the owner."""
        self._transport.listen()

    def start(self, machine: Machine) -> None:
        """Drive `machine` from now on; nobody else may touch it. `view` is valid on return."""
        assert self._thread is None
        self._machine = machine
        self.view = machine.view()
        self._thread = threading.Thread(target=self._run, name="meshd-mesh", daemon=True)
        self._thread.start()

    def report(self, load: LoadRecord, *, news: bool = True) -> None:
        """This node's load; no `news` wait for the next turn. Thread-safe, like all that follow."""
        post = self._post if news else self._mailbox.post
        post("report", lambda now: self._driven.report(load, now))

    def announce(self, capacity: CapacityRecord) -> None:
        """This node's capacity, because it changed."""
        self._post("announce", lambda now: self._driven.announce(capacity, now))

    def rekey(self, mesh_key: MeshKey) -> None:
        """The mesh has another key from now on; with another label this node is in another mesh,
        and nobody of the last one is known any more."""
        self._post("rekey", lambda now: self._rekeyed(mesh_key, now))

    def evict(self, node_ids: Collection[str]) -> None:
        """Exactly these nodes are shut out of the mesh from now on."""
        self._post("evict", lambda now: self._driven.evict(node_ids, now))

    def reread_addresses(self) -> None:
        """The network may have changed: ask `endpoints` now."""
        self._readdress_at = 0.0
        self._transport.wake()

    def candidate(self, link: str, node_id: str | None = None, *, typed: bool = False) -> bool:
        """Somebody may be at `link` (`host:port`); `typed` when a person said so. False, and a
        notice when typed, if it is no link."""
        try:
            parse_host_port(link)
        except ValueError as error:
            if typed:
                self._notice("warning", f"ignoring peer: {error}")
            return False
        return self._post(
            ("candidate", link, typed),
            lambda now: self._driven.candidate(link, now, node_id=node_id, typed=typed),
        )

    def relay_heard(self, node_id: str) -> None:
        """A peer's relay answered: it lives. Cheap; wakes nobody."""
        self._mailbox.post(("relay", node_id), lambda now: self._driven.relay_heard(node_id, now))

    def relay_failed(self, node_id: str, cause: str) -> None:
        """A peer's relay could not be reached or broke."""
        self._post(("relay", node_id), lambda now: self._driven.relay_failed(node_id, cause, now))

    def leave(self, timeout_s: float) -> bool:
        """Say farewell to everybody; False when that took longer than `timeout_s`."""
        if not self.alive:
            return False
        self._post("leave", self._farewell)
        said = self._left.wait(timeout_s)
        self._stopping.wait(FAREWELL_S)
        return said

    def stop(self) -> None:
        """End the thread and close its sockets. Idempotent; does not say farewell."""
        self._stopping.set()
        if self._thread is None:
            self._transport.close()
            return
        self._transport.wake()
        self._thread.join(STOP_WAIT_S)

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, by name; the set of names is fixed."""
        codes = {f"decode_{code}": self._counters[f"decode_{code}"] for code in ProtocolError.CODES}
        own = {name: self._counters[name] for name in COUNTERS}
        totals = {**self._transport.counters, **own, **codes, "mail_dropped": self._mailbox.dropped}
        return {f"control_{name}": total for name, total in totals.items()}

    @property
    def _driven(self) -> Machine:
        assert self._machine is not None
        return self._machine

    def _post(self, subject: object, letter: Letter) -> bool:
        posted = self._mailbox.post(subject, letter)
        self._transport.wake()
        return posted

    # From here on: the mesh thread.

    def _run(self) -> None:
        watch = SleepWatch(time.monotonic(), steady_clock())
        try:
            self._attempt("offering remembered peers", self._offer_remembered)
            while not self._stopping.is_set():
                try:
                    self._turn(watch)
                except zmq.ContextTerminated:
                    return
                except Exception as error:  # noqa: BLE001
                    # The thread that keeps this node in the mesh must outlive any single fault.
                    self._fault("turning", error)
                    self._stopping.wait(FAULT_PAUSE_S)
        finally:
            self._attempt("remembering peers", lambda _: self._keep_remembered(math.inf))
            self._transport.close()
            if not self._stopping.is_set():
                self._notice("warning", "the mesh thread has stopped: this node is alone")

    def _turn(self, watch: SleepWatch) -> None:
        wait_s = min(TURN_MAX_S, max(0.0, self._driven.deadline() - time.monotonic()))
        happenings = self._transport.poll(wait_s)
        now = self.last_turn_at = time.monotonic()
        if watch.away_s(now, steady_clock(), wait_s):
            self._counters["naps"] += 1
            self._transport.retry()
            self._attempt("waking", self._driven.woke)
        for happening in happenings:
            self._happened(happening)
        for letter in self._mailbox.take():
            self._attempt("reading a letter", letter)
        if self._driven.deadline() <= now:
            self._attempt("ticking", self._driven.tick)
        if now >= self._readdress_at and self._read_endpoints is not None:
            self._readdress_at = now + READDRESS_EVERY_S
            self._attempt("reading addresses", self._check_addresses)
        if self._view_changed:
            self._publish(now)

    def _happened(self, happening: Happening) -> None:
        match happening:
            case Arrived():
                self._attempt("receiving", lambda now: self._receive(happening, now))
            case LinkUp(link, host):
                self._attempt("connecting", lambda now: self._driven.link_up(link, now, host))
            case LinkDown(link, cause):
                if cause == "handshake":
                    self._on_other_key(link)
                self._attempt("hanging up", lambda now: self._driven.link_down(link, cause, now))
            case _:
                assert_never(happening)

    def _receive(self, arrived: Arrived, now: float) -> Sequence[Effect]:
        try:
            envelope, message = decode_control(arrived.frame)
        except ProtocolError as error:
            self._counters[f"decode_{error.code}"] += 1
            return ()
        if envelope.mesh != self._label:
            self._counters["mesh_mismatch"] += 1
            return ()
        if envelope.sender != arrived.sender:
            self._counters["sender_mismatch"] += 1
            return ()
        if not truly_named(message):
            self._counters["forged_key"] += 1
            return ()
        own_voice = (envelope.sender, envelope.boot_id) == (self._identity.node_id, self._boot_id)
        if own_voice and arrived.link is None:
            # We have dialled ourselves. Only a frame that comes back over the link tells which
            # link that is, so this one is sent back where it came from.
            self._transport.send(envelope.sender, None, arrived.frame)
            return ()
        return self._driven.receive(
            envelope.sender, envelope.boot_id, envelope.sequence, message, now, arrived.link
        )

    def _rekeyed(self, mesh_key: MeshKey, now: float) -> Sequence[Effect]:
        moved, self._label = mesh_key.label != self._label, mesh_key.label
        self._transport.rekey(mesh_key)
        return self._driven.start_over(now) if moved else ()

    def _attempt(self, doing: str, ask: Letter) -> None:
        """Ask something of the machine and carry out its effects; a fault costs this much only."""
        try:
            for effect in ask(time.monotonic()):
                self._perform(effect)
        except Exception as error:  # noqa: BLE001
            # Whatever one frame or letter does, the next one deserves its turn.
            self._fault(doing, error)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(node_id, link, message):
                self._send(node_id, link, message)
            case Dial(link):
                self._transport.dial(link)
            case Hangup(link):
                self._transport.hangup(link)
            case ViewChanged():
                self._view_changed = True
            case Notice(level, text):
                self._notice(level, text)
            case _:
                assert_never(effect)

    def _send(self, node_id: str | None, link: str | None, message: ControlMessage) -> None:
        # One counter for all peers: it grows for each of them, and survives a change of path.
        self._sequence += 1
        envelope = Envelope(self._label, self._identity.node_id, self._boot_id, self._sequence)
        try:
            frame = encode(envelope, message)
        except ProtocolError as error:
            self._counters["encode_errors"] += 1
            self._fault("encoding", error)
            return
        self._transport.send(node_id, link, frame)

    def _publish(self, now: float) -> None:
        self._view_changed = False
        self.view = self._driven.view()
        self._on_view(self.view)
        self._attempt("remembering peers", self._keep_remembered)

    def _offer_remembered(self, now: float) -> Sequence[Effect]:
        try:
            links = self._peers_file.load()
        except ValueError as error:
            self._notice("warning", str(error))
            return ()
        return [e for link in links for e in self._driven.candidate(link, now)]

    def _keep_remembered(self, now: float) -> Sequence[Effect]:
        try:
            self._peers_file.keep(self._driven.remembered(), now)
        except ValueError as error:
            self._notice("warning", str(error))
        return ()

    def _check_addresses(self, now: float) -> Sequence[Effect]:
        assert self._read_endpoints is not None
        endpoints = self._read_endpoints()
        self._counters["addresses_read"] += 1
        if self._endpoints in {None, endpoints}:
            self._endpoints = endpoints
            return ()
        self._endpoints = endpoints
        self._transport.retry()
        return self._driven.readdress(endpoints, now)

    def _farewell(self, now: float) -> Sequence[Effect]:
        for effect in self._driven.leave(now):
            self._perform(effect)
        self._left.set()
        return ()

    def _fault(self, doing: str, error: Exception) -> None:
        self._counters["faults"] += 1
        text = f"a fault while {doing}, please report it: {type(error).__name__}: {error}"
        if len(self._faults_said) < FAULTS_SAID_MAX and text not in self._faults_said:
            self._faults_said.add(text)
            self._notice("warning", text)

    def _notice(self, level: str, text: str) -> None:
        with suppress(Exception):  # whoever listens must not be able to end the mesh thread
            self._on_notice(Notice(level, text))
