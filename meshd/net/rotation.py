"""What the members of a mesh agree to trust, and how they agree without a leader.

The state is one `TrustRecord`: the mesh key with its epoch, whom that key was never told
(`excluded`), and who is revoked. To revoke a node is to put its id into `revoked`, draw a new key,
raise the epoch, and tell the result to everybody else over channels that are pinned to node keys.
The revoked machine keeps the old key, which by then opens nothing.

Two people may revoke at once, half the mesh may be asleep, messages come twice and late. So states
merge like sets do, in any order and any number of times:

- `revoked` only grows: the union, and of more than REVOKED_MAX the smallest ids;
- the key of the higher epoch wins; of two keys of one epoch, the greater one.

One hole remains. A revokes X while B revokes Y: B told its key to X, A told its key to Y, and one
of the two keys wins. So each key carries the ids it was kept from, and a state is *sound* when the
key was kept from everybody who is revoked. Whoever holds an unsound state draws once more, with a
higher epoch. To spare the mesh a key from each member, the alive member with the smallest id does
it at once, the next one RENEW_STEP_S later, and so on; if two do it anyway, the rules above settle
it, and the result is sound.

A replayed or late state merges into what includes it already: nothing changes.

No old key is kept for a time of grace. Forwarded requests run on the relay, whose sockets use node
keys and never notice; control connections of members break and are back, with the new key, in a
few milliseconds; and whoever missed the change asks for it over the relay. A grace for the old key
would be ten minutes in which the revoked machine walks in with a fresh name.

A revoked id stays revoked. The same machine comes back as a new node: new node key, new pairing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from meshd.net.trust import MeshKey, TrustError, derive_mesh_key
from protocol.codec import pack
from protocol.fields import encode_record
from protocol.trust import EPOCH_MAX, REVOKED_MAX, TrustRecord

RENEW_STEP_S = 2.0
"""How much longer the next member waits before it renews: a key is everywhere well within it."""


def founded(key: MeshKey) -> TrustRecord:
    """The state of a mesh that never revoked anybody."""
    return TrustRecord(key.label, 0, key.secret)


def mesh_key(state: TrustRecord) -> MeshKey:
    """What the transports need. The label is the mesh's, not the key's: it outlives rotations."""
    return replace(derive_mesh_key(state.secret), label=state.mesh)


def merge(one: TrustRecord, other: TrustRecord) -> TrustRecord:
    """What both together say. Commutative, associative, idempotent.

    Raises TrustError for states of two meshes.
    """
    if one.mesh != other.mesh:
        raise TrustError(f"trust of mesh {other.mesh} offered to mesh {one.mesh}")
    newer = max(one, other, key=lambda state: (state.epoch, state.secret, state.excluded))
    return replace(newer, revoked=_smallest({*one.revoked, *other.revoked}))


def revoke(state: TrustRecord, node_id: str, secret: bytes) -> TrustRecord:
    """The state after a node is revoked, with the fresh key `secret`. Raises TrustError."""
    if node_id in state.revoked:
        raise TrustError(f"node {node_id} is revoked already")
    if len(state.revoked) >= REVOKED_MAX:
        raise TrustError(
            f"{REVOKED_MAX} nodes are revoked already, and no more are remembered; "
            "start a new mesh: a new mesh key, and pair the machines again"
        )
    return renew(replace(state, revoked=_smallest({*state.revoked, node_id})), secret)


def renew(state: TrustRecord, secret: bytes) -> TrustRecord:
    """The same trust with the fresh key `secret`, kept from everybody revoked.

    Raises TrustError when epochs have run out.
    """
    if state.epoch >= EPOCH_MAX:
        raise TrustError("this mesh has rotated its key too often; start a new mesh")
    return replace(state, epoch=state.epoch + 1, secret=secret, excluded=state.revoked)


def sound(state: TrustRecord) -> bool:
    """Whether no revoked node was ever told the key."""
    return set(state.revoked) <= set(state.excluded)


def renew_wait_s(state: TrustRecord, self_id: str, alive: Iterable[str]) -> float:
    """How long this member lets an unsound state be, so that others may mend it first."""
    before = {node_id for node_id in alive if node_id < self_id} - set(state.revoked)
    return len(before) * RENEW_STEP_S


def fingerprint(state: TrustRecord) -> str:
    """Equal for equal states, and says nothing about the key: for people and logs."""
    return hashlib.sha256(pack(encode_record(state))).hexdigest()[:16]


def _smallest(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(ids)[:REVOKED_MAX])
