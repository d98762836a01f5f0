"""The circle of trust of one node: who may be in it, how one comes in, how one is put out.

The parts each know one thing: `vault` what is trusted and where that is kept, `warden` how members
keep it equal, `pairing` how a stranger proves that it was invited. This is where they meet the
sockets. Three rules hold it together:

- what changes trust is on disk before anything acts on it;
- a changed key is put to work at once (`on_key`), and the sessions of whoever was revoked end;
- the door is advertised while it is open, and only then.

`Circle` is the `TrustDesk` that the HTTP server sees.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Protocol, TypeVar

import zmq

from meshd.address import PORT_MAX, is_address, parse_host_port
from meshd.core.effects import Notice
from meshd.core.membership.member import Member, MeshView
from meshd.core.ports import TrustRefused
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.pairing.door import Door, Invited
from meshd.net.pairing.enter import enter, read_invitation
from meshd.net.pairing.exchange import Admitted
from meshd.net.pairing.refusal import PairingError
from meshd.net.trust import Identity, MeshKey, TrustError, node_id_of
from meshd.net.vault import Vault
from meshd.net.warden import Warden
from meshd.rhythm import Steady, until_next
from protocol.messages import Endpoint
from protocol.pairing import SPONSORS_MAX, PairRefusal, Sponsor, Welcome
from protocol.trust import TrustRecord

T = TypeVar("T")

LOOK_S = 0.5
"""How often it is looked whether the door has closed by itself, and who is alive."""

STRANGE_MAX = 8
"""Places of strangers that are kept: as many as a household has other meshes and moved members."""

RELAY_STEP = 1
"""From a mesh port to its relay's, as they are unless a member's owner says otherwise."""

HEARD = frozenset({"alive", "suspect"})
"""States of members whose address is known to be right, or was a moment ago."""

LOOK_FOR_DOORS_S = 4.0
"""How long a newcomer waits for an open door to be advertised: mDNS answers within two seconds."""


class Sockets(Protocol):
    """What the circle asks of the node's sockets."""

    def new_key(self, key: MeshKey) -> None:
        """The mesh has another key."""

    def new_mesh(self, key: MeshKey, sponsors: Collection[Sponsor]) -> None:
        """This node is in another mesh, where no door of it is advertised yet; these members are
        where to knock."""

    def shut_out(self, node_id: str) -> None:
        """Nobody talks to this node any more."""

    async def sync(self, member: Member, state: TrustRecord) -> TrustRecord:
        """Compare trust with a member. Raises OSError or TimeoutError."""
        ...

    def advertise_door(self, port: int) -> None:
        """The pairing door is open at `port`, or with 0 closed."""

    def doors(self) -> Collection[tuple[str, ...]]:
        """The links of every open door that is advertised nearby."""
        ...

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where this node can be reached."""
        ...


class Circle:
    """One node's trust at work. `start` on the loop, `close` when done."""

    def __init__(
        self,
        identity: Identity,
        name: str,
        vault: Vault,
        sockets: Sockets,
        *,
        context: zmq.Context[zmq.Socket[bytes]],
        gatekeeper: Gatekeeper,
        bind_host: str,
        door_port: int,
        view: Callable[[], MeshView],
        on_notice: Callable[[Notice], None],
    ) -> None:
        self._identity = identity
        self._name = name
        self._vault = vault
        self._sockets = sockets
        self._context = context
        self._view = view
        self._on_notice = on_notice
        self._revoked = frozenset(vault.state.revoked)
        self._advertised = 0
        self._joining = 0
        self._one_mesh = asyncio.Lock()
        self._left_behind: frozenset[str] = frozenset()
        """Members of the last mesh, for as long as the view still shows them."""
        self._strange: dict[Endpoint, None] = {}
        """Places where somebody answered with another mesh key, the newest last."""
        self._rng = Random()  # noqa: S311 - chooses whom to ask and where, guards nothing
        self._tasks: set[asyncio.Task[Any]] = set()
        self.warden = Warden(
            identity.node_id,
            vault,
            sync=self._sync,
            alive=self._alive,
            on_adopted=self._adopted,
            on_notice=on_notice,
            rng=self._rng,
        )
        self._door = Door(
            identity.public_key,
            context=context,
            gatekeeper=gatekeeper,
            bind_host=bind_host,
            bind_port=door_port,
            hosts=lambda: [endpoint.host for endpoint in sockets.endpoints()],
            welcome=self._welcome,
            on_admitted=self._admitted,
            on_notice=on_notice,
        )

    def start(self) -> None:
        """Keep trust equal to the mesh's from now on."""
        loop = asyncio.get_running_loop()
        self._tasks = {
            loop.create_task(self.warden.keep_watch(), name="warden"),
            loop.create_task(self._watch(), name="circle"),
        }

    async def close(self) -> None:
        """End every invitation and stop. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._door.close)

    def admits(self, public_key: bytes) -> bool:
        """Whether the holder of a raw public key, who knows the mesh key, may connect."""
        return not self._vault.revoked(node_id_of(public_key))

    def admits_to_relay(self, public_key: bytes) -> bool:
        """Whether the holder of a raw public key is a member: pinned, or known to membership."""
        if self._vault.admits(public_key):
            return True
        key = public_key.hex()
        known = any(member.public_key == key for member in self._view().members.values())
        return known and self.admits(public_key)

    # The desk

    async def invite(self, *, token: bool) -> Mapping[str, Any]:
        """See `meshd.core.ports.TrustDesk`."""
        make = self._door.invite_token if token else self._door.invite
        invited: Invited = await _refusing(make)
        self._advertise(invited.port)
        kind = "token" if token else "code"
        return {
            kind: invited.text,
            "expires_s": round(invited.expires_s, 1),
            "door": invited.port,
            "hosts": [endpoint.host for endpoint in self._sockets.endpoints()],
        }

    def invitations(self) -> Mapping[str, Any]:
        """See `meshd.core.ports.TrustDesk`."""
        return self._door.state()

    async def withdraw(self) -> None:
        """See `meshd.core.ports.TrustDesk`."""
        await _refusing(self._door.withdraw)

    async def join(self, code: str, at: str | None) -> Mapping[str, Any]:
        """See `meshd.core.ports.TrustDesk`."""
        invitation, places = await _refusing(partial(read_invitation, code, at))
        if not places:
            places = await self._nearby_door()
        self._joining += 1
        try:
            welcome: Welcome = await _refusing(
                partial(enter, invitation, places, self._identity.public_key, context=self._context)
            )
            await self._to_its_end(self._move(welcome))
        finally:
            self._joining -= 1
        names = [sponsor.name for sponsor in welcome.sponsors]
        return {"mesh": welcome.trust.mesh, "sponsors": names}

    async def revoke(self, node: str) -> Mapping[str, Any]:
        """See `meshd.core.ports.TrustDesk`."""
        node_id, name = self._find(node)
        try:
            revocation = await self._to_its_end(self.warden.revoke(node_id))
        except TrustError as error:
            raise TrustRefused(str(error)) from None
        return {
            "node": name,
            "told": list(revocation.told),
            "silent": list(revocation.silent),
            "epoch": self._vault.state.epoch,
        }

    def doubt(self, link: str) -> None:
        """Somebody at `link` (`host:port`) holds another mesh key. It may be a member: where this
        node slept through a change of the key, the others may have other addresses by now."""
        host, port = parse_host_port(link)
        if is_address(host) and port < PORT_MAX:
            place = Endpoint(host, port, port + RELAY_STEP)
            self._strange.pop(place, None)
            self._strange[place] = None
            if len(self._strange) > STRANGE_MAX:
                del self._strange[next(iter(self._strange))]
        self.warden.doubt()

    # What the parts need

    async def _move(self, welcome: Welcome) -> None:
        async with self._one_mesh:
            before = self._vault.state.mesh
            await _refusing(partial(self._vault.join, welcome))
            self._revoked = frozenset(self._vault.state.revoked)
            sponsors = {_id(sponsor) for sponsor in welcome.sponsors}
            if welcome.trust.mesh != before:
                self._left_behind = frozenset(self._view().members.keys() - sponsors)
            elif welcome.trust != self._vault.state:
                self.warden.remind(sponsors)
            self._sockets.new_mesh(self._vault.mesh_key, welcome.sponsors)
            self._advertised = 0

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """A change of trust that has begun is finished, whether or not its asker still waits."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _find(self, node: str) -> tuple[str, str]:
        """Id and name of the node that a person means. Raises TrustRefused."""
        known = {_id(sponsor): sponsor.name or _id(sponsor)[:8] for sponsor in self._vault.roll}
        known |= {member.node_id: member.name for member in self._view().members.values()}
        found = [pair for pair in known.items() if node in pair or pair[0].startswith(node)]
        if len(found) == 1:
            return found[0]
        if not found:
            names = ", ".join(sorted(known.values()))
            raise TrustRefused(f"no node is called {node!r}; known: {names}")
        ids = ", ".join(sorted(node_id for node_id, _ in found))
        raise TrustRefused(f"several nodes answer to {node!r}; say which id: {ids}")

    async def _nearby_door(self) -> tuple[str, ...]:
        """The links of the one open door that mDNS shows. Raises TrustRefused."""
        doors = self._sockets.doors()
        for _ in range(round(LOOK_FOR_DOORS_S / LOOK_S)):
            if doors:
                break
            await asyncio.sleep(LOOK_S)
            doors = self._sockets.doors()
        if not doors:
            raise TrustRefused(
                "no pairing window was found nearby; run `meshctl pair` on a member, and if it is "
                "open, name that machine: --at HOST:PORT"
            )
        if len(doors) > 1:
            places = "; ".join(", ".join(door) for door in doors)
            raise TrustRefused(
                f"several pairing windows are open nearby, and a try at the wrong one costs it a "
                f"try; say which: --at HOST:PORT ({places})"
            )
        return next(iter(doors))

    async def _sync(self, sponsor: Sponsor, state: TrustRecord) -> TrustRecord:
        node_id = _id(sponsor)
        member = self._view().members.get(node_id) or _as_member(node_id, sponsor)
        if member.state not in HEARD:
            member = self._sought(member)
        return await self._sockets.sync(member, state)

    def _sought(self, member: Member) -> Member:
        """The member at one of the places where it may be, another each time. Its key is pinned, so
        nobody else can answer there."""
        places = [*member.endpoints, *self._strange]
        return replace(member, address=self._rng.choice(places)) if places else member

    def _alive(self) -> Collection[str]:
        return [m.node_id for m in self._view().members.values() if m.state == "alive"]

    def _adopted(self, state: TrustRecord) -> None:
        self._sockets.new_key(self._vault.mesh_key)
        for node_id in frozenset(state.revoked) - self._revoked:
            self._sockets.shut_out(node_id)
        self._revoked = frozenset(state.revoked)

    def _welcome(self, node_id: str) -> Welcome | PairRefusal:
        if self._vault.revoked(node_id):
            return PairRefusal("revoked")
        if self._joining:
            # Two that let each other in at once would trade meshes, and be as far apart as before.
            return PairRefusal("busy")
        myself = Sponsor(self._identity.public_key.hex(), self._name, self._sockets.endpoints())
        return Welcome(self._vault.state, (myself, *self._vault.roll[: SPONSORS_MAX - 1]))

    def _admitted(self, admitted: Admitted) -> None:
        self._vault.pin(admitted.public_key)

    async def _watch(self) -> None:
        """Take back the advert of a door that has closed, and pin whoever is alive, so that they
        are found again after a change of key."""
        pinned: list[tuple[str, str, tuple[Endpoint, ...]]] = []
        steady = Steady("look at who is in the mesh")
        while True:
            await asyncio.sleep(until_next(LOOK_S, time.monotonic()))
            with steady:
                self._advertise(self._door.port)
            async with self._one_mesh:
                alive = self._alive_here()
                names = [(m.public_key, m.name, m.endpoints) for m in alive]
                if names != pinned:
                    pinned = names
                    with steady:
                        await self._pin(alive)

    def _alive_here(self) -> list[Member]:
        """The others of this mesh. Right after a move the view is that of the last mesh still, and
        whoever is pinned is told this one's key."""
        view = self._view()
        self._left_behind &= view.members.keys() - {view.self_id}
        strange = self._left_behind | {view.self_id}
        return [m for m in view.members.values() if m.state == "alive" and m.node_id not in strange]

    async def _pin(self, members: Collection[Member]) -> None:
        try:
            await asyncio.to_thread(self._vault.see, members)
        except TrustError as error:
            self._on_notice(Notice("warning", str(error)))

    def _advertise(self, port: int) -> None:
        if port != self._advertised:
            self._advertised = port
            self._sockets.advertise_door(port)


async def _refusing(call: Callable[[], Any]) -> Any:
    """Run a call that may wait for the disk or the network. Raises TrustRefused."""
    try:
        return await asyncio.to_thread(call)
    except (PairingError, TrustError) as error:
        raise TrustRefused(str(error)) from None


def _id(sponsor: Sponsor) -> str:
    return node_id_of(bytes.fromhex(sponsor.public_key))


def _as_member(node_id: str, sponsor: Sponsor) -> Member:
    """A pinned node that membership does not know now, as the relay needs it."""
    return Member(
        node_id=node_id,
        name=sponsor.name,
        public_key=sponsor.public_key,
        state="dead",
        incarnation=0,
        boot_id=0,
        endpoints=sponsor.endpoints,
        address=None,
        capacity=None,
        load=None,
        load_at=0.0,
        heard_at=0.0,
        changed_at=0.0,
        reason="pinned",
        rtt_s=None,
    )
