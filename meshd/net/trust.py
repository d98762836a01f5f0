"""Who is who: a node's own key pair, and the key that a mesh has in common.

Two secrets, two jobs.

- The *node key* says which node is speaking. It is a Curve25519 pair made on this machine at the
  first start and never sent anywhere; the node id is a hash of its public half, so an id cannot be
  claimed without the key. A file that is damaged is reported, never replaced: a new key would be
  a new node, and the mesh would mourn the old one.
- The *mesh key* says who may knock. From its 32 bytes everybody who holds it derives the same
  CURVE server pair for the control sockets. A client must know the server's public key before its
  first byte, so whoever lacks the mesh key cannot finish a handshake, learns nothing, and cannot
  even tell which mesh it failed to enter. The label that mDNS carries is another hash of the key
  and tells meshes apart without giving the key away.

The client side of each control connection uses the node key, which the gatekeeper hands up, so a
frame that comes *in* through the listening socket has a proven sender. A frame that goes the other
way, from a listening socket back to whoever dialled, is only proven to come from some holder of
the mesh key, because all of them share the server pair. Those frames therefore carry a voucher: the
sender's public key and a MAC under the secret that the two node keys agree on. So one member can
never speak for another, in either direction.

Derivations (BLAKE2b, RFC 7693, keyed with the mesh key, told apart by personalisation):

    label         = blake2b(key=mesh key, person="meshd label",  8 bytes), hexadecimal
    server secret = blake2b(key=mesh key, person="meshd server", 32 bytes)
    server public = X25519(server secret, base point)
    voucher       = sender's public key + blake2b(frame, key=K, person="meshd voucher", 16 bytes)
    K             = HSalsa20(X25519(own secret, other's public)), NaCl's crypto_box_beforenm

Left out on purpose: passphrases. A mesh key is 32 random bytes, so no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import field
from functools import lru_cache
from pathlib import Path

from nacl import bindings
from nacl.exceptions import CryptoError

from meshd.replacing import replace_file
from protocol import limits
from protocol.frozen import frozen
from protocol.messages import ControlMessage, Hello, Update

KEY_BYTES = limits.PUBLIC_KEY_BYTES
KEY_HEX_CHARS = 2 * KEY_BYTES
KEY_TEXT = re.compile(rb"[0-9a-fA-F]{%d}" % KEY_HEX_CHARS)
KEY_FILE_MAX_BYTES = 4_096
"""Most that is read of a key file: 64 characters and a generous amount of white space."""

VOUCHER_TAG_BYTES = 16
"""A 128-bit MAC; a forger gets one guess per frame."""
VOUCHER_BYTES = KEY_BYTES + VOUCHER_TAG_BYTES

CARRY_KEY = "copy the mesh's key file there; the first one is made by: openssl rand -hex 32"
KEEP_KEY = "restore it from a copy, or remove it to begin anew"

NODE_KEY_FILE = "node.key"
MESH_KEY_FILE = "mesh.key"


class TrustError(Exception):
    """A key cannot be read, made or used; the text says why and what to do, in one line."""


@frozen
class Identity:
    """This node's own key pair: raw 32-byte Curve25519 keys."""

    node_id: str
    public_key: bytes
    secret_key: bytes = field(repr=False)


@frozen
class MeshKey:
    """What the members of one mesh have in common. Keys are raw 32 bytes; see the module's head."""

    secret: bytes = field(repr=False)
    label: str
    server_public: bytes
    server_secret: bytes = field(repr=False)


def node_id_of(public_key: bytes) -> str:
    """The node id of a raw public key: the first 16 bytes of its SHA-256, in hexadecimal."""
    return hashlib.sha256(public_key).digest()[: limits.NODE_ID_BYTES].hex()


def identity_of(secret_key: bytes) -> Identity:
    """The identity whose raw secret key this is."""
    public_key = bindings.crypto_scalarmult_base(secret_key)
    return Identity(node_id_of(public_key), public_key, secret_key)


def truly_named(message: ControlMessage) -> bool:
    """Whether every record in `message` pairs a node id with the key that the id is the hash of.

    The relay pins the key that membership holds, so a record with another key in it would send
    other people's prompts to whoever forged it.
    """
    records: tuple[Update, ...] = getattr(message, "updates", ())
    if isinstance(message, Hello):
        records = (message.myself, *records)
    return all(_id_of_hex(record.public_key) == record.node_id for record in records)


def load_identity(state_dir: Path) -> Identity:
    """The key pair kept in `state_dir`, made at the first start. Raises TrustError."""
    return identity_of(_kept_key(state_dir / NODE_KEY_FILE))


def own_mesh_key(state_dir: Path) -> MeshKey:
    """The key of a mesh of one, kept in `state_dir`, made at the first start. Raises TrustError."""
    return derive_mesh_key(_kept_key(state_dir / MESH_KEY_FILE))


def read_mesh_key_file(path: Path) -> MeshKey:
    """The mesh key in a file of 64 hexadecimal characters that only its owner can read.

    Raises TrustError when it is missing, readable by others, or holds anything else.
    """
    return derive_mesh_key(_read_key(path, CARRY_KEY))


def derive_mesh_key(secret: bytes) -> MeshKey:
    """Everything that follows from 32 secret bytes. The same on every machine and version."""
    assert len(secret) == KEY_BYTES, len(secret)
    label = hashlib.blake2b(key=secret, person=b"meshd label", digest_size=8).hexdigest()
    server = hashlib.blake2b(key=secret, person=b"meshd server", digest_size=KEY_BYTES).digest()
    return MeshKey(secret, label, bindings.crypto_scalarmult_base(server), server)


def vouch(frame: bytes, identity: Identity, receiver_public: bytes) -> bytes:
    """The voucher that proves to one receiver that `identity` made `frame`.

    Raises TrustError when `receiver_public` is not a usable key.
    """
    secret = _agreed_secret(identity.secret_key, receiver_public)
    return identity.public_key + _tag(frame, secret)


def vouched_sender(frame: bytes, voucher: bytes, identity: Identity) -> str | None:
    """The id of the node that made `frame` for `identity`, None when the voucher is not good."""
    if len(voucher) != VOUCHER_BYTES:
        return None
    sender_public = voucher[:KEY_BYTES]
    try:
        secret = _agreed_secret(identity.secret_key, sender_public)
    except TrustError:
        return None
    if not hmac.compare_digest(_tag(frame, secret), voucher[KEY_BYTES:]):
        return None
    return node_id_of(sender_public)


@lru_cache(maxsize=limits.MEMBERS_MAX)
def _id_of_hex(public_key: str) -> str:
    return node_id_of(bytes.fromhex(public_key))


def _tag(frame: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(
        frame, key=secret, person=b"meshd voucher", digest_size=VOUCHER_TAG_BYTES
    ).digest()


@lru_cache(maxsize=limits.MEMBERS_MAX)
def _agreed_secret(own_secret: bytes, other_public: bytes) -> bytes:
    """Cached, because X25519 takes 50 us and a mesh has few pairs; bounded by the member table."""
    try:
        return bindings.crypto_box_beforenm(other_public, own_secret)
    except CryptoError:
        raise TrustError("a public key of small order agrees on no secret") from None


def _kept_key(path: Path) -> bytes:
    if not path.exists():
        try:
            replace_file(path, secrets.token_hex(KEY_BYTES).encode() + b"\n")
        except OSError as error:
            raise TrustError(
                f"cannot write {path}: {error.strerror}; "
                "make the directory writable or choose another with --state-dir"
            ) from None
    return _read_key(path, KEEP_KEY)


def _read_key(path: Path, mend: str) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(KEY_FILE_MAX_BYTES)
    except OSError as error:
        cure = f"; {mend}" if isinstance(error, FileNotFoundError) else ""
        raise TrustError(f"cannot read key file {path}: {error.strerror}{cure}") from None
    if os.name == "posix" and mode & 0o077:
        raise TrustError(
            f"key file {path} can be read by others (mode {mode & 0o777:04o}); "
            f"run: chmod 600 {path}"
        )
    text = content.strip()
    if KEY_TEXT.fullmatch(text) is None:
        raise TrustError(
            f"key file {path} does not hold {KEY_HEX_CHARS} hexadecimal characters "
            f"(found {len(text)} bytes); {mend}"
        )
    return bytes.fromhex(text.decode())
