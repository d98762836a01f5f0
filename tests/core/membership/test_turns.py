"""Taking turns: everybody once in each interval, evenly spread, if the clocks agree."""

from __future__ import annotations

from itertools import pairwise

import pytest

from meshd.core.membership.turns import Turns

INTERVAL_S = 0.25
IDS = [f"{number:032x}" for number in range(10)]


def _targets(me: str, *, start: float = 0.0, ahead_s: float = 0.0) -> list[tuple[float, str]]:
    """When a node probes whom, for two rounds from its first turn."""
    turns = Turns(me, INTERVAL_S, ahead_s)
    peers = [node_id for node_id in IDS if node_id != me]
    at, probes = start, []
    turns.order(peers, at)
    at = turns.next(at, INTERVAL_S)
    for _ in range(2):
        for target in turns.order(peers, at):
            probes.append((at + ahead_s, target))
            at = turns.next(at, INTERVAL_S)
    return probes


def _gaps(probes: list[tuple[float, str]]) -> list[float]:
    """Seconds between two probes of the first node, once everybody has begun."""
    times = sorted(at for at, target in probes if target == IDS[0])[4:-4]
    return [later - earlier for earlier, later in pairwise(times)]


def test_with_clocks_that_agree_a_node_is_probed_in_even_steps() -> None:
    """However far their monotonic clocks are apart: the wall clock is what they share."""
    probes = [
        probe
        for number, me in enumerate(IDS)
        for probe in _targets(me, start=number * 7.77, ahead_s=1_000.0 - number * 7.77)
    ]
    assert max(_gaps(probes)) <= 1.1 * INTERVAL_S + 1e-6


def test_everybody_is_probed_once_a_round_whatever_the_clock_says() -> None:
    """The timetable orders a round; it leaves nobody out of it."""
    targets = [target for _, target in _targets(IDS[3], ahead_s=12_345.678)]
    assert sorted(targets[:9]) == sorted(targets[9:]) == [i for i in IDS if i != IDS[3]]


def test_a_turn_is_about_an_interval_after_the_last() -> None:
    """At most half an interval is gained or lost to fall into step."""
    turns = Turns(IDS[3], INTERVAL_S, 0.0)
    turns.order(IDS[4:], 0.0)
    for now in (0.0, 0.1, 0.2, 17.03):
        assert turns.next(now, INTERVAL_S) - now == pytest.approx(INTERVAL_S, abs=INTERVAL_S / 2)


def test_a_slow_node_keeps_step() -> None:
    """A stretched wait ends at a turn of its own, too."""
    turns = Turns(IDS[0], INTERVAL_S, 0.0)
    turns.order(IDS[1:], 0.0)
    assert turns.next(0.01, 3 * INTERVAL_S) == pytest.approx(3 * INTERVAL_S)


def test_a_round_begins_where_the_timetable_is() -> None:
    """Two nodes never begin with the same target at the same time."""
    firsts = []
    for me in IDS:
        turns = Turns(me, INTERVAL_S, 0.0)
        peers = [node_id for node_id in IDS if node_id != me]
        turns.order(peers, 0.0)
        firsts.append(turns.order(peers, turns.next(100.0, INTERVAL_S))[0])
    assert len(set(firsts)) >= 9


def test_alone_there_is_nobody_to_probe() -> None:
    """An empty round."""
    assert Turns(IDS[0], INTERVAL_S, 0.0).order([], 5.0) == []
