"""A mesh of wardens ends with one trust, whoever slept, crossed or lied."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from meshd.core.effects import Notice
from meshd.net import rotation
from meshd.net.trust import Identity, TrustError, derive_mesh_key, identity_of
from meshd.net.vault import Vault
from meshd.net.warden import TELL_TRIES, Revocation, Warden
from protocol.pairing import Sponsor
from protocol.trust import TrustRecord

KEY = derive_mesh_key(b"k" * 32)
NAMES = ("anna", "bert", "carl", "dora", "emil")


class Village:
    """Five nodes that know each other; some may be asleep."""

    def __init__(self, folder: Path) -> None:
        self.asleep: set[str] = set()
        self.notices: list[Notice] = []
        self.switched: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.people = {name: identity_of(name.encode().ljust(32, b"!")) for name in NAMES}
        self.name_of = {who.node_id: name for name, who in self.people.items()}
        self.vaults = {name: Vault(folder / name, KEY) for name in NAMES}
        self.wardens = {name: self.warden(name, who) for name, who in self.people.items()}
        for name, who in self.people.items():
            for vault in self.vaults.values():
                vault.pin(who.public_key, name)

    def warden(self, name: str, who: Identity) -> Warden:
        """One node's warden, whose questions reach the others' answers."""

        async def sync(sponsor: Sponsor, state: TrustRecord) -> TrustRecord:
            self.asked.append((name, sponsor.name))
            if {name, sponsor.name} & self.asleep:
                raise TimeoutError
            answer = await self.wardens[sponsor.name].answer(who.node_id, state)
            if answer is None:
                raise TimeoutError
            return answer

        return Warden(
            who.node_id,
            self.vaults[name],
            sync=sync,
            alive=lambda: [self.people[other].node_id for other in NAMES],
            on_adopted=lambda _: self.switched.append(name),
            on_notice=self.notices.append,
            rng=Random(name),
            entropy=Random(f"{name} draws").randbytes,
        )

    async def revoke(self, by: str, whom: str) -> Revocation:
        """`by` shuts `whom` out."""
        return await self.wardens[by].revoke(self.people[whom].node_id)

    async def tick(self, times: int = 1, start: float = 0.0, only: tuple[str, ...] = NAMES) -> None:
        """Seconds go by for everybody who is awake."""
        for second in range(times):
            for name in only:
                await self.wardens[name].tick(start + second)

    def states(self, *names: str) -> set[TrustRecord]:
        """What these hold, each once."""
        return {self.vaults[name].state for name in names}


@pytest.fixture
def village(tmp_path: Path) -> Village:
    """Everybody awake, nobody revoked."""
    return Village(tmp_path)


async def test_a_revocation_is_everywhere_at_once(village: Village) -> None:
    """Every other member holds the new key when the command returns, and the victim does not."""
    done = await village.revoke("anna", "emil")
    assert done == Revocation(("dora", "carl", "bert"), ())
    (state,) = village.states("anna", "bert", "carl", "dora")
    assert state.revoked == (village.people["emil"].node_id,)
    assert village.states("emil") == {rotation.founded(KEY)}
    assert sorted(village.switched) == ["anna", "bert", "carl", "dora"]


async def test_the_revoked_learn_nothing_by_asking(village: Village) -> None:
    """Neither the key nor anything else, and what they bring along is not merged."""
    await village.revoke("anna", "emil")
    mine = rotation.revoke(rotation.founded(KEY), village.people["anna"].node_id, b"e" * 32)
    answer = await village.wardens["bert"].answer(village.people["emil"].node_id, mine)
    assert answer is None
    assert village.people["anna"].node_id not in village.vaults["bert"].state.revoked


async def test_who_was_silent_is_told_again(village: Village) -> None:
    """A member that was too busy for two seconds has the key soon after."""
    village.asleep = {"bert"}
    assert (await village.revoke("anna", "emil")).silent == ("bert",)
    village.asleep = set()
    await village.tick(only=("anna",))
    assert len(village.states("anna", "bert")) == 1


async def test_who_is_silent_for_long_is_left_in_peace(village: Village) -> None:
    """A machine in a drawer is not called for ever."""
    village.asleep = {"bert"}
    await village.revoke("anna", "emil")
    await village.tick(TELL_TRIES, only=("anna",))
    village.asked.clear()
    village.wardens["anna"]._sync_at = 1e9
    await village.tick(5, only=("anna",))
    assert village.asked == []


async def test_a_sleeper_asks_when_it_wakes(village: Village) -> None:
    """It slept through the rotation; its doubt is answered over the relay at the next tick."""
    village.asleep = {"bert"}
    await village.revoke("anna", "emil")
    village.asleep = set()
    village.wardens["bert"]._sync_at = 1e9
    await village.tick(only=("bert",))
    assert len(village.states("anna", "bert")) == 2
    village.wardens["bert"].doubt()
    await village.tick(only=("bert",))
    assert len(village.states("anna", "bert")) == 1


async def test_who_hears_nobody_asks_every_second(village: Village) -> None:
    """Being alone is reason enough for doubt."""
    warden = village.wardens["bert"]
    warden._alive = lambda: [village.people["bert"].node_id]
    warden._sync_at = 1e9
    await village.tick(2, only=("bert",))
    assert len(village.asked) == 6


async def test_two_revokers_at_once_end_with_one_sound_key(village: Village) -> None:
    """Anna and Bert cannot hear each other while each revokes; then they meet."""
    village.asleep = {"bert", "dora"}
    await village.revoke("anna", "emil")
    village.asleep = {"anna", "carl", "emil"}
    await village.revoke("bert", "dora")
    village.asleep = set()
    await village.tick(12, start=100.0)
    (state,) = village.states("anna", "bert", "carl")
    assert rotation.sound(state)
    assert set(state.revoked) == {village.people[name].node_id for name in ("emil", "dora")}
    secrets_told = {village.vaults[name].state.secret for name in ("emil", "dora")}
    assert state.secret not in secrets_told


async def test_an_old_state_replayed_switches_nothing(village: Village) -> None:
    """A recorded answer of last week has no effect at all."""
    await village.revoke("anna", "emil")
    village.switched.clear()
    before = village.vaults["bert"].state
    await village.wardens["bert"].answer(village.people["carl"].node_id, rotation.founded(KEY))
    assert village.vaults["bert"].state == before
    assert village.switched == []


async def test_revocations_survive_a_restart(village: Village, tmp_path: Path) -> None:
    """Of the revoker and of a member that was told."""
    await village.revoke("anna", "emil")
    for name in ("anna", "bert"):
        again = Vault(tmp_path / name, KEY)
        assert again.state == village.vaults[name].state
        assert not again.admits(village.people["emil"].public_key)


async def test_trust_of_another_mesh_is_said_and_not_taken(village: Village) -> None:
    """A member that moved to another mesh does not take its friends along."""
    other = rotation.founded(derive_mesh_key(b"o" * 32))
    answer = await village.wardens["anna"].answer(village.people["bert"].node_id, other)
    assert answer == rotation.founded(KEY)
    assert "offered to mesh" in village.notices[0].text


async def test_a_revoked_node_says_so_once_and_keeps_quiet(village: Village) -> None:
    """Whoever reads its log knows why nobody answers, and how to come back."""
    emil = village.people["emil"].node_id
    village.vaults["emil"].adopt(rotation.revoke(rotation.founded(KEY), emil, b"n" * 32))
    await village.tick(3, only=("emil",))
    assert ["pair again" in notice.text for notice in village.notices] == [True]
    assert village.asked == []


async def test_nobody_revokes_itself(village: Village) -> None:
    """It could not tell the others with a key that it must not know."""
    with pytest.raises(TrustError, match="on another member"):
        await village.revoke("anna", "anna")


async def test_a_quiet_mesh_asks_seldom(village: Village) -> None:
    """One question in half a minute, to anybody."""
    await village.tick(120, only=("anna",))
    assert 3 <= len(village.asked) <= 8
