"""The exchange that turns eight digits into a mesh key, without a socket, a loop or a clock.

The difficulty: eight digits are guessed offline in a blink. So nothing that crosses the wire may
allow a guess to be checked, except in a conversation that somebody counts. SPAKE2 gives that: both
sides blind a fresh Diffie-Hellman share with the digits, and only equal digits lead to one key.

    newcomer (`Entry`)                          member (`Offers`)
    hello(invitation, X, own key)         ->
                                          <-    reply(Y, own key)
    confirm(tag over all of the above)    ->    equal? then, once:
                                          <-    welcome, sealed; else refusal

Rules, each one the answer to an attack:

- *The newcomer confirms first.* X and Y say nothing about the digits, so breaking an exchange off
  teaches nothing and costs no try; a guess is tested by a tag alone, and each wrong tag counts.
  (With the member first, hanging up after its tag would be a free guess, and counting hang-ups
  would let a passer-by, or a flaky cable, close the window.)
- *Tags cover the transcript*: both frames, hence both node keys. Whoever changes a byte between the
  two, or puts his own key in, ends the exchange for both.
- *The welcome is sealed with the agreed key*, which proves the member to the newcomer.
- *An exchange is one caller's and answers one tag*; fresh shares make a recording worthless.
- *An invitation is used once.* Time, tries or use end it, whichever comes first; then it is
  forgotten, and stays so.
- Exchanges are few (EXCHANGES_MAX) and short (EXCHANGE_S), because a hello costs the member 15 ms.

What a passer-by on the LAN can do is spend a window's tries or hold its exchanges; `meshctl pair`
then says so, and another window is one command away. `spake2` computes in variable time; with keys
that live two minutes and five answers in all, timing has nothing to average.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nacl import bindings
from nacl.exceptions import CryptoError

from meshd.net.pairing.invitation import TRIES_MAX, Entropy, Invitation
from meshd.net.pairing.refusal import PairingError, refused
from meshd.net.trust import node_id_of
from protocol.errors import ProtocolError
from protocol.frozen import frozen
from protocol.pairing import (
    TAG_BYTES,
    PairConfirm,
    PairHello,
    PairingMessage,
    PairRefusal,
    PairReply,
    PairWelcome,
    Welcome,
    decode_pairing,
    decode_welcome,
    encode_pairing,
    encode_welcome,
)

if TYPE_CHECKING:
    Spake = Any

EXCHANGES_MAX = 8
"""Exchanges at once: a shelf of new machines, and a bound on the work of a flood."""

EXCHANGE_S = 10.0
"""From hello to confirm. Two round trips and 30 ms of arithmetic; a busy Pi takes one second."""

OFFERS_MAX = 16
"""Invitations open at once: one code, and tokens for a shelf of new machines."""

NEWCOMER = b"meshd newcomer"
MEMBER = b"meshd member"
NONCE = bytes(bindings.crypto_secretbox_NONCEBYTES)
"""Constant: every seal key is used once."""


@frozen
class Admitted:
    """Who came in with which invitation."""

    public_key: bytes
    invitation: Invitation


@dataclass(slots=True)
class Offer:
    """One open invitation, as the member keeps it. Times are monotonic seconds."""

    invitation: Invitation
    until: float
    tries_left: int = TRIES_MAX


@frozen
class _Exchange:
    """One caller between hello and confirm."""

    offer: Offer
    newcomer: bytes
    until: float
    tag: bytes = field(repr=False)
    seal_key: bytes = field(repr=False)


class Offers:
    """The member's side: the open invitations, and the exchanges about them.

    `welcome(node_id)` makes what a newcomer is given, or says which refusal it gets.
    """

    def __init__(
        self, public_key: bytes, welcome: Callable[[str], Welcome | PairRefusal], entropy: Entropy
    ) -> None:
        self._public_key = public_key.hex()
        self._welcome = welcome
        self._entropy = entropy
        self._offers: dict[bytes, Offer] = {}
        self._exchanges: dict[Hashable, _Exchange] = {}

    def open(self, invitation: Invitation, now: float) -> Offer:
        """Invite from now on; a code replaces the code before it. Raises PairingError."""
        self.tick(now)
        if invitation.name not in self._offers and len(self._offers) >= OFFERS_MAX:
            raise PairingError(
                f"{OFFERS_MAX} invitations are open already; wait until one is used or has expired"
            )
        self.close(invitation.name)
        offer = Offer(invitation, now + invitation.lasts_s)
        self._offers[invitation.name] = offer
        return offer

    def close(self, name: bytes) -> None:
        """Withdraw an invitation, and end the exchanges about it. Idempotent."""
        offer = self._offers.pop(name, None)
        ended = [caller for caller, one in self._exchanges.items() if one.offer is offer]
        for caller in ended:
            del self._exchanges[caller]

    def offers(self, now: float) -> tuple[Offer, ...]:
        """The invitations that are open now."""
        self.tick(now)
        return tuple(self._offers.values())

    def tick(self, now: float) -> None:
        """Forget what has run out of time."""
        for name in [name for name, offer in self._offers.items() if offer.until <= now]:
            self.close(name)
        for caller in [c for c, one in self._exchanges.items() if one.until <= now]:
            del self._exchanges[caller]

    def deadline(self) -> float:
        """When the next invitation runs out of time; infinite when none is open."""
        return min((offer.until for offer in self._offers.values()), default=math.inf)

    def receive(self, caller: Hashable, frame: bytes, now: float) -> tuple[bytes, Admitted | None]:
        """The frame to answer `caller` with, and who was admitted, if anybody was."""
        self.tick(now)
        admitted = None
        answer: PairingMessage
        try:
            match decode_pairing(frame):
                case PairHello() as hello:
                    answer = self._greet(caller, hello, frame, now)
                case PairConfirm(tag):
                    answer, admitted = self._judge(self._exchanges.pop(caller, None), tag)
                case _:
                    answer = PairRefusal("malformed")
        except ProtocolError:
            answer = PairRefusal("malformed")
        return encode_pairing(answer), admitted

    def _greet(
        self, caller: Hashable, hello: PairHello, frame: bytes, now: float
    ) -> PairingMessage:
        offer = self._offers.get(hello.invitation)
        if offer is None:
            return PairRefusal("closed")
        self._exchanges.pop(caller, None)
        if len(self._exchanges) >= EXCHANGES_MAX:
            return PairRefusal("busy")
        spake = _spake("SPAKE2_B", offer.invitation, self._entropy)
        reply = PairReply(spake.start(), self._public_key)
        try:
            agreed = spake.finish(hello.spake)
        except Exception:  # noqa: BLE001
            # The package has no single error family for a point that is none.
            return PairRefusal("malformed")
        transcript = _transcript(frame, encode_pairing(reply))
        self._exchanges[caller] = _Exchange(
            offer,
            bytes.fromhex(hello.public_key),
            now + EXCHANGE_S,
            _derived(agreed, transcript, b"meshd pair tag"),
            _derived(agreed, transcript, b"meshd pair seal"),
        )
        return reply

    def _judge(
        self, exchange: _Exchange | None, tag: bytes
    ) -> tuple[PairingMessage, Admitted | None]:
        if exchange is None:
            return PairRefusal("closed"), None
        offer = exchange.offer
        if not hmac.compare_digest(exchange.tag, tag):
            offer.tries_left -= 1
            if offer.tries_left <= 0:
                self.close(offer.invitation.name)
            return PairRefusal("wrong"), None
        welcome = self._welcome(node_id_of(exchange.newcomer))
        if isinstance(welcome, PairRefusal):
            return welcome, None
        self.close(offer.invitation.name)
        sealed = bindings.crypto_secretbox(encode_welcome(welcome), NONCE, exchange.seal_key)
        return PairWelcome(sealed), Admitted(exchange.newcomer, offer.invitation)


class Entry:
    """The newcomer's side: one try with one invitation."""

    def __init__(self, invitation: Invitation, public_key: bytes, entropy: Entropy) -> None:
        self._spake = _spake("SPAKE2_A", invitation, entropy)
        hello = PairHello(invitation.name, self._spake.start(), public_key.hex())
        self.hello = encode_pairing(hello)
        """The first frame to send."""
        self._own_key = public_key
        self._seal_key: bytes | None = None

    def receive(self, frame: bytes) -> bytes | Welcome:
        """The frame to send next, or at the end the welcome.

        Raises PairingError when there will be none; nothing secret was shown then.
        """
        try:
            message = decode_pairing(frame)
        except ProtocolError as error:
            raise _odd(error.detail) from None
        match message:
            case PairRefusal(reason):
                raise refused(reason)
            case PairReply() if self._seal_key is None:
                return self._confirm(message, frame)
            case PairWelcome(sealed) if self._seal_key is not None:
                return self._open(sealed, self._seal_key)
            case _:
                raise _odd("a message out of turn")

    def _confirm(self, reply: PairReply, frame: bytes) -> bytes:
        try:
            agreed = self._spake.finish(reply.spake)
        except Exception as error:  # noqa: BLE001
            # As in Offers: ValueError, AssertionError and the package's own errors alike.
            raise _odd(f"its share is none ({type(error).__name__})") from None
        transcript = _transcript(self.hello, frame)
        self._seal_key = _derived(agreed, transcript, b"meshd pair seal")
        return encode_pairing(PairConfirm(_derived(agreed, transcript, b"meshd pair tag")))

    def _open(self, sealed: bytes, seal_key: bytes) -> Welcome:
        try:
            return decode_welcome(bindings.crypto_secretbox_open(sealed, NONCE, seal_key))
        except (CryptoError, ValueError):
            raise PairingError(
                "whoever answered does not know the code, so nothing it said was believed; make "
                "sure that --at names a member of your own mesh, and take a fresh code"
            ) from None


def _spake(side: str, invitation: Invitation, entropy: Entropy) -> Spake:
    import spake2  # type: ignore[import-untyped,unused-ignore]  # 150 ms, and only to pair

    make = getattr(spake2, side)
    return make(invitation.password, idA=NEWCOMER, idB=MEMBER, entropy_f=entropy)


def _transcript(hello: bytes, reply: bytes) -> bytes:
    return hashlib.sha256(hello).digest() + hashlib.sha256(reply).digest()


def _derived(agreed: bytes, transcript: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(transcript, key=agreed, person=purpose, digest_size=TAG_BYTES).digest()


def _odd(what: str) -> PairingError:
    return PairingError(
        f"what answered does not pair as this version of meshd does: {what}; "
        "check --at, and compare `meshd version` on both machines"
    )
