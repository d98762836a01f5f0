"""Who meets at the door in these tests: a member, newcomers, and somebody in between."""

from __future__ import annotations

from random import Random

from meshd.net.pairing.exchange import Admitted, Entry, Offers
from meshd.net.pairing.invitation import Invitation, code_invitation
from meshd.net.pairing.refusal import PairingError
from meshd.net.trust import Identity, identity_of
from protocol.messages import Endpoint
from protocol.pairing import PairRefusal, Sponsor, Welcome
from protocol.trust import TrustRecord

ANNA = identity_of(b"a" * 32)
"""The member."""
BERT = identity_of(b"b" * 32)
"""The newcomer."""
MALLORY = identity_of(b"m" * 32)
"""The one in between."""

CODE = "12345678"
WRONG = "12345679"
WELCOME = Welcome(
    TrustRecord("feedfacecafebeef", 3, b"k" * 32, (), ("ee" * 16,)),
    (Sponsor(ANNA.public_key.hex(), "anna", (Endpoint("192.168.1.20", 8788, 8789),)),),
)

REVOKED = PairRefusal("revoked")


class Member:
    """Anna, with a code open since time 0, and a clock that tests turn."""

    def __init__(self, invitation: Invitation | None = None, revoked: str = "") -> None:
        entropy = Random(1).randbytes
        self.offers = Offers(
            ANNA.public_key, lambda node_id: REVOKED if node_id == revoked else WELCOME, entropy
        )
        self.offers.open(invitation or code_invitation(CODE), 0.0)
        self.now = 1.0
        self.admitted: list[Admitted] = []

    def hear(self, frame: bytes, caller: str = "bert") -> bytes:
        """Her answer to a frame."""
        answer, admitted = self.offers.receive(caller, frame, self.now)
        self.admitted += [admitted] if admitted is not None else []
        return answer

    @property
    def tries_left(self) -> list[int]:
        """Of each invitation that is still open."""
        return [offer.tries_left for offer in self.offers.offers(self.now)]


def newcomer(text: str = CODE, identity: Identity = BERT, seed: int = 2) -> Entry:
    """Somebody who typed `text`."""
    return Entry(code_invitation(text), identity.public_key, Random(seed).randbytes)


def pair(member: Member, entry: Entry, caller: str = "bert") -> Welcome:
    """The whole exchange. Raises PairingError."""
    step: bytes | Welcome = entry.hello
    while isinstance(step, bytes):
        step = entry.receive(member.hear(step, caller))
    return step


def outcome(member: Member, entry: Entry, caller: str = "bert") -> str:
    """`in`, or the first words of why not."""
    try:
        pair(member, entry, caller)
    except PairingError as error:
        return str(error)
    return "in"
