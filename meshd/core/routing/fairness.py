"""Whose turn is it? Each person's share of this node, in tokens served (virtual token counters).

A slot that becomes free goes to the person who was served least, not to the job that came first, so
one who sends a thousand jobs waits behind their own jobs and not in front of everybody. What counts
as served is work: a prompt token 1, a token of an answer 2, because decoding one costs about twice
as much (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024). A job is charged
what it is expected to take when it starts, and what it really took when it ends.

The rules:

- counters fade with HALF_LIFE_S: a share is of now, not of all time;
- idleness is not saved up: whoever comes back is lifted to the least counter of those who are being
  served or wait, or of the last who was;
- the waiting jobs of one person share CREDIT_TOKENS, which are taken off when people are compared.
  That is ours: it lets somebody who asks one thing now and then pass the whole queue of one who
  asks everything at once, also of one who came only now and so has used little;
- the other nodes' counters are added to our own, so that nobody gains by spreading over nodes;
- an answer that another node began goes before everything that nobody has begun to read: its
  client sits before half a sentence. It is charged like any other;
- a batch job waits for all interactive ones, until it has waited BATCH_PATIENCE_S; then it counts
  as one of them, so it waits long and never for ever. Until then, one that has a slot, and waits in
  its engine for memory, keeps no interactive one out.

Fading is done without touching what fades: everything is kept in tokens of one moment (`_epoch`),
and what is added later is added larger. Orders then never change by waiting, as they should not.

Left out on purpose: taking a slot back from a running job. A person waits for one to end at most.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from protocol import limits
from protocol.load import PersonUse

PROMPT_WEIGHT = 1.0
"""What a token of a prompt counts."""

OUTPUT_WEIGHT = 2.0
"""What a token of an answer counts: w_p = 1 and w_q = 2 in the paper."""

HALF_LIFE_S = 120.0
"""In which half of what somebody used is forgotten: a few long answers of a slow machine."""

CREDIT_TOKENS = 4_000.0
"""How much more than others one may have used whose single job goes first all the same: eight or so
short answers."""

BATCH_PATIENCE_S = 60.0
"""How long a batch job gives way."""

ACCOUNTS_MAX = 1_024
"""People remembered: many times a household; those who used least are forgotten first."""

TOLD_MIN_TOKENS = 64.0
"""Less than a short question is not worth telling other nodes."""

REBASE_HALF_LIVES = 64.0
"""When the moment that everything is counted in is moved: far from where floats lose digits."""

BEGUN, USUAL, GIVES_WAY = 0, 1, 2
"""Ranks of jobs that wait."""

PERSON_SHAPE_CHARS = 2 * limits.PERSON_BYTES


@lru_cache(maxsize=ACCOUNTS_MAX)
def person_of(secret: bytes, who: str) -> str:
    """The hash by which all nodes of a mesh know who asks: 16 hexadecimal digits.

    `secret` is the mesh key's, so that nodes agree and nobody outside can try names; `who` is what
    `asker` says.
    """
    key = hashlib.blake2b(secret, person=b"meshd people").digest()
    return hashlib.blake2b(who.encode(), key=key, digest_size=limits.PERSON_BYTES).hexdigest()


def asker(key_name: str | None, address: str | None, node_id: str) -> str:
    """Who asks, before hashing: an API key is the same person everywhere, an address wherever it
    is seen from; without either it is the owner of the machine that was asked."""
    if key_name is not None:
        return f"key {key_name}"
    return f"machine {node_id}" if address is None else f"address {address}"


def known_person(claimed: str, sender: str) -> str:
    """The person to charge for a forwarded job: the one it names, else its sender (a node id)."""
    try:
        plain = bytes.fromhex(claimed).hex()  # it takes spaces, which no record can carry
    except ValueError:
        plain = ""
    return plain if len(plain) == PERSON_SHAPE_CHARS else sender[:PERSON_SHAPE_CHARS]


@dataclass(slots=True)
class _Account:
    """Tokens of the epoch. `jobs` are those that wait or run here."""

    used: float = 0.0
    lift: float = 0.0
    elsewhere: float = 0.0
    jobs: int = 0

    @property
    def counter(self) -> float:
        return self.used + self.lift + self.elsewhere


class Shares:
    """Who was served how much on this node, and on the others as they tell."""

    def __init__(self, now: float) -> None:
        self._epoch = now
        self._accounts: dict[str, _Account] = {}
        self._active: set[str] = set()
        self._told: dict[str, dict[str, float]] = {}
        """Node id -> what it said of each person, in tokens of the epoch."""
        self._left_at = 0.0
        """The counter of whoever ended the last job of all."""

    def counter(self, person: str) -> float:
        """Tokens of the epoch: for comparing people at one moment."""
        account = self._accounts.get(person)
        return account.counter if account else 0.0

    def enter(self, person: str) -> None:
        """A job of this person waits or runs from now on."""
        account = self._account(person)
        account.jobs += 1
        if account.jobs > 1:
            return
        floor = self._left_at
        if self._active:
            floor = min(self._accounts[each].counter for each in self._active)
        self._active.add(person)
        account.lift += max(0.0, floor - account.counter)

    def leave(self, person: str) -> None:
        """One of this person's jobs no longer waits or runs."""
        account = self._accounts[person]
        assert account.jobs > 0, person
        account.jobs -= 1
        if not account.jobs:
            self._active.discard(person)
            self._left_at = account.counter

    def charge(self, person: str, tokens: float, now: float) -> None:
        """Add weighted tokens; negative ones correct what was charged too high."""
        scale, account = self.counted_in(now), self._account(person)
        account.used = max(0.0, account.used + tokens * scale)

    def heard(self, node_id: str, people: Iterable[PersonUse], now: float) -> None:
        """What another node says it served, replacing what it said before; nothing when gone."""
        scale = self.counted_in(now)
        for person, tokens in self._told.pop(node_id, {}).items():
            if person in self._accounts:
                account = self._accounts[person]
                account.elsewhere = max(0.0, account.elsewhere - tokens)
        told = {use.person: use.tokens * scale for use in people}
        for person, tokens in told.items():
            self._account(person).elsewhere += tokens
        if told:
            self._told[node_id] = told

    def told_by(self) -> Sequence[str]:
        """The nodes whose words are being counted."""
        return tuple(self._told)

    def report(self, now: float) -> tuple[PersonUse, ...]:
        """What this node tells the others: those served most. Rounded to half an octave, so that
        it changes when somebody was served, or once a minute, and not with every look."""
        scale = self.counted_in(now)
        most = sorted(self._accounts.items(), key=lambda item: item[1].used, reverse=True)
        people = []
        for person, account in most[: limits.PEOPLE_MAX]:
            tokens = account.used / scale
            if tokens >= TOLD_MIN_TOKENS:
                people.append(PersonUse(person, round(2 ** (round(2 * math.log2(tokens)) / 2), 1)))
        return tuple(people)

    def counted_in(self, now: float) -> float:
        """What a token of now is in tokens of the epoch."""
        lives = (now - self._epoch) / HALF_LIFE_S
        if lives > REBASE_HALF_LIVES:
            self._rebase(now, 2.0**-lives)
            return 1.0
        return float(2.0**lives)

    def _rebase(self, now: float, shrink: float) -> None:
        self._epoch = now
        self._left_at *= shrink
        for account in self._accounts.values():
            account.used *= shrink
            account.lift *= shrink
            account.elsewhere *= shrink
        for told in self._told.values():
            for person in told:
                told[person] *= shrink

    def _account(self, person: str) -> _Account:
        account = self._accounts.get(person)
        if account is None:
            if len(self._accounts) >= ACCOUNTS_MAX:
                self._forget_somebody()
            account = self._accounts[person] = _Account()
        return account

    def _forget_somebody(self) -> None:
        idle = [(a.counter, person) for person, a in self._accounts.items() if not a.jobs]
        if idle:
            del self._accounts[min(idle)[1]]


@dataclass(slots=True, eq=False)
class Ticket:
    """One job in a queue. Token counts are estimates; times are monotonic seconds."""

    person: str
    prompt_tokens: int
    output_tokens: int
    arrived: float
    batch: bool = False
    begun: bool = False
    """The rest of an answer of which its client has read the beginning."""
    number: int = field(default=0, init=False)
    started: float | None = field(default=None, init=False)
    aside_until: float = field(default=0.0, init=False)
    """It has a slot, and so long lets interactive jobs have one like it."""

    @property
    def cost(self) -> float:
        """Weighted tokens that it is expected to take."""
        return PROMPT_WEIGHT * self.prompt_tokens + OUTPUT_WEIGHT * self.output_tokens

    def gives_way(self, now: float) -> bool:
        """Whether interactive jobs go before it now."""
        return self.batch and now - self.arrived < BATCH_PATIENCE_S

    def stands_aside(self, now: float) -> bool:
        """Whether an interactive job may run beside it, as if its slot were free."""
        return now < self.aside_until and self.gives_way(now)

    def rank(self, now: float) -> int:
        """Lower goes first, whoever is asking."""
        return BEGUN if self.begun else GIVES_WAY if self.gives_way(now) else USUAL


class FairQueue:
    """The jobs of one model: `slots` of them run, the rest wait for their person's turn."""

    def __init__(self, shares: Shares, slots: int) -> None:
        self.slots = slots
        """How many may run; may change at any time, and then holds for the next start."""
        self.running: dict[int, Ticket] = {}
        self._shares = shares
        self._waiting: dict[str, list[Ticket]] = {}
        """Per person, in order of arrival; what was begun elsewhere comes first."""
        self._length = 0
        self._next = 1
        self.prompt_tokens = 0
        """Of all that waits or runs."""
        self.output_tokens = 0
        """The same, as was expected of them."""

    def __len__(self) -> int:
        """Jobs that wait."""
        return self._length

    @property
    def people(self) -> int:
        """People whose jobs wait."""
        return len(self._waiting)

    def waiting_of(self, person: str) -> int:
        """Jobs of one person that wait."""
        return len(self._waiting.get(person, ()))

    def arrive(self, ticket: Ticket, now: float) -> bool:
        """A job comes in; whether it starts at once. Its number tells who came first."""
        ticket.number = self._next
        self._next += 1
        self._shares.enter(ticket.person)
        self._count(ticket, 1)
        if not self._length and self._has_slot(ticket, now):
            self._start(ticket, now)
            return True
        tickets = self._waiting.setdefault(ticket.person, [])
        place = sum(other.begun for other in tickets) if ticket.begun else len(tickets)
        tickets.insert(place, ticket)
        self._length += 1
        return False

    def start_next(self, now: float) -> Ticket | None:
        """Whoever's turn it is starts; None when no slot is free or nobody waits."""
        if not self._length or self._used(now) >= self.slots:
            return None
        scale = self._shares.counted_in(now)

        def turn(person: str) -> tuple[int, float, int]:
            tickets = self._waiting[person]
            counter = self._shares.counter(person)
            return self._turn(self._first(tickets, now), counter, len(tickets), scale, now)

        ticket = self._first(self._waiting[min(self._waiting, key=turn)], now)
        if not self._has_slot(ticket, now):
            return None
        self._remove(ticket)
        self._start(ticket, now)
        return ticket

    def abandon(self, ticket: Ticket) -> None:
        """A waiting job goes away without having run."""
        self._remove(ticket)
        self._shares.leave(ticket.person)
        self._count(ticket, -1)

    def end(self, ticket: Ticket, prompt_tokens: int, output_tokens: int) -> None:
        """A running job is over, and took this much, which counts from when it started."""
        del self.running[ticket.number]
        assert ticket.started is not None
        took = PROMPT_WEIGHT * prompt_tokens + OUTPUT_WEIGHT * output_tokens
        self._shares.charge(ticket.person, took - ticket.cost, ticket.started)
        self._shares.leave(ticket.person)
        self._count(ticket, -1)

    def order(self, now: float) -> list[Ticket]:
        """Those who wait, in the order in which they would start if nobody else came."""
        scale = self._shares.counted_in(now)
        lines = {
            person: sorted(tickets, key=lambda each: (each.rank(now), each.number), reverse=True)
            for person, tickets in self._waiting.items()
        }
        counters = {person: self._shares.counter(person) for person in lines}

        def turn(person: str) -> tuple[int, float, int]:
            line = lines[person]
            return self._turn(line[-1], counters[person], len(line), scale, now)

        heap = [(turn(person), person) for person in lines]
        heapq.heapify(heap)
        ordered: list[Ticket] = []
        while heap:
            person = heap[0][1]
            ticket = lines[person].pop()
            ordered.append(ticket)
            counters[person] += ticket.cost * scale
            if lines[person]:
                heapq.heapreplace(heap, (turn(person), person))
            else:
                heapq.heappop(heap)
        return ordered

    def last_of_longest(self) -> Ticket:
        """The newest job of the person with most waiting: the first to go when there is no room.
        Somebody waits."""
        longest = max(self._waiting.values(), key=len)
        return longest[-1]

    def _used(self, now: float) -> int:
        """Slots in use, as an interactive job counts them."""
        return sum(not each.stands_aside(now) for each in self.running.values())

    def _has_slot(self, ticket: Ticket, now: float) -> bool:
        return len(self.running) < self.slots or (not ticket.batch and self._used(now) < self.slots)

    def _count(self, ticket: Ticket, sign: int) -> None:
        self.prompt_tokens += sign * ticket.prompt_tokens
        self.output_tokens += sign * ticket.output_tokens

    def _start(self, ticket: Ticket, now: float) -> None:
        ticket.started = now
        self.running[ticket.number] = ticket
        self._shares.charge(ticket.person, ticket.cost, now)

    def _remove(self, ticket: Ticket) -> None:
        tickets = self._waiting[ticket.person]
        tickets.remove(ticket)
        if not tickets:
            del self._waiting[ticket.person]
        self._length -= 1

    @staticmethod
    def _first(tickets: Sequence[Ticket], now: float) -> Ticket:
        """Which of one person's jobs is next."""
        if tickets[0].begun or not tickets[0].batch:
            return tickets[0]
        return min(tickets, key=lambda each: (each.rank(now), each.number))

    @staticmethod
    def _turn(
        ticket: Ticket, counter: float, waiting: int, scale: float, now: float
    ) -> tuple[int, float, int]:
        """Lowest goes first: the next job of a person, of whose jobs so many wait."""
        return ticket.rank(now), counter - CREDIT_TOKENS * scale / waiting, ticket.number
