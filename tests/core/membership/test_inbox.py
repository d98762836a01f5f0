"""What each message does."""

from __future__ import annotations

from meshd.core.effects import Send
from meshd.core.membership.config import MembershipConfig
from protocol.messages import (
    Ack,
    Beat,
    Capacity,
    CapacityWanted,
    Gossip,
    Heartbeat,
    Hello,
    LoadWanted,
    Ping,
)
from tests.core.membership.builders import (
    BOOT,
    HOSTS,
    ME,
    A,
    B,
    Bench,
    C,
    capacity,
    claim,
    hello,
    load,
)


def _bench(*peers: str) -> Bench:
    bench = Bench()
    bench.meet(*peers)
    bench.forget()
    return bench


# Runs and frames


def test_a_hello_introduces_a_node() -> None:
    """One message tells everything; the node is routable from then on."""
    bench = _bench()
    bench.hear(A, hello(A))
    assert bench.member(A).routable
    assert bench.said() == ["ann joined"]


def test_a_hello_that_wants_an_answer_gets_ours_the_way_it_came() -> None:
    """Over the caller's own connection, because that is how the caller learns who it reached."""
    bench = _bench()
    effects = bench.hear(A, hello(A, answer_wanted=True))
    answer = next(e for e in effects if isinstance(e, Send) and isinstance(e.message, Hello))
    assert (answer.node_id, answer.link) == (A, None)
    assert bench.sent(Hello, A)[0].myself.node_id == ME
    assert not bench.sent(Hello, A)[0].answer_wanted


def test_a_node_speaks_only_for_itself() -> None:
    """A Hello about another node, or about another run, is a lie, known or not."""
    bench = _bench()
    bench.hear(A, hello(B))
    bench.hear(A, hello(A, boot_id=9))
    assert bench.state(A) is bench.state(B) is None
    bench.hear(A, hello(A))
    bench.hear(A, hello(A, incarnation=500, boot_id=9))
    bench.hear(A, Hello(claim(B, incarnation=500), capacity(), load(), answer_wanted=False))
    assert bench.member(A).incarnation == 100
    assert bench.state(B) is None


def test_a_stranger_is_asked_who_it_is_now_and_then() -> None:
    """Once per half second, however much it says."""
    bench = _bench()
    for _ in range(5):
        bench.hear(A, Beat(1, 1, 1))
    assert len(bench.sent(Hello, A)) == 1
    bench.advance(0.6)
    bench.hear(A, Beat(1, 1, 1))
    assert len(bench.sent(Hello, A)) == 2


def test_remembered_strangers_are_bounded() -> None:
    """Inventing senders fills no memory."""
    bench = Bench(MembershipConfig(strangers_max=4))
    for number in range(1, 20):
        bench.hear(f"{number:032x}", Beat(1, 1, 1))
    assert len(bench.machine._parts.inbox._strangers) == 4


def test_a_stranger_s_ping_is_answered() -> None:
    """We are alive, whoever asks; for others we do not speak."""
    bench = _bench()
    bench.hear(A, Ping(5, ME))
    bench.hear(B, Ping(6, C))
    assert bench.sent(Ack) == [Ack(5, ME, capacity_version=1, load_sequence=1)]


def test_an_unknown_run_of_a_known_node_is_asked_who_it_is() -> None:
    """A restarted node may speak before its Hello arrives."""
    bench = _bench(A)
    bench.hear(A, Beat(300, 1, 1), boot=8)
    assert bench.sent(Hello, A)[0].answer_wanted
    assert bench.member(A).boot_id == BOOT


def test_a_replayed_frame_has_no_effect() -> None:
    """Neither is it a sign of life, nor is it read."""
    bench = _bench(A)
    bench.hear(A, Heartbeat(100, 1, load(3, 2)), sequence=40)
    bench.answering.discard(A)
    bench.advance(2.0)
    before = bench.member(A)
    bench.hear(A, Heartbeat(100, 1, load(9, 3)), sequence=40)
    assert bench.member(A) == before


def test_frames_that_overtake_each_other_are_both_read() -> None:
    """But an older load does not replace a newer one."""
    bench = _bench(A)
    bench.hear(A, Heartbeat(100, 1, load(5, 5)), sequence=50)
    bench.hear(A, Heartbeat(100, 1, load(4, 4)), sequence=49)
    assert bench.member(A).load == load(5, 5)


def test_our_own_voice_is_recognised() -> None:
    """A link that leads back to this node is closed and not tried again."""
    bench = _bench()
    own = "127.0.0.1:8788"
    bench.do(lambda m, now: m.candidate(own, now, typed=True))
    bench.advance(0.01)
    bench.do(lambda m, now: m.link_up(own, now))
    bench.hear(ME, hello(ME, incarnation=1_000))
    assert own not in bench.hung_up()
    bench.hear(ME, hello(ME, incarnation=1_000), over=own)
    assert own in bench.hung_up()
    bench.do(lambda m, now: m.candidate(own, now, typed=True))
    assert any("this node itself" in text for text in bench.said())


def test_a_clone_that_speaks_to_its_twin_is_found_out() -> None:
    """Our identity in another run, again and again ahead of us."""
    bench = _bench(A)
    for _ in range(3):
        ahead = bench.member(ME).incarnation + 1
        bench.hear(ME, Beat(ahead, 1, 1), boot=99)
        bench.hear(ME, hello(ME, incarnation=ahead, boot_id=99), boot=99)
    assert any("identity of this one" in text and HOSTS[ME] in text for text in bench.said())


# Its state


def test_a_heartbeat_brings_load_and_age() -> None:
    """Age counts from the moment of receipt, on our own clock."""
    bench = _bench(A)
    bench.advance(3.0)
    bench.hear(A, Heartbeat(100, 1, load(3, 2)))
    assert bench.member(A).load == load(3, 2)
    assert bench.member(A).load_at == bench.now


def test_a_beat_vouches_for_the_record_that_is_held() -> None:
    """The load is as fresh as the beat."""
    bench = _bench(A)
    bench.advance(3.0)
    bench.hear(A, Beat(100, 1, 1))
    assert bench.member(A).load_at == bench.now


def test_a_beat_of_a_record_that_was_missed_has_it_sent_again() -> None:
    """And the old record does not get any fresher."""
    bench = _bench(A)
    bench.advance(3.0)
    bench.hear(A, Beat(100, 1, 4))
    bench.hear(A, Beat(100, 1, 4))
    assert bench.sent(LoadWanted, A) == [LoadWanted(1)]
    assert bench.member(A).load_at < bench.now


def test_a_capacity_that_was_missed_is_asked_for() -> None:
    """The version in each heartbeat shows it; older versions change nothing."""
    bench = _bench(A)
    bench.hear(A, Beat(100, 3, 1))
    bench.hear(A, Beat(100, 3, 1))
    assert bench.sent(CapacityWanted, A) == [CapacityWanted(1)]
    bench.hear(A, Capacity(capacity(3, "new")))
    bench.hear(A, Capacity(capacity(2, "old")))
    assert bench.member(A).capacity == capacity(3, "new")


def test_what_is_asked_of_us_is_sent() -> None:
    """Capacity unless it is held already; load in any case."""
    bench = _bench(A)
    bench.hear(A, CapacityWanted(0))
    bench.hear(A, CapacityWanted(1))
    bench.hear(A, LoadWanted(0))
    assert bench.sent(Capacity, A) == [Capacity(capacity())]
    assert bench.sent(Heartbeat, A)[0].load == load()


def test_a_node_heard_of_from_others_is_asked_for_everything() -> None:
    """Its first heartbeat brings the load, its capacity follows."""
    bench = _bench(A)
    bench.hear(A, Gossip((claim(B),)))
    assert not bench.member(B).routable
    bench.hear(B, Heartbeat(100, 1, load()))
    bench.hear(B, Capacity(capacity()))
    assert bench.member(B).routable


def test_a_node_that_was_never_loaded_is_asked_by_its_beat() -> None:
    """A beat alone cannot say what the load is."""
    bench = _bench(A)
    bench.hear(A, Gossip((claim(B),)))
    bench.hear(B, Beat(100, 0, 1))
    assert bench.sent(LoadWanted, B) == [LoadWanted(0)]


def test_after_a_sleep_no_load_is_taken_before_an_answer() -> None:
    """Heartbeats that waited in the socket are from before it."""
    bench = _bench(A, B)
    bench.answering.clear()
    bench.do(lambda m, now: m.woke(now))
    bench.hear(A, Heartbeat(100, 1, load(9, 9)))
    bench.hear(A, Beat(100, 1, 9))
    assert bench.member(A).load is None
    ping = bench.sent(Ping, A)[-1]
    bench.hear(A, Ack(ping.nonce, A))
    bench.hear(A, Heartbeat(100, 1, load(1, 10)))
    assert bench.member(A).load == load(1, 10)
