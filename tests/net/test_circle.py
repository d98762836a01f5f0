"""A circle at work: who comes in, who moves on, and what each is told of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from meshd.core.effects import Notice
from meshd.core.membership.member import Member, MeshView
from meshd.net.circle import STRANGE_MAX, Circle
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.trust import Identity, MeshKey, derive_mesh_key, identity_of
from meshd.net.vault import Vault
from protocol.messages import Endpoint
from protocol.pairing import Sponsor
from protocol.trust import TrustRecord

ANNA, BERT, CARL = (identity_of(letter * 32) for letter in (b"a", b"b", b"c"))
HERE = (Endpoint("127.0.0.1", 8788, 8789),)
LOOKS_S = 1.2
"""Two looks of a circle at who is alive."""


def member(identity: Identity, name: str) -> Member:
    """A living row of the member table."""
    return Member(
        *(identity.node_id, name, identity.public_key.hex(), "alive", 1, 1, HERE),
        *(None, None, None, 0.0, 0.0, 0.0, "", None),
    )


class Home:
    """One node's trust, with sockets that only take notes. Tests say what membership shows."""

    def __init__(self, identity: Identity, name: str, folder: Path, key: MeshKey) -> None:
        self.myself = member(identity, name)
        self.vault = Vault(folder, key)
        self.told: list[str] = []
        self.synced: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        """Whom it asked for trust, and the epoch it told; nobody answers."""
        self.looked: set[Endpoint | None] = set()
        """Where it asked for that; None where the member's own word is taken."""
        self.notices: list[Notice] = []
        self.sees()

    def sees(self, *others: Member) -> None:
        """What membership shows from now on."""
        rows = {each.node_id: each for each in (self.myself, *others)}
        self.view = MeshView(self.myself.node_id, rows, 1)

    def new_key(self, key: MeshKey) -> None:
        self.told.append("key")

    def new_mesh(self, key: MeshKey, sponsors: Collection[Sponsor]) -> None:
        self.told.append("mesh")

    def shut_out(self, node_id: str) -> None:
        self.told.append(node_id)

    async def sync(self, member: Member, state: TrustRecord) -> TrustRecord:
        await self.synced.put((member.name, state.epoch))
        self.looked.add(member.address)
        raise TimeoutError

    def advertise_door(self, port: int) -> None:
        self.told.append(f"door {port}")

    def doors(self) -> Collection[tuple[str, ...]]:
        return ()

    def endpoints(self) -> tuple[Endpoint, ...]:
        return HERE

    def names(self) -> list[str]:
        """Whom this node would tell its mesh's key."""
        return sorted(sponsor.name for sponsor in self.vault.roll)


Settle = Callable[[Identity, str, MeshKey], tuple[Circle, Home]]


@pytest.fixture
async def settle(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], gatekeeper: Gatekeeper
) -> AsyncIterator[Settle]:
    """Makes circles that are at work; none outlives the test."""
    made: list[Circle] = []

    def settle_one(identity: Identity, name: str, key: MeshKey) -> tuple[Circle, Home]:
        home = Home(identity, name, tmp_path / name, key)
        circle = Circle(
            identity,
            name,
            home.vault,
            home,
            context=context,
            gatekeeper=gatekeeper,
            bind_host="127.0.0.1",
            door_port=0,
            view=lambda: home.view,
            on_notice=home.notices.append,
        )
        circle.start()
        made.append(circle)
        return circle, home

    yield settle_one
    for circle in made:
        await circle.close()


async def pair(host: Circle, newcomer: Circle) -> None:
    """Eight digits shown on one and typed on the other."""
    invited = await host.invite(token=False)
    await newcomer.join(invited["code"], f"127.0.0.1:{invited['door']}")


async def test_whom_a_node_leaves_behind_is_not_told_the_key_of_its_next_mesh(
    settle: Settle,
) -> None:
    """Membership still shows them when the key has changed; the roll is for this mesh alone."""
    host, _ = settle(ANNA, "anna", derive_mesh_key(b"a" * 32))
    mover, home = settle(BERT, "bert", derive_mesh_key(b"b" * 32))
    carl = member(CARL, "carl")
    home.sees(carl)
    await asyncio.sleep(LOOKS_S)
    assert home.names() == ["carl"]
    await pair(host, mover)
    home.sees(carl, member(ANNA, "anna"))
    await asyncio.sleep(LOOKS_S)
    assert home.names() == ["anna"]
    home.sees()
    await asyncio.sleep(LOOKS_S)
    home.sees(replace(carl, name="carl, who moved too"))
    await asyncio.sleep(LOOKS_S)
    assert home.names() == ["anna", "carl, who moved too"]


async def test_a_member_that_slept_through_a_revocation_does_not_undo_it_by_inviting(
    settle: Settle,
) -> None:
    """Who pairs with it again keeps what the mesh decided, and tells it."""
    key = derive_mesh_key(b"k" * 32)
    sleeper, _ = settle(ANNA, "anna", key)
    awake, home = settle(BERT, "bert", key)
    home.sees(member(CARL, "carl"))
    await awake.revoke("carl")
    await pair(sleeper, awake)
    assert home.vault.revoked(CARL.node_id)
    async with asyncio.timeout(5):
        assert await home.synced.get() == ("anna", 1)


async def test_two_that_invite_and_join_each_other_at_once_do_not_trade_meshes(
    settle: Settle,
) -> None:
    """Who is joining lets nobody in meanwhile: one of the two may come in, but not both."""
    anna, annas = settle(ANNA, "anna", derive_mesh_key(b"a" * 32))
    bert, berts = settle(BERT, "bert", derive_mesh_key(b"b" * 32))
    labels = {annas.vault.state.mesh, berts.vault.state.mesh}
    codes = [await circle.invite(token=False) for circle in (anna, bert)]
    places = [f"127.0.0.1:{invited['door']}" for invited in codes]
    ends = await asyncio.gather(
        anna.join(codes[1]["code"], places[1]),
        bert.join(codes[0]["code"], places[0]),
        return_exceptions=True,
    )
    assert any("itself joining another mesh" in str(end) for end in ends)
    await pair(anna, bert)
    assert annas.vault.state == berts.vault.state
    assert annas.vault.state.mesh in labels


async def test_a_door_that_is_open_is_advertised_in_the_next_mesh_too(settle: Settle) -> None:
    """Its window is open still, and who looks for one nearby finds it."""
    host, _ = settle(ANNA, "anna", derive_mesh_key(b"a" * 32))
    mover, home = settle(BERT, "bert", derive_mesh_key(b"b" * 32))
    invited = await mover.invite(token=False)
    await pair(host, mover)
    await asyncio.sleep(LOOKS_S)
    assert home.told == [f"door {invited['door']}", "mesh", f"door {invited['door']}"]


async def test_a_member_is_sought_where_strangers_answer(settle: Settle) -> None:
    """The mesh has another key and everybody another address since this node was awake: mDNS tells
    the places, and whoever holds a pinned key there is asked."""
    circle, home = settle(ANNA, "anna", derive_mesh_key(b"k" * 32))
    home.vault.see([member(BERT, "bert")])
    for link in ("192.0.2.7:9000", "[fe80::1%eth0]:8788", "a.name:8788", "192.0.2.8:65535"):
        circle.doubt(link)
    places = {
        *HERE,
        Endpoint("192.0.2.7", 9000, 9001),
        Endpoint("fe80::1%eth0", 8788, 8789),
    }
    async with asyncio.timeout(10):
        while home.looked != places:
            circle.doubt("192.0.2.7:9000")
            await circle.warden.tick(0.0)
    home.looked.clear()
    home.sees(member(BERT, "bert"))
    circle.doubt("192.0.2.7:9000")
    await circle.warden.tick(0.0)
    assert home.looked == {None}


async def test_only_the_newest_strangers_are_kept(settle: Settle) -> None:
    """Whoever pretends to be many fills no table."""
    circle, home = settle(ANNA, "anna", derive_mesh_key(b"k" * 32))
    home.vault.see([replace(member(BERT, "bert"), endpoints=())])
    for number in range(STRANGE_MAX + 5):
        circle.doubt(f"192.0.2.{number}:8788")
    for _ in range(40 * STRANGE_MAX):
        circle.warden.doubt()
        await circle.warden.tick(0.0)
    hosts = {place.host for place in home.looked if place}
    assert hosts == {f"192.0.2.{number}" for number in range(5, STRANGE_MAX + 5)}
