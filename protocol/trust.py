"""What the members of one mesh trust: the key of the moment, and whom they no longer talk to.

The record crosses in two places: over the relay, where members compare what they hold (both ends
are pinned to node keys there, so it works when mesh keys differ), and at the pairing door, as part
of a newcomer's welcome. How two records merge is SPEC.md, "Trust".
"""

from __future__ import annotations

from protocol import limits
from protocol.fields import Bytes, Hex, Int, ListOf, Record, Text, record, wire

SECRET_BYTES = 32
"""A mesh key."""

REVOKED_MAX = 512
"""Revoked node ids that a mesh remembers: ten for each machine of the largest mesh it is made for.
Both lists of TrustRecord at their longest take 18 KiB."""

EPOCH_MAX = 2**31 - 1
"""Rotations a mesh may count: one a second for 68 years."""

_NODE_ID = Hex(limits.NODE_ID_BYTES)


@record
class TrustRecord:
    """The trust that members of one mesh share.

    `mesh` is the label of the mesh, which outlives its keys. `secret` is the mesh key of `epoch`,
    told to nobody in `excluded`; `revoked` are the ids that no member talks to.
    """

    mesh: str = wire(Text(limits.MESH_LABEL_MAX_CHARS, shortest=1, ascii_only=True))
    epoch: int = wire(Int(0, EPOCH_MAX))
    secret: bytes = wire(Bytes(SECRET_BYTES, exact=True), repr=False)
    excluded: tuple[str, ...] = wire(ListOf(_NODE_ID, REVOKED_MAX), default=())
    revoked: tuple[str, ...] = wire(ListOf(_NODE_ID, REVOKED_MAX), default=())


@record
class TrustSync:
    """This is the trust I hold; what do you hold? Both sides merge."""

    nonce: int = wire(Int())
    state: TrustRecord = wire(Record(TrustRecord))


@record
class TrustSynced:
    """The answer to the TrustSync of the same nonce; a revoked node gets none."""

    nonce: int = wire(Int())
    state: TrustRecord = wire(Record(TrustRecord))
