"""The trust a node keeps on disk: the mesh's key and revocations, and its members' pinned keys.

`trust.json` in the state directory, readable by its owner only, replaced whole. Three rules:

- *A configured key founds, the vault carries on.* `mesh.key`, or the file named by the settings,
  says which mesh to found or join; pairing and rotation move on from there, and the vault remembers
  which configured key it moved on from. As long as that key is still configured, the vault holds.
  Another configured key is a person's decision for another mesh: the vault begins anew, and takes
  no revocation along, because those belong to the mesh that made them. A configured key that equals
  the vault's current one is the same mesh.
- *Revocations are never lost.* A damaged file is an error, not a fresh start; what is written is
  on the disk before anybody is told.
- *The roll is what lets a sleeper back in.* It pins the key and the relay addresses of members this
  node has seen. Whoever missed a rotation cannot finish a control handshake any more, but the relay
  is pinned to node keys: it asks a member of its roll there, who knows it from its own roll.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meshd.core.membership.member import Member
from meshd.net import rotation
from meshd.net.trust import MeshKey, TrustError, node_id_of
from meshd.replacing import replace_file
from protocol import limits
from protocol.errors import ProtocolError
from protocol.fields import ListOf, Record, decode_record
from protocol.frozen import frozen
from protocol.messages import Endpoint
from protocol.pairing import Sponsor, Welcome
from protocol.trust import TrustRecord

TRUST_FILE = "trust.json"
FORMAT = 1

ROLL_MAX = 256
"""Members pinned: as many as links are remembered, five times the design point."""

FILE_MAX_BYTES = 1024 * 1024
"""Most that is read: 256 members of the largest size take 300 KiB."""

ENDPOINTS = ListOf(Record(Endpoint), limits.ENDPOINTS_MAX)


@frozen
class _Kept:
    """What the file holds."""

    configured: str
    """Label of the configured key that this state moved on from."""
    state: TrustRecord
    roll: dict[str, Sponsor]
    """Members by node id, the one seen longest ago first."""


class Vault:
    """The trust of one node. Any thread may call anything; reads are of immutable values."""

    def __init__(self, state_dir: Path, configured: MeshKey) -> None:
        """Raises TrustError when the file is damaged or readable by others."""
        self._path = state_dir / TRUST_FILE
        self._lock = threading.Lock()
        self._kept = _carried_on(_read(self._path), configured)

    @property
    def state(self) -> TrustRecord:
        """What this node trusts now."""
        return self._kept.state

    @property
    def mesh_key(self) -> MeshKey:
        """The key of the mesh now."""
        return rotation.mesh_key(self.state)

    @property
    def roll(self) -> tuple[Sponsor, ...]:
        """The members pinned here, the one seen last first."""
        return tuple(reversed(self._kept.roll.values()))

    def revoked(self, node_id: str) -> bool:
        """Whether nobody here may talk to this node."""
        return node_id in self.state.revoked

    def admits(self, public_key: bytes) -> bool:
        """Whether the holder of a raw public key is a member for the relay: pinned, not revoked."""
        node_id = node_id_of(public_key)
        kept = self._kept
        return node_id in kept.roll and node_id not in kept.state.revoked

    def adopt(self, state: TrustRecord) -> bool:
        """Merge what another member holds; on disk when this returns. Whether anything changed.

        Raises TrustError for another mesh's state, or when the disk refuses.
        """
        with self._lock:
            merged = rotation.merge(self.state, state)
            if merged == self.state:
                return False
            self._keep(_Kept(self._kept.configured, merged, _without(self._kept.roll, merged)))
            return True

    def join(self, welcome: Welcome) -> None:
        """Leave the present mesh for the one that welcomed this node. If that is the same one, both
        may have missed something that the other knows, and nothing is lost. Raises TrustError."""
        with self._lock:
            roll = {_id(sponsor): sponsor for sponsor in reversed(welcome.sponsors)}
            trust = welcome.trust
            if trust.mesh == self.state.mesh:
                trust = rotation.merge(self.state, trust)
                roll = _renewed(self._kept.roll, roll)
            self._keep(_Kept(self._kept.configured, trust, _without(roll, trust)))

    def pin(self, public_key: bytes, name: str = "") -> None:
        """Let a newcomer in whose key was just proven, before membership has heard of it. Of a
        member that comes again, what is known stays known."""
        if node_id_of(public_key) not in self._kept.roll:
            self._pin([Sponsor(public_key.hex(), name, ())])

    def see(self, members: Iterable[Member]) -> None:
        """Pin the members that were heard from. Writes only what changed; cheap otherwise."""
        self._pin([Sponsor(m.public_key, m.name, m.endpoints) for m in members])

    def _pin(self, sponsors: list[Sponsor]) -> None:
        with self._lock:
            kept = self._kept
            news = {_id(s): s for s in sponsors if kept.roll.get(_id(s)) != s}
            if not _without(news, kept.state):
                return
            roll = _renewed(kept.roll, _without(news, kept.state))
            self._keep(_Kept(kept.configured, kept.state, roll))

    def _keep(self, kept: _Kept) -> None:
        try:
            replace_file(self._path, _written(kept))
        except OSError as error:
            raise TrustError(
                f"cannot write {self._path}: {error.strerror}; "
                "make room, or make the directory writable"
            ) from None
        self._kept = kept


def _carried_on(kept: _Kept | None, configured: MeshKey) -> _Kept:
    """The state to begin with; the first rule of the module's head."""
    if kept is None:
        return _Kept(configured.label, rotation.founded(configured), {})
    if configured.label in {kept.configured, kept.state.mesh}:
        return kept
    if configured.secret == kept.state.secret:
        return _Kept(configured.label, kept.state, kept.roll)
    return _Kept(configured.label, rotation.founded(configured), {})


def _renewed(roll: dict[str, Sponsor], news: dict[str, Sponsor]) -> dict[str, Sponsor]:
    """The roll with those who were seen just now at its end, at most ROLL_MAX."""
    before = [(node_id, sponsor) for node_id, sponsor in roll.items() if node_id not in news]
    return dict([*before, *news.items()][-ROLL_MAX:])


def _without(roll: dict[str, Sponsor], state: TrustRecord) -> dict[str, Sponsor]:
    return {node_id: sponsor for node_id, sponsor in roll.items() if node_id not in state.revoked}


def _id(sponsor: Sponsor) -> str:
    return node_id_of(bytes.fromhex(sponsor.public_key))


def _written(kept: _Kept) -> bytes:
    state = kept.state
    body = {
        "format": FORMAT,
        "configured": kept.configured,
        "mesh": state.mesh,
        "epoch": state.epoch,
        "key": state.secret.hex(),
        "excluded": state.excluded,
        "revoked": state.revoked,
        "roll": [
            {"key": s.public_key, "name": s.name, "endpoints": ENDPOINTS.encode(s.endpoints)}
            for s in kept.roll.values()
        ],
    }
    return json.dumps(body, indent=1).encode()


def _read(path: Path) -> _Kept | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(FILE_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TrustError(f"cannot read {path}: {error.strerror}") from None
    if os.name == "posix" and mode & 0o077:
        raise TrustError(
            f"{path} can be read by others (mode {mode & 0o777:04o}); it holds the mesh key, "
            f"so run: chmod 600 {path}"
        )
    try:
        return _parsed(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TrustError(
            f"{path} is damaged, and with it this node's mesh key and its revocations; restore it "
            "from a copy, or remove it and pair this machine again"
        ) from None


def _parsed(body: Any) -> _Kept:
    """Raises ValueError, TypeError or KeyError for anything that `_written` does not write."""
    if body["format"] != FORMAT:
        raise ValueError("another format")
    excluded, revoked = (
        [bytes.fromhex(node_id) for node_id in body[name]] for name in ("excluded", "revoked")
    )
    raw = [body["mesh"], body["epoch"], bytes.fromhex(body["key"]), excluded, revoked]
    state = decode_record(TrustRecord, raw)
    sponsors = [
        decode_record(Sponsor, [bytes.fromhex(row["key"]), row["name"], row["endpoints"]])
        for row in body["roll"]
    ]
    return _Kept(str(body["configured"]), state, {_id(s): s for s in sponsors[-ROLL_MAX:]})


assert issubclass(ProtocolError, ValueError)  # what `_read` relies on for bounds
