"""Whatever peers say and links do, the machine neither raises nor runs away."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from meshd.core.membership.config import MembershipConfig
from protocol.messages import (
    MEMBER_STATES,
    Ack,
    Beat,
    Capacity,
    CapacityWanted,
    ControlMessage,
    DigestEntry,
    Gossip,
    Heartbeat,
    Hello,
    LoadWanted,
    Nack,
    Ping,
    PingReq,
    Pull,
    Update,
)
from tests.core.membership.builders import (
    HOSTS,
    ME,
    A,
    B,
    Bench,
    C,
    D,
    capacity,
    claim,
    endpoint,
    link,
    load,
)

EVERYBODY = (ME, A, B, C, D, "99" * 16)
BOOTS = (7, 8, 9)
LINKS = (*[link(node_id) for node_id in HOSTS], "nas.local:8788", "[fe80::1%eth0]:8788")
CAUSES = ("eof", "refused", "unreachable", "timeout", "handshake")
INCARNATIONS = (0, 99, 100, 101, 1_000, 1_001, 2**63, 2**64 - 1)
STEPS = 300
EFFECTS_MAX = 200
"""Of one input, in a mesh of six: a few frames to each, and some connections."""


def _update(rng: Random) -> Update:
    hosts = [endpoint(rng.choice(list(HOSTS.values()))) for _ in range(rng.randrange(3))]
    return claim(
        rng.choice(EVERYBODY),
        rng.choice(MEMBER_STATES),
        rng.choice(INCARNATIONS),
        boot_id=rng.choice(BOOTS),
        endpoints=tuple(hosts),
        accuser=rng.choice((None, *EVERYBODY)),
    )


def _message(rng: Random, bench: Bench) -> ControlMessage:
    """Any message; nonces are sometimes those of a real probe."""
    nonces = [ping.nonce for ping in bench.sent(Ping)[-5:]] or [1]
    nonce, target, number = rng.choice(nonces), rng.choice(EVERYBODY), rng.randrange(5)
    updates = tuple(_update(rng) for _ in range(rng.randrange(4)))
    digest = (DigestEntry(target, rng.choice(MEMBER_STATES), rng.choice(INCARNATIONS)),)
    wanted = rng.random() < 0.5
    makers: list[Callable[[], ControlMessage]] = [
        lambda: Hello(_update(rng), capacity(number), load(number, number), wanted),
        lambda: Heartbeat(rng.choice(INCARNATIONS), number, load(number, number), updates),
        lambda: Beat(rng.choice(INCARNATIONS), number, number),
        lambda: Capacity(capacity(number)),
        lambda: CapacityWanted(number),
        lambda: LoadWanted(number),
        lambda: Ping(nonce, target, updates),
        lambda: Ack(nonce, target, updates),
        lambda: PingReq(nonce, target, updates),
        lambda: Nack(nonce, target),
        lambda: Gossip(updates),
        lambda: Pull(digest),
    ]
    return rng.choice(makers)()


def _step(rng: Random, bench: Bench) -> int:
    """One random input; how much it brought about."""
    before = len(bench.effects)
    name, who = rng.choice(LINKS), rng.choice(EVERYBODY)
    over = rng.choice((None, None, name))
    steps: list[Callable[[], object]] = [
        lambda: bench.hear(who, _message(rng, bench), boot=rng.choice(BOOTS), over=over),
        lambda: bench.hear(who, _message(rng, bench), over=over),
        lambda: bench.do(lambda m, now: m.link_up(name, now)),
        lambda: bench.down(name, rng.choice(CAUSES)),
        lambda: bench.do(lambda m, now: m.candidate(name, now, typed=rng.random() < 0.5)),
        lambda: bench.do(lambda m, now: m.candidate(name, now, node_id=who)),
        lambda: bench.do(lambda m, now: m.relay_heard(who, now)),
        lambda: bench.do(lambda m, now: m.relay_failed(who, "eof", now)),
        lambda: bench.do(lambda m, now: m.report(load(rng.randrange(9)), now)),
        lambda: bench.do(lambda m, now: m.woke(now)),
        lambda: bench.do(lambda m, now: m.tick(now)),
        lambda: bench.advance(rng.choice((0.001, 0.1, 1.0))),
    ]
    weights = (8, 8, 2, 2, 1, 1, 1, 1, 1, 0.2, 4, 4)
    index = rng.choices(range(len(steps)), weights)[0]
    bench.now += rng.choice((0.0, 0.001, 0.05, 3.0 * (rng.random() < 0.02)))
    steps[index]()
    return len(bench.effects) - before


@pytest.mark.parametrize("seed", range(60))
def test_no_input_makes_it_raise_or_run_away(seed: int) -> None:
    """Lies, nonsense, absurd numbers and impossible orders of events cost a bounded reaction."""
    rng = Random(f"anything {seed}")
    bench = Bench(MembershipConfig(tombstone_s=rng.choice((0.5, 3_600.0))), seed=seed)
    bench.answering = {node_id for node_id in (A, B, C, D) if rng.random() < 0.5}
    most = max(_step(rng, bench) for _ in range(STEPS))
    assert most <= EFFECTS_MAX
    assert bench.state(ME) == "alive"
    assert len(bench.machine.view().members) <= len(EVERYBODY)
    assert bench.machine.remembered() is not None
