"""Which connections to open, to whom, and which one reaches whom.

    waiting --alarm--> dialling --up()--> up --answered()--> proven
       ^                  |                |
       +---- down() ------+----------------+

A *link* is one outgoing connection, known by the `host:port` it was dialled at. Its other end is
expected (we dialled a member's address), or unknown (a peer that a person typed), and proven only
when a frame comes back over it. Three origins, three manners of retrying:

- `typed` (and remembered on disk): for ever, with back-off;
- `found` by mDNS: a few times, then forgotten; capped and rate-limited, because multicast is
  unauthenticated and anybody can invent nodes;
- `member`: for as long as the member's row lives, going round its addresses, the one that answered
  last first, then best first. One connection per member is enough.

Two links to one node are one too many (its listener hands our identity to the newest), so the
newest proven one stays and the other is hung up; a typed one is then *parked* until the node is
lost.

A link that worked, ended, and is refused when dialled again proves that the process is gone: only
its own kernel can say both. Nothing else that happens to a link proves anything.
"""

from __future__ import annotations

from meshd.core.effects import Dial, Hangup
from meshd.core.membership.backoff import Slots, redial_wait_s
from meshd.core.membership.kit import Kit
from meshd.core.membership.link import NEVER, Down, Link, Way, link_of
from protocol.messages import Endpoint


class Links:
    """All links and ways. Appends Dial and Hangup to the shared effects."""

    def __init__(self, kit: Kit) -> None:
        self._config = config = kit.config
        self._agenda = kit.agenda
        self._effects = kit.effects
        self._rng = kit.rng
        self._links: dict[str, Link] = {}
        self._ways: dict[str, Way] = {}
        self._typed = 0
        self._found = 0
        self.moved: dict[str, None] = {}
        """Members whose address in use has changed; emptied within each input."""
        self._ourselves: dict[str, None] = {}
        self._found_slots = Slots(config.candidate_interval_s)
        self._member_slots = Slots(config.member_dial_interval_s)

    def __len__(self) -> int:
        return len(self._links)

    # Wishes

    def typed(self, name: str, now: float) -> bool:
        """A peer that a person named, or that was remembered. False when there are too many."""
        link = self._links.get(name)
        if link is None:
            if self._typed >= self._config.typed_max or name in self._ourselves:
                return False
            link = self._links[name] = Link(name, "typed")
            self._wait(link, now)
        elif link.origin == "typed":
            return True
        self._found -= link.origin == "found"
        link.origin = "typed"
        self._typed += 1
        return True

    def found(self, name: str, node_id: str, now: float) -> bool:
        """An mDNS find. False when it is not needed, or when there are too many."""
        way = self._ways.get(node_id)
        if name in self._links or name in self._ourselves or (way and way.path):
            return False
        if self._found >= self._config.candidates_max:
            return False
        self._found += 1
        link = self._links[name] = Link(name, "found", node_id=node_id)
        self._wait(link, self._found_slots.next(now))
        return True

    def seek(self, node_id: str, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """Keep a connection to this member. Called again when its addresses change."""
        way = self._ways.get(node_id)
        if way is None:
            way = self._ways[node_id] = Way(endpoints)
            for link in self._links.values():
                if link.node_id == node_id and link.state == "up":
                    way.path = link.name
                    way.answered = link.name if link.proven else None
        way.endpoints = endpoints
        if way.path is None and way.trying is None:
            self._try(node_id, way, now)

    def hurry(self, node_id: str, now: float) -> None:
        """There is reason to think that the member can be reached now: do not wait to dial it."""
        way = self._ways.get(node_id)
        if way is None:
            return
        way.failing_since = NEVER
        link = self._links.get(way.trying or "")
        if link is not None and link.state == "waiting":
            link.failures = 0
            self._wait(link, now)

    def lose(self, node_id: str, now: float) -> None:
        """The member is dead: what stands of its connection is worthless; dial it anew."""
        way = self._ways.get(node_id)
        if way is not None and way.path is not None:
            self._fail(self._links[way.path], now)

    def forget(self, node_id: str, now: float) -> None:
        """The member is not wanted any more."""
        way = self._ways.pop(node_id, None)
        if way is None:
            return
        self.moved[node_id] = None
        for name in {way.path: None, way.trying: None}:
            link = self._links.get(name or "")
            if link is not None:
                link.node_id = None
                link.proven = False
                self._end(link, now)
        self._unpark(node_id, now)
        self._try_idle(now)

    # Happenings

    def up(self, name: str, now: float, host: str = "") -> Link | None:
        """A handshake finished: the link to say Hello on, or None when nobody wants it. `host` is
        the address that a name led to."""
        link = self._links.get(name)
        if link is None or link.state == "parked":
            self._effects.append(Hangup(name))
            return None
        link.state, link.up_at, link.hellos, link.host = "up", now, 1, host
        link.proven = False
        way = self._ways.get(link.node_id or "")
        if way is not None and way.path is None:
            way.path = name
            way.trying = None if way.trying == name else way.trying
        self._agenda.set(("link", name), now + self._config.hello_interval_s)
        return link

    def answered(self, name: str, node_id: str, now: float) -> None:
        """A frame of this node came back over the link: that is who is there."""
        link = self._links.get(name)
        if link is None or link.state != "up" or (link.proven and link.node_id == node_id):
            return
        if link.node_id != node_id:
            self._detach(link, now)
            link.node_id = node_id
        link.proven = True
        link.failures, link.failing_since, link.complained = 0, NEVER, False
        self.moved[node_id] = None
        self._agenda.cancel(("link", name))
        way = self._ways.get(node_id)
        if way is not None:
            self._settle(way, link, now)

    def ourselves(self, name: str, now: float) -> None:
        """This node answered itself over this link: never dial that again."""
        link = self._links.get(name)
        if link is not None:
            if len(self._ourselves) < self._config.typed_max:
                self._ourselves[name] = None
            self._detach(link, now)
            self._effects.append(Hangup(name))
            self._remove(link)
            self._try_idle(now)

    def down(self, name: str, cause: str, now: float) -> Down:
        """A link ended, or an attempt failed, for one of the shell's causes."""
        link = self._links.get(name)
        if link is None or link.state in {"waiting", "parked"}:
            return Down()
        node_id, was_up, proven = link.node_id, link.state == "up", link.proven
        if cause == "eof" and was_up:
            steady = now - link.up_at >= self._config.steady_link_s or not link.failures
            link.eof_at = now if proven else NEVER
            if steady:
                self._redial_at_once(link, now)
                return Down(node_id)
        recent = now - link.eof_at <= self._config.proof_window_s
        gone = cause == "refused" and recent
        wrong_key = cause == "handshake" and link.origin == "typed" and not link.complained
        link.complained = link.complained or wrong_key
        eof_at = link.eof_at
        self._fail(link, now)
        return Down(node_id if was_up or gone else None, gone, eof_at, wrong_key)

    def alarm(self, name: str, now: float) -> Link | None:
        """The time set for a link has come; the link to say Hello on again, if that is due."""
        link = self._links[name]
        if link.state == "waiting":
            link.state = "dialling"
            self._effects.append(Dial(name))
            self._agenda.set(("link", name), now + self._config.connect_timeout_s)
        elif link.state == "dialling" or link.hellos >= self._config.hello_tries:
            self._fail(link, now)
        else:
            link.hellos += 1
            self._agenda.set(("link", name), now + self._config.hello_interval_s)
            return link
        return None

    # Questions

    def path(self, node_id: str) -> str | None:
        """The link to send on, None when the member must be reached over its own connection."""
        way = self._ways.get(node_id)
        return None if way is None else way.path

    def address(self, node_id: str) -> Endpoint | None:
        """The member's address that answers from here, None while none does."""
        way = self._ways.get(node_id)
        if way is None or way.path is None or not self._links[way.path].proven:
            return None
        if not way.endpoints:
            return None
        host, _, port = way.path.rpartition(":")
        host = self._links[way.path].host or host.removeprefix("[").removesuffix("]")
        answers = Endpoint(host, int(port), way.endpoints[0].relay_port)
        same = (each for each in way.endpoints if link_of(each) == link_of(answers))
        return next(same, answers)

    def answered_links(self) -> dict[str, str]:
        """For every member that ever answered: the link that did last."""
        return {n: way.answered for n, way in self._ways.items() if way.answered is not None}

    # Inside

    def _try(self, node_id: str, way: Way, now: float) -> None:
        """Wait for, then dial, the member's next address that nobody else holds or tries."""
        names = way.names()
        for step in range(len(names)):
            name = names[(way.turn + step) % len(names)]
            link = self._links.get(name)
            if name in self._ourselves or (link is not None and self._taken(link, node_id)):
                continue
            way.turn += step
            way.trying = name
            if link is None:
                link = self._links[name] = Link(name, "member", node_id=node_id)
                link.failing_since = way.failing_since
                rounds, place = divmod(way.turn, len(names))
                link.failures = rounds
                if place or not rounds:
                    self._wait(link, self._member_slots.next(now))
                else:
                    self._wait(link, now + self._wait_s(rounds, way.failing_since, now))
            link.node_id = node_id
            return

    def _try_idle(self, now: float) -> None:
        """Whoever is not sought may have waited for an address that somebody has let go."""
        for node_id, way in self._ways.items():
            if way.path is None and way.trying is None:
                self._try(node_id, way, now)

    def _taken(self, link: Link, node_id: str) -> bool:
        """Whether a link is another node's. Two members may claim one address; whoever answers
        there has it, and until then the first to try it keeps it."""
        other = link.node_id not in {None, node_id}
        return (link.proven and link.node_id != node_id) or (other and link.node_id in self._ways)

    def _fail(self, link: Link, now: float) -> None:
        """The link does not work now. Typed: wait. Found: a few times. Member: next address."""
        node_id = link.node_id
        way = self._ways.get(node_id or "")
        link.failures += 1
        link.failing_since = now if link.failing_since == NEVER else link.failing_since
        link.proven = False
        self._end(link, now)
        if way is not None and link.name in {way.path, way.trying}:
            assert node_id is not None
            self._unset(node_id, way, link)
            if way.failing_since == NEVER:
                way.failing_since = now
            way.turn += 1
            if way.path is None and way.trying is None:
                self._unpark(node_id, now)
                self._try(node_id, way, now)
        self._try_idle(now)

    def _end(self, link: Link, now: float) -> None:
        """Close the link; wait to dial it again, or forget it."""
        if link.state != "waiting":
            self._effects.append(Hangup(link.name))
        spent = link.origin == "found" and link.failures >= self._config.candidate_tries
        if link.origin == "member" or spent:
            self._remove(link)
        else:
            self._wait(link, now + self._wait_s(link.failures, link.failing_since, now))

    def _redial_at_once(self, link: Link, now: float) -> None:
        link.state, link.proven, link.failures = "dialling", False, 0
        way = self._ways.get(link.node_id or "")
        if way is not None and link.node_id is not None and way.path == link.name:
            way.path, way.trying = None, link.name
            self.moved[link.node_id] = None
        self._effects.append(Dial(link.name))
        self._agenda.set(("link", link.name), now + self._config.connect_timeout_s)

    def _settle(self, way: Way, link: Link, now: float) -> None:
        """This link reaches the member: let go of any other."""
        for name in {way.path: None, way.trying: None}:
            other = self._links.get(name or "")
            if other is None or other is link:
                continue
            self._effects.append(Hangup(other.name))
            if other.origin == "typed":
                other.state, other.proven = "parked", False
                self._agenda.cancel(("link", other.name))
            else:
                self._remove(other)
        way.path, way.trying = link.name, None
        way.answered, way.turn, way.failing_since = link.name, 0, NEVER
        self._try_idle(now)

    def _detach(self, link: Link, now: float) -> None:
        """Somebody else than expected answered: the expected one must be sought elsewhere."""
        node_id = link.node_id
        way = self._ways.get(node_id or "")
        if way is None or node_id is None:
            return
        way.answered = None if way.answered == link.name else way.answered
        self._unset(node_id, way, link)
        link.node_id, link.proven = None, True  # so that `_try` passes it over
        way.turn += 1
        way.failing_since = now if way.failing_since == NEVER else way.failing_since
        if way.path is None and way.trying is None:
            self._unpark(node_id, now)
            self._try(node_id, way, now)

    def _unset(self, node_id: str, way: Way, link: Link) -> None:
        way.path = None if way.path == link.name else way.path
        way.trying = None if way.trying == link.name else way.trying
        self.moved[node_id] = None

    def _unpark(self, node_id: str, now: float) -> None:
        for link in self._links.values():
            if link.state == "parked" and link.node_id == node_id:
                self._wait(link, now)

    def _wait(self, link: Link, at: float) -> None:
        link.state = "waiting"
        self._agenda.set(("link", link.name), at)

    def _wait_s(self, failures: int, failing_since: float, now: float) -> float:
        failing_s = 0.0 if failing_since == NEVER else now - failing_since
        return redial_wait_s(failures, failing_s, self._rng, self._config)

    def _remove(self, link: Link) -> None:
        self._agenda.cancel(("link", link.name))
        self._typed -= link.origin == "typed"
        self._found -= link.origin == "found"
        del self._links[link.name]
