"""Keeps this node's trust equal to its mesh's: revokes, tells, asks, and mends.

What trust is and how two states merge is `rotation`; where it is kept is `vault`. This is the part
that talks. One question is enough for everything: "this is what I hold, what do you hold?" Both
sides merge, so a revocation is pushed and a missed one is pulled in the same words. The question
goes over the relay, whose two ends are pinned to node keys, so it works when mesh keys differ.

- A revocation is on disk and in force here before anybody is told; then all members are told at
  once, and those who did not answer again every TICK_S, for TELL_TRIES times.
- Every SYNC_EVERY_S one random member is asked, which finds whatever was missed; at once when there
  is reason for doubt: a control handshake with a member failed, or nobody is heard at all.
- A key that a revoked node knows (two revocations crossed) is replaced; see `rotation`.
- A node that is revoked gets no answer, and nothing it says is merged. If this node itself is
  revoked it says so, once, and stops asking.

Runs on one loop; the disk is waited for in a thread. `sync` is the question: it is given a member
and a state, and returns the member's, or raises OSError or TimeoutError.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from random import Random

from meshd.core.effects import Notice
from meshd.net import rotation
from meshd.net.trust import KEY_BYTES, TrustError, node_id_of
from meshd.net.vault import Vault
from meshd.rhythm import Steady, until_next
from protocol.frozen import frozen
from protocol.pairing import Sponsor
from protocol.trust import TrustRecord

Sync = Callable[[Sponsor, TrustRecord], Awaitable[TrustRecord]]

TICK_S = 1.0
"""How often there is a look at what needs to be told, asked or mended."""

SYNC_EVERY_S = 30.0
"""How often a random member is asked although nothing is wrong: 300 bytes each way."""

ANSWER_WAIT_S = 2.0
"""One question: a connection, a handshake and a disk write on a busy Pi."""

TELL_TRIES = 30
"""Times that a silent member is told again: who sleeps longer asks when it wakes."""

SAID_MAX = 32
"""Different notices: whoever offers odd trust cannot fill the log."""

ASKED_IN_DOUBT = 3
"""Members asked at once when in doubt; one that is up to date is enough."""


@frozen
class Revocation:
    """What became of a revocation: names of the members that hold it, and of those that do not
    yet and will be told again."""

    told: tuple[str, ...]
    silent: tuple[str, ...]


class Warden:
    """The trust of one node among others. `keep_watch` is a task for its owner.

    `alive()` are the ids that membership holds alive. `on_adopted(state)` is called on the loop,
    whenever the state here has changed: put the key and the revocations to work.
    """

    def __init__(
        self,
        self_id: str,
        vault: Vault,
        *,
        sync: Sync,
        alive: Callable[[], Collection[str]],
        on_adopted: Callable[[TrustRecord], None],
        on_notice: Callable[[Notice], None],
        rng: Random,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._self_id = self_id
        self._vault = vault
        self._sync = sync
        self._alive = alive
        self._on_adopted = on_adopted
        self._on_notice = on_notice
        self._rng = rng
        self._entropy = entropy
        self._silent: dict[str, int] = {}
        self._doubt = False
        self._sync_at = 0.0
        self._unsound_since: float | None = None
        self._said: set[str] = set()

    async def revoke(self, node_id: str) -> Revocation:
        """Shut a node out of the mesh for good. Raises TrustError when it is not done here."""
        if node_id == self._self_id:
            raise TrustError("a node cannot revoke itself; run `meshctl revoke` on another member")
        await self._adopt(rotation.revoke(self._vault.state, node_id, self._entropy(KEY_BYTES)))
        return await self._tell_all()

    async def answer(self, sender: str, state: TrustRecord) -> TrustRecord | None:
        """What to say to a member that asked; None for nobody's business. Never raises."""
        if self._vault.revoked(sender):
            return None
        await self._learn(state, sender)
        return None if self._vault.revoked(sender) else self._vault.state

    def remind(self, node_ids: Collection[str]) -> None:
        """These members are known to have missed something: tell them, again and again."""
        self._silent |= dict.fromkeys(node_ids, TELL_TRIES)

    def doubt(self) -> None:
        """Something smells of a missed rotation: ask at the next tick."""
        self._doubt = True

    async def keep_watch(self) -> None:
        """Tell, ask and mend until cancelled."""
        loop, steady = asyncio.get_running_loop(), Steady("care for the mesh's trust")
        while True:
            with steady:
                await self.tick(loop.time())
            await asyncio.sleep(until_next(TICK_S, time.monotonic()))

    async def tick(self, now: float) -> None:
        """One look. `now` is monotonic seconds."""
        if self._vault.revoked(self._self_id):
            self._say(REVOKED)
            return
        await self._mend(now)
        behind = [sponsor for sponsor in self._others() if _id(sponsor) in self._silent]
        await self._tell(behind)
        alone = not set(self._alive()) - {self._self_id}
        if self._doubt or alone or now >= self._sync_at:
            few = ASKED_IN_DOUBT if self._doubt or alone else 1
            self._doubt = False
            self._sync_at = now + SYNC_EVERY_S * self._rng.uniform(0.5, 1.5)
            others = self._others()
            await self._tell(self._rng.sample(others, min(few, len(others))), remember=False)

    async def _mend(self, now: float) -> None:
        state = self._vault.state
        if rotation.sound(state):
            self._unsound_since = None
            return
        if self._unsound_since is None:
            self._unsound_since = now
        if now - self._unsound_since >= rotation.renew_wait_s(state, self._self_id, self._alive()):
            self._unsound_since = None
            try:
                await self._adopt(rotation.renew(state, self._entropy(KEY_BYTES)))
            except TrustError as error:
                self._say(f"the mesh key is known to a revoked node and cannot be renewed: {error}")
            else:
                await self._tell_all()

    async def _tell_all(self) -> Revocation:
        others = self._others()
        self._silent = {_id(sponsor): TELL_TRIES for sponsor in others}
        await self._tell(others)
        names = {_id(sponsor): sponsor.name or _id(sponsor)[:8] for sponsor in others}
        return Revocation(
            tuple(name for node_id, name in names.items() if node_id not in self._silent),
            tuple(name for node_id, name in names.items() if node_id in self._silent),
        )

    async def _tell(self, sponsors: Collection[Sponsor], *, remember: bool = True) -> None:
        """Exchange states with these members, all at once."""
        async with asyncio.TaskGroup() as group:
            for sponsor in sponsors:
                group.create_task(self._exchange(sponsor, remember=remember))

    async def _exchange(self, sponsor: Sponsor, *, remember: bool) -> None:
        node_id = _id(sponsor)
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                state = await self._sync(sponsor, self._vault.state)
        except (OSError, TimeoutError):
            if remember:
                self._miss(node_id)
            return
        self._silent.pop(node_id, None)
        await self._learn(state, sponsor.name or node_id)

    def _miss(self, node_id: str) -> None:
        left = self._silent.get(node_id, TELL_TRIES) - 1
        if left > 0:
            self._silent[node_id] = left
        else:
            self._silent.pop(node_id, None)

    async def _learn(self, state: TrustRecord, source: str) -> None:
        """Merge what another said; what cannot be merged is its problem, and said."""
        try:
            await self._adopt(state)
        except TrustError as error:
            self._say(f"trust offered by {source} not taken: {error}")

    async def _adopt(self, state: TrustRecord) -> None:
        if await asyncio.to_thread(self._vault.adopt, state):
            self._on_adopted(self._vault.state)

    def _others(self) -> list[Sponsor]:
        return [s for s in self._vault.roll if _id(s) != self._self_id]

    def _say(self, text: str) -> None:
        """Each thing once: a full disk is one line, not one a second."""
        if text not in self._said and len(self._said) < SAID_MAX:
            self._said.add(text)
            self._on_notice(Notice("warning", text))


REVOKED = (
    "this node was revoked: the mesh no longer talks to it; to come back as a new member, stop the "
    "daemon, remove node.key from its state directory, and pair again"
)


def _id(sponsor: Sponsor) -> str:
    return node_id_of(bytes.fromhex(sponsor.public_key))
