"""Which of two claims about a node is to be believed.

Every claim carries the incarnation of the node it speaks of, a counter that only that node raises.
That makes each node the single writer of its own history, and a claim's rank is simply

    (incarnation, alive < suspect < dead < left)

The greater claim wins. So, in SWIM's words: alive needs a higher incarnation to beat anything;
suspect and dead win at an equal one; dead and left are beaten only by a higher alive. Nobody else
can revive a node, because nobody else can raise its incarnation.

Claims of equal rank differ only where two processes share an identity, or an accuser is named; the
remaining fields break the tie, so that the merge is a join: commutative, associative, idempotent.
Order of arrival, duplicates and detours cannot make two nodes disagree for ever.

Left out on purpose: clocks. A wall clock seeds the incarnation at start and decides nothing else.
"""

from __future__ import annotations

from protocol.messages import MEMBER_STATES, Update

RANK = {state: rank for rank, state in enumerate(MEMBER_STATES)}

INCARNATION_MAX = 2**62
"""The last incarnation. Claims beyond it are not believed, and nobody else's accusation at it:
an owner must always be able to answer with a higher one. At it, the owner's own Hello counts as
higher, so a member that somebody drove to the end can still come back."""


def rank(incarnation: int, state: str) -> tuple[int, int]:
    """What claims are compared by."""
    return incarnation, RANK[state]


def supersedes(claim: Update, incarnation: int, state: str) -> bool:
    """Whether the claim says more than what is held."""
    return rank(claim.incarnation, claim.state) > rank(incarnation, state)


def answerable(claim: Update) -> bool:
    """Whether its subject could answer what another says of it."""
    most = INCARNATION_MAX if claim.state == "alive" else INCARNATION_MAX - 1
    return claim.incarnation <= most


def merge(one: Update, other: Update) -> Update:
    """The claim to keep of two about the same node."""
    assert one.node_id == other.node_id, "claims about different nodes cannot be merged"
    return max(one, other, key=_order)


def _order(claim: Update) -> tuple[object, ...]:
    places = tuple((e.host, e.control_port, e.relay_port) for e in claim.endpoints)
    return (
        *rank(claim.incarnation, claim.state),
        claim.boot_id,
        claim.name,
        claim.public_key,
        places,
        claim.accuser or "",
    )
