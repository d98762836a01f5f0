"""A node that is shut out is gone at once, and stays gone whatever is said of it."""

from __future__ import annotations

import pytest

from protocol.messages import Gossip, Pull
from tests.core.membership.builders import BOOT, ME, A, B, Bench, C, claim, hello, link, met


def _evicted(*node_ids: str) -> Bench:
    bench = met(A, B, C)
    bench.do(lambda m, now: m.evict(node_ids, now))
    return bench


def test_an_evicted_node_is_gone_from_the_view_at_once() -> None:
    """Not suspect, not dead: not there; the others stay."""
    bench = _evicted(A)
    assert [bench.state(peer) for peer in (A, B, C)] == [None, "alive", "alive"]
    assert bench.said() == ["ann was shut out of the mesh"]


def test_a_suspect_leaves_no_verdict_behind() -> None:
    """Probes, alarms and accusations end with its row."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "suspect")
    bench.do(lambda m, now: m.evict((A,), now))
    bench.forget()
    bench.advance(30.0)
    assert bench.claims(A) == []
    assert [bench.state(peer) for peer in (A, B, C)] == [None, "alive", "alive"]


def test_nothing_of_it_is_told_or_sent_any_more() -> None:
    """Neither in gossip, nor in a digest, nor to itself."""
    bench = met(A, B, C)
    bench.hear(A, hello(A, incarnation=101))
    bench.do(lambda m, now: m.evict((A,), now))
    bench.forget()
    bench.advance(30.0)
    assert bench.claims(A) == []
    assert bench.sent(object, A) == []
    assert all(entry.node_id != A for pull in bench.sent(Pull) for entry in pull.digest)


def test_its_link_is_hung_up() -> None:
    """Its connection is worth nothing."""
    bench = met(A, B)
    bench.connect(A)
    bench.do(lambda m, now: m.evict((A,), now))
    assert link(A) in bench.hung_up()


@pytest.mark.parametrize("state", ["alive", "suspect", "dead", "left"])
def test_members_that_have_not_heard_yet_cannot_bring_it_back(state: str) -> None:
    """Whatever they say of it, at whatever incarnation."""
    bench = _evicted(A)
    bench.hear(B, Gossip((claim(A, state, 900, accuser=B),)))
    assert bench.state(A) is None


def test_it_cannot_bring_itself_back() -> None:
    """Not even as a new run: it gets no answer."""
    bench = _evicted(A)
    bench.forget()
    bench.hear(A, hello(A, incarnation=900, boot_id=BOOT + 1), boot=BOOT + 1)
    assert bench.state(A) is None
    assert bench.effects == []


def test_who_was_never_known_can_be_shut_out_too() -> None:
    """As after a restart, when the list is on disk and the table is empty."""
    bench = Bench()
    bench.do(lambda m, now: m.evict((A,), now))
    bench.meet(A, B)
    assert [bench.state(peer) for peer in (A, B)] == [None, "alive"]


def test_the_list_is_the_whole_list() -> None:
    """Whoever is not on the next one (another mesh's) may come."""
    bench = _evicted(A)
    bench.do(lambda m, now: m.evict((), now))
    bench.meet(A)
    assert bench.state(A) == "alive"


def test_a_node_does_not_shut_itself_out() -> None:
    """What others do with a revoked node is theirs; its own row is its own."""
    bench = _evicted(ME)
    assert bench.state(ME) == "alive"


def test_in_another_mesh_nobody_of_the_last_one_is_known() -> None:
    """Alive, suspect or dead: who was a member there is none here."""
    bench = met(A, B, C)
    bench.connect(A)
    bench.answering.discard(B)
    bench.advance_until(lambda: bench.state(B) == "dead")
    bench.do(lambda m, now: m.start_over(now))
    assert set(bench.machine.view().members) == {ME}
    assert bench.machine.remembered() == ()
    assert link(A) in bench.hung_up()


def test_members_of_the_next_mesh_are_told_nothing_of_the_last() -> None:
    """Neither as rumour nor in a digest; who moves as well can be met again."""
    bench = met(A, B)
    bench.hear(A, hello(A, incarnation=101))
    bench.do(lambda m, now: m.start_over(now))
    bench.forget()
    bench.meet(C)
    bench.advance(30.0)
    assert bench.claims(A) == bench.claims(B) == []
    assert all(entry.node_id in {ME, C} for pull in bench.sent(Pull) for entry in pull.digest)
    bench.meet(A)
    assert bench.state(A) == "alive"
