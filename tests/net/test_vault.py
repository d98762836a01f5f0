"""What a node trusts survives restarts, and is never lost or widened by accident."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from meshd.core.membership.member import Member
from meshd.net import vault as vaults
from meshd.net.rotation import founded, revoke
from meshd.net.trust import Identity, TrustError, derive_mesh_key, identity_of
from meshd.net.vault import ROLL_MAX, TRUST_FILE, Vault
from protocol.messages import Endpoint
from protocol.pairing import Sponsor, Welcome
from protocol.trust import TrustRecord

OWN = derive_mesh_key(b"o" * 32)
MESH = derive_mesh_key(b"m" * 32)
ANNA, BERT, CARL = (identity_of(letter * 32) for letter in (b"a", b"b", b"c"))
HERE = (Endpoint("192.168.1.20", 8788, 8789),)


def member(
    identity: Identity, name: str = "bert", endpoints: tuple[Endpoint, ...] = HERE
) -> Member:
    """A row of the member table."""
    return Member(
        *(identity.node_id, name, identity.public_key.hex(), "alive", 1, 1, endpoints),
        *(None, None, None, 0.0, 0.0, 0.0, "", None),
    )


def welcome(state: TrustRecord | None = None) -> Welcome:
    """Into MESH, by Anna."""
    sponsors = (
        Sponsor(ANNA.public_key.hex(), "anna", HERE),
        Sponsor(BERT.public_key.hex(), "", ()),
    )
    return Welcome(state or founded(MESH), sponsors)


def test_a_fresh_vault_holds_the_configured_mesh(tmp_path: Path) -> None:
    """Nobody revoked, nobody pinned, and nothing written before there is something to keep."""
    vault = Vault(tmp_path, OWN)
    assert vault.state == founded(OWN)
    assert vault.mesh_key == OWN
    assert vault.roll == ()
    assert not (tmp_path / TRUST_FILE).exists()


def test_a_joined_mesh_survives_a_restart(tmp_path: Path) -> None:
    """Its key, its label and its members; the configured key only says where it began."""
    Vault(tmp_path, OWN).join(welcome())
    again = Vault(tmp_path, OWN)
    assert again.mesh_key == MESH
    assert [sponsor.name for sponsor in again.roll] == ["anna", ""]
    assert again.admits(ANNA.public_key)


def test_a_rotation_survives_a_restart_with_the_old_key_file(tmp_path: Path) -> None:
    """The file in /etc still holds the key of the first day; the vault knows better."""
    state = revoke(founded(MESH), CARL.node_id, b"n" * 32)
    assert Vault(tmp_path, MESH).adopt(state)
    assert Vault(tmp_path, MESH).state == state


def test_a_key_file_brought_up_to_date_is_the_same_mesh(tmp_path: Path) -> None:
    """Revocations stay, and so does the label, however the fleet's files are kept."""
    state = revoke(founded(MESH), CARL.node_id, b"n" * 32)
    Vault(tmp_path, MESH).adopt(state)
    assert Vault(tmp_path, derive_mesh_key(b"n" * 32)).state == state


def test_another_key_file_is_another_mesh(tmp_path: Path) -> None:
    """A person's decision: nothing of the old mesh goes along, no revocation either."""
    vault = Vault(tmp_path, MESH)
    vault.pin(ANNA.public_key)
    vault.adopt(revoke(founded(MESH), CARL.node_id, b"n" * 32))
    moved = Vault(tmp_path, derive_mesh_key(b"z" * 32))
    assert moved.state == founded(derive_mesh_key(b"z" * 32))
    assert moved.roll == ()


def test_the_file_of_the_mesh_one_was_paired_into_changes_nothing(tmp_path: Path) -> None:
    """Configuring by file what was joined by code is no new beginning."""
    state = revoke(founded(MESH), CARL.node_id, b"n" * 32)
    Vault(tmp_path, OWN).join(welcome(state))
    assert Vault(tmp_path, MESH).state == state


def test_news_that_are_none_change_nothing(tmp_path: Path) -> None:
    """A replayed state is not written again, and says so."""
    vault = Vault(tmp_path, MESH)
    state = revoke(founded(MESH), CARL.node_id, b"n" * 32)
    assert vault.adopt(state)
    (tmp_path / TRUST_FILE).unlink()
    assert not vault.adopt(state)
    assert not vault.adopt(founded(MESH))
    assert not (tmp_path / TRUST_FILE).exists()


def test_the_revoked_are_off_the_roll_for_good(tmp_path: Path) -> None:
    """Neither a newcomer's welcome nor hearsay pins them again."""
    vault = Vault(tmp_path, MESH)
    vault.see([member(BERT)])
    assert vault.admits(BERT.public_key)
    vault.adopt(revoke(vault.state, BERT.node_id, b"n" * 32))
    vault.see([member(BERT)])
    vault.pin(BERT.public_key)
    assert vault.revoked(BERT.node_id)
    assert not vault.admits(BERT.public_key)
    assert vault.roll == ()


def test_strangers_are_not_admitted(tmp_path: Path) -> None:
    """Only pinned keys are; a key nobody vouched for is nobody's."""
    assert not Vault(tmp_path, MESH).admits(CARL.public_key)


def test_a_newcomer_is_pinned_by_its_key_alone(tmp_path: Path) -> None:
    """Before it has said its name; what membership hears later takes the place."""
    vault = Vault(tmp_path, MESH)
    vault.pin(BERT.public_key)
    assert vault.admits(BERT.public_key)
    vault.see([member(BERT)])
    assert vault.roll == (Sponsor(BERT.public_key.hex(), "bert", HERE),)


def test_seeing_the_same_again_writes_nothing(tmp_path: Path) -> None:
    """Views change all the time; the disk only hears of keys, names and addresses."""
    vault = Vault(tmp_path, MESH)
    vault.see([member(BERT)])
    (tmp_path / TRUST_FILE).unlink()
    vault.see([member(BERT)])
    assert not (tmp_path / TRUST_FILE).exists()


def test_the_roll_is_bounded_and_keeps_the_latest(tmp_path: Path) -> None:
    """Who was seen longest ago goes first."""
    vault = Vault(tmp_path, MESH)
    vault.see([member(ANNA, "anna")])
    crowd = [
        identity_of(sha256(bytes([number % 256, 1])).digest()) for number in range(1, ROLL_MAX + 1)
    ]
    vault.see([member(one, "") for one in crowd])
    assert len(vault.roll) == ROLL_MAX
    assert not vault.admits(ANNA.public_key)


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """It holds the mesh key."""
    Vault(tmp_path, OWN).join(welcome())
    path = tmp_path / TRUST_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(TrustError, match="chmod 600"):
        Vault(tmp_path, OWN)


def damage(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    """The file after a change to what is in it."""

    def changed(text: str) -> str:
        body = json.loads(text)
        change(body)
        return json.dumps(body)

    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda _: "[" * 100_000,
        damage(lambda body: body.update(format=2)),
        damage(lambda body: body.update(key="00")),
        damage(lambda body: body.update(epoch=-1)),
        damage(lambda body: body.update(revoked=["xyz"])),
        damage(lambda body: body.pop("roll")),
        damage(lambda body: body["roll"][0].update(key="00")),
    ],
)
def test_a_damaged_file_is_reported_never_replaced(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    """A fresh start would forget who is revoked; a person is told what to do instead."""
    Vault(tmp_path, OWN).join(welcome())
    path = tmp_path / TRUST_FILE
    path.write_text(change(path.read_text()))
    before = path.read_text()
    with pytest.raises(TrustError, match="restore it from a copy"):
        Vault(tmp_path, OWN)
    assert path.read_text() == before


def test_what_cannot_be_written_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk the state stays what the disk has, and the owner is told."""
    vault = Vault(tmp_path, MESH)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vaults, "replace_file", full)
    with pytest.raises(TrustError, match="make room"):
        vault.adopt(revoke(founded(MESH), CARL.node_id, b"n" * 32))
    assert vault.state == founded(MESH)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """Not taken for a missing one."""
    (tmp_path / TRUST_FILE).mkdir()
    with pytest.raises(TrustError, match="cannot read"):
        Vault(tmp_path, OWN)


def test_trust_of_another_mesh_is_not_adopted(tmp_path: Path) -> None:
    """Only `join` changes meshes."""
    with pytest.raises(TrustError, match="offered to mesh"):
        Vault(tmp_path, OWN).adopt(founded(MESH))


def test_joining_ones_own_mesh_again_loses_nothing(tmp_path: Path) -> None:
    """Whoever invites may have slept through a revocation: what is older does not win."""
    vault = Vault(tmp_path, OWN)
    vault.join(welcome())
    vault.adopt(revoke(vault.state, "ee" * 16, b"r" * 32))
    vault.see([member(CARL, "carl")])
    known = vault.state
    vault.join(welcome(founded(MESH)))
    assert vault.state == Vault(tmp_path, OWN).state == known
    assert [sponsor.name for sponsor in vault.roll] == ["anna", "", "carl"]


def test_a_member_that_pairs_again_is_still_known_where_it_was(tmp_path: Path) -> None:
    """Who has missed a change of key is asked at the addresses that the roll remembers."""
    vault = Vault(tmp_path, OWN)
    vault.see([member(CARL, "carl")])
    vault.pin(CARL.public_key)
    assert vault.roll == (Sponsor(CARL.public_key.hex(), "carl", HERE),)
