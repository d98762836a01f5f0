"""What each message does."""

from __future__ import annotations

from dataclasses import replace

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
    Nack,
    Ping,
    PingReq,
    Pull,
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
    endpoint,
    hello,
    link,
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
    assert bench.sent(Ack) == [Ack(5, ME)]


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


# Probes


def test_only_the_target_answers_a_ping() -> None:
    """An address that went to another machine must not look alive."""
    bench = _bench(A)
    bench.hear(A, Ping(5, ME))
    bench.hear(A, Ping(6, B))
    assert [(ack.nonce, ack.target) for ack in bench.sent(Ack, A)] == [(5, ME)]


def test_answers_go_back_the_way_the_question_came() -> None:
    """A probe tests one connection in both directions."""
    bench = _bench(A)
    effects = bench.hear(A, Ping(5, ME), over=link(A))
    assert [e.link for e in effects if isinstance(e, Send)] == [link(A)]


def test_a_request_to_probe_a_third_is_run_and_reported() -> None:
    """Ack when it answers us, nack when it does not."""
    bench = _bench(A, B, C)
    bench.answering.discard(C)
    bench.hear(A, PingReq(500, B))
    bench.hear(A, PingReq(501, C))
    bench.advance(0.1)
    assert [ack.nonce for ack in bench.sent(Ack, A)] == [500]
    assert bench.sent(Nack, A) == [Nack(501, C)]
    bench.advance(3.0)


def test_a_request_to_probe_ourselves_is_simply_answered() -> None:
    """Nothing needs to be sent to find out."""
    bench = _bench(A)
    bench.hear(A, PingReq(500, ME))
    assert [(a.nonce, a.target) for a in bench.sent(Ack, A)] == [(500, ME)]


def test_an_answer_measures_the_peer() -> None:
    """Its smoothed round trip is shown."""
    bench = _bench(A)
    bench.advance(1.0)
    bench.hear(A, Beat(100, 1, 1))
    assert bench.member(A).rtt_s == 0.0


def test_an_answer_through_a_helper_ends_a_suspicion() -> None:
    """It lives; only our own way to it is cut."""
    bench = _bench(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.advance(0.13)
    request = bench.asked(A)[-1]
    bench.hear(B, Ack(request.nonce, A))
    assert bench.state(A) == "alive"


def test_an_answer_nobody_waits_for_is_only_contact() -> None:
    """Nonces that were never used, and nacks for them."""
    bench = _bench(A)
    bench.hear(A, Ack(10**6, A))
    bench.hear(A, Nack(10**6, B))
    assert bench.state(A) == "alive"


def test_an_answer_about_a_row_that_has_gone_changes_nothing() -> None:
    """The tombstone may expire while the question is still remembered."""
    bench = Bench(MembershipConfig(tombstone_s=0.5))
    bench.meet(A, B, answering=False)
    bench.answering.add(B)
    bench.advance_until(lambda: bool(bench.asked(A)))
    request = bench.asked(A)[-1]
    bench.advance(0.2)
    bench.hear(B, Gossip((claim(A, "left"),)))
    bench.advance(0.6)
    assert bench.state(A) is None
    bench.hear(B, Ack(request.nonce, A))
    assert bench.state(A) is None


# Gossip and repair


def test_an_accusation_of_ourselves_is_refuted_before_everybody() -> None:
    """With a raised incarnation, straight to all; the teller gets a Hello, too."""
    bench = _bench(A, B)
    bench.hear(A, Gossip((claim(ME, "suspect", 1_000, accuser=A),)))
    assert bench.member(ME).incarnation == 1_001
    for peer in (A, B):
        assert [u.incarnation for u in bench.claims(ME, to=peer)] == [1_001]
    assert bench.sent(Hello, A)
    assert bench.machine._parts.health.score == 1


def test_an_old_accusation_is_answered_to_its_teller_alone() -> None:
    """Others know better already."""
    bench = _bench(A, B)
    bench.hear(A, Gossip((claim(ME, "dead", 500, accuser=A),)))
    assert bench.member(ME).incarnation == 1_000
    assert bench.claims(ME, to=A)
    assert not bench.claims(ME, to=B)


def test_what_is_true_of_us_needs_no_answer() -> None:
    """Alive, at our incarnation, in our run."""
    bench = _bench(A)
    bench.hear(A, Gossip((claim(ME, "alive", 1_000),)))
    assert bench.member(ME).incarnation == 1_000
    assert not bench.claims(ME)


def test_a_claim_of_our_last_run_raises_us_without_blame() -> None:
    """Peers remember it; that does not make us slow."""
    bench = _bench(A)
    bench.hear(A, Gossip((claim(ME, "dead", 5_000, boot_id=1),)))
    assert bench.member(ME).incarnation == 5_001
    assert bench.machine._parts.health.score == 0


def test_a_pull_is_answered_with_what_is_missing() -> None:
    """An empty digest gets everybody; a digest that knows better is pulled in turn."""
    bench = _bench(A, B)
    bench.hear(A, Pull(()))
    assert {u.node_id for g in bench.sent(Gossip, A) for u in g.updates} == {ME, A, B}
    assert not bench.sent(Pull, A)


def test_a_pull_that_knows_better_is_pulled_in_turn_once_a_second() -> None:
    """Two nodes that differ must not keep each other busy."""
    bench = _bench(A)
    bench.hear(A, Gossip((claim(B),)))
    bench.forget()
    digest = _digest_of_another(bench)
    for _ in range(3):
        bench.hear(A, Pull(digest))
    assert len(bench.sent(Pull, A)) == 1
    bench.advance(1.1)
    bench.hear(A, Pull(digest))
    assert len(bench.sent(Pull, A)) >= 2


def _digest_of_another(bench: Bench) -> tuple:  # type: ignore[type-arg]
    bench.hear(A, Pull(()))
    other = Bench()
    other.meet(A, C)
    pull = other.hear(A, hello(A, answer_wanted=False))
    assert isinstance(pull, list)
    return tuple(entry for message in other.sent(Pull) for entry in message.digest)


def test_rumours_ride_on_probes_and_the_accused_hears_first() -> None:
    """Lifeguard's buddy system: the first word to a suspect says what is held against it."""
    bench = _bench(A, B)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B), claim(C))))
    ping = bench.sent(Ping, A)[0]
    assert (ping.updates[0].node_id, ping.updates[0].state) == (A, "suspect")
    assert C in {update.node_id for update in ping.updates}


def test_addresses_that_change_are_followed() -> None:
    """A new address in a node's own words is dialled when the old connection is gone."""
    bench = _bench(A)
    there = (endpoint("10.5.5.5"),)
    bench.hear(
        A, replace(hello(A, incarnation=101), myself=claim(A, incarnation=101, endpoints=there))
    )
    assert bench.member(A).endpoints == there
    bench.advance(0.05)
    bench.down(link(A), "timeout")
    bench.advance(0.5)
    assert bench.dialled()[-1] == "10.5.5.5:8788"
