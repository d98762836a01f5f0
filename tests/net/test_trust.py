"""Keys: ids follow from them, files that hold them are guarded, vouchers cannot be forged."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from nacl import bindings

from meshd.net import trust
from meshd.net.trust import TrustError
from protocol.inventory import typical
from protocol.messages import CapacityWanted, Gossip, Hello, Update

ANNA = trust.identity_of(b"a" * 32)
BERT = trust.identity_of(b"b" * 32)
EVE = trust.identity_of(b"e" * 32)


def key_file(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_node_id_is_half_of_the_sha256_of_the_public_key() -> None:
    """An id cannot be chosen without the key it belongs to."""
    assert trust.node_id_of(ANNA.public_key) == hashlib.sha256(ANNA.public_key).hexdigest()[:32]
    assert ANNA.node_id == trust.node_id_of(ANNA.public_key)


def test_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    """A node that restarts is the same node."""
    first = trust.load_identity(tmp_path / "state")
    assert trust.load_identity(tmp_path / "state") == first
    assert first != trust.load_identity(tmp_path / "other")


def test_node_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """Nobody else on the machine can become this node."""
    trust.load_identity(tmp_path)
    assert stat.S_IMODE((tmp_path / trust.NODE_KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [trust.NODE_KEY_FILE]


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33, "ab " * 32, "\x00" * 64])
def test_damaged_node_key_is_reported_and_left_alone(tmp_path: Path, text: str) -> None:
    """A damaged key is never replaced: a new key would be a new node."""
    path = key_file(tmp_path, text)
    path.rename(tmp_path / trust.NODE_KEY_FILE)
    with pytest.raises(TrustError, match=r"node\.key does not hold 64 hexadecimal characters"):
        trust.load_identity(tmp_path)
    assert (tmp_path / trust.NODE_KEY_FILE).read_text() == text


def test_state_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    """The owner learns which directory it is and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(TrustError, match=r"cannot write .*file.*--state-dir") as caught:
        trust.load_identity(tmp_path / "file" / "state")
    assert "\n" not in str(caught.value)


def test_mesh_key_file_gives_the_same_mesh_everywhere(tmp_path: Path) -> None:
    """Case and a trailing newline do not matter; the 32 bytes do."""
    lower = trust.read_mesh_key_file(key_file(tmp_path, "0f" * 32 + "\n"))
    assert lower == trust.derive_mesh_key(b"\x0f" * 32)
    assert trust.read_mesh_key_file(key_file(tmp_path, "0F" * 32)) == lower


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_key_file_that_others_can_read_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    """The line names the file, its mode, and the command that helps."""
    path = key_file(tmp_path, "0f" * 32, mode)
    with pytest.raises(TrustError, match=f"chmod 600 {path}"):
        trust.read_mesh_key_file(path)


def test_missing_key_file_is_named(tmp_path: Path) -> None:
    """A wrong path is told from a wrong key, and where to get one."""
    with pytest.raises(TrustError, match=r"cannot read key file .*none: No such file.*rand -hex"):
        trust.read_mesh_key_file(tmp_path / "none")


def test_a_damaged_mesh_key_file_is_not_to_be_removed(tmp_path: Path) -> None:
    """No new one would be made in its place, as in a state directory: another copy is due."""
    with pytest.raises(TrustError, match=r"found 2 bytes\); copy the mesh's key file there"):
        trust.read_mesh_key_file(key_file(tmp_path, "ab"))


def test_label_does_not_give_the_key_away() -> None:
    """The label is 16 hexadecimal characters that share nothing with the server key."""
    key = trust.derive_mesh_key(b"k" * 32)
    assert len(bytes.fromhex(key.label)) == 8
    assert key.label not in key.server_public.hex() + key.server_secret.hex() + key.secret.hex()


def test_derivation_never_changes() -> None:
    """Two versions of meshd with one key file must meet: these values are for ever."""
    key = trust.derive_mesh_key(bytes(range(32)))
    assert key.label == "3a5412d3ad790897"
    assert (
        key.server_public.hex()
        == "24595c979a9ed311b9edbf145fc7ec374b4a0fe68f75afe897f0d798f28c0c08"
    )
    assert key.server_public == bindings.crypto_scalarmult_base(key.server_secret)


def test_mesh_of_one_is_kept(tmp_path: Path) -> None:
    """A node without a key file is alone, and stays in the same mesh of one."""
    assert trust.own_mesh_key(tmp_path) == trust.own_mesh_key(tmp_path)
    assert trust.own_mesh_key(tmp_path) != trust.own_mesh_key(tmp_path / "other")


def test_secrets_do_not_show_in_a_repr() -> None:
    """A key that is logged by accident shows its public half."""
    text = repr(ANNA) + repr(trust.derive_mesh_key(b"k" * 32))
    assert "secret" not in text
    assert repr(ANNA.secret_key) not in text


def test_voucher_proves_its_sender_to_its_receiver() -> None:
    """Bert knows that Anna, and nobody else, made this frame for him."""
    voucher = trust.vouch(b"frame", ANNA, BERT.public_key)
    assert trust.vouched_sender(b"frame", voucher, BERT) == ANNA.node_id


@pytest.mark.parametrize(
    ("frame", "voucher", "receiver"),
    [
        (b"other", trust.vouch(b"frame", ANNA, BERT.public_key), BERT),
        (b"frame", trust.vouch(b"frame", ANNA, BERT.public_key), EVE),
        (b"frame", ANNA.public_key + trust.vouch(b"frame", EVE, BERT.public_key)[32:], BERT),
        (b"frame", b"", BERT),
        (b"frame", bytes(trust.VOUCHER_BYTES), BERT),
    ],
    ids=["another frame", "another receiver", "another sender", "none", "a key of small order"],
)
def test_false_voucher_proves_nothing(
    frame: bytes, voucher: bytes, receiver: trust.Identity
) -> None:
    """No member can speak for another, and a voucher is for one frame and one receiver."""
    assert trust.vouched_sender(frame, voucher, receiver) is None


def test_a_record_with_somebody_elses_key_is_seen_through() -> None:
    """The id is the hash of the key, in gossip about others as in a node's own words."""
    honest = typical(Update)
    honest = replace(honest, node_id=ANNA.node_id, public_key=ANNA.public_key.hex())
    forged = replace(honest, public_key=EVE.public_key.hex())
    assert trust.truly_named(Gossip((honest,)))
    assert not trust.truly_named(Gossip((honest, forged)))
    assert not trust.truly_named(replace(typical(Hello), myself=forged))
    assert trust.truly_named(CapacityWanted(0))
