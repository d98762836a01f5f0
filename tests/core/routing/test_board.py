"""Prices kept beside offers, and floors that no score falls below."""

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as some

from meshd.core.routing.board import LESSON_EVERY_S, Board
from meshd.core.routing.catalogue import Catalogue
from meshd.core.routing.cost import expected_completion, price_of
from meshd.core.routing.demand import Demand
from meshd.core.routing.ledger import Outstanding
from meshd.core.routing.prefix import CachedPrefixes, Cut, cached_ratio
from tests.core.routing.fleet import MODEL, load, member, model_load, view

CUTS = tuple(Cut(bytes([number] * 8), 100 * number) for number in range(1, 6))


def priced(offer, is_new):
    """A price without history."""
    return price_of(offer.member.load, offer.load, at=offer.at, rtt_s=0.001)


def board(*loads):
    """A board over machines in these states, priced."""
    house = view(*(member(number, load=each) for number, each in enumerate(loads, 1)))
    made = Board(Catalogue(house).shelf(MODEL), priced)
    made.follow(0.0)
    return made


def holding(count):
    """A machine that holds the first `count` pieces of CUTS, and something else."""
    held = CachedPrefixes(9)
    held.served((Cut(b"another.", 50),))
    held.served(CUTS[:count])
    return load(model_load(prefixes=held.digest()))


def test_the_cached_share_is_what_the_filter_says():
    """Each machine's share of the prompt, as `prefix.cached_ratio` reads it."""
    machines = [holding(0), holding(2), holding(5), load()]
    told = [each.models[0].prefixes for each in machines]
    found = board(*machines).cached(CUTS)
    assert found == [cached_ratio(digest, CUTS) for digest in told] == [0.0, 0.4, 1.0, 0.0]


def test_nobody_is_asked_where_nobody_tells():
    """No digests, or nothing to look for: no work."""
    assert board(load(), load()).cached(CUTS) == []
    assert board(holding(2)).cached(()) == []


def test_a_digest_of_another_size_says_nothing():
    """From a version that this one does not know."""
    assert board(load(model_load(prefixes=b"\xff" * 8))).cached(CUTS) == []


def test_a_board_follows_its_shelf():
    """New records are priced, and a place that was closed opens."""
    house = view(member(1, load=load(accepting=False)))
    catalogue = Catalogue(house)
    made = Board(catalogue.shelf(MODEL), priced)
    made.follow(0.0)
    demand = Demand(MODEL, frozenset(), 100, 10)
    assert made.floors(demand, [], 0.0) == [float("inf")]
    catalogue.update(view(member(1, load_at=1.0)))
    made.follow(0.0)
    made.follow(0.0)
    assert made.floors(demand, [], 1.0)[0] < 10.0


def test_experience_changes_a_price_without_a_new_record():
    """And with a node that has left in the meantime nothing happens."""
    factors = [1.0]
    house = view(member(1))
    made = Board(
        Catalogue(house).shelf(MODEL),
        lambda offer, is_new: replace(priced(offer, is_new), correction=factors[0]),
    )
    made.follow(0.0)
    demand = Demand(MODEL, frozenset(), 100, 10)
    before = made.floors(demand, [], 0.0)[0]
    factors[0] = 4.0
    made.learnt("gone")
    made.follow(1.0)
    assert made.floors(demand, [], 0.0)[0] == before
    made.learnt(member(1).node_id)
    made.follow(2.0)
    assert made.floors(demand, [], 0.0)[0] > 3.0 * before


def test_many_answers_at_once_are_one_lesson():
    """The first teaches at once, the others together a moment later; none is forgotten."""
    asked = []
    made = Board(
        Catalogue(view(member(1))).shelf(MODEL),
        lambda offer, is_new: asked.append(is_new) or priced(offer, is_new),
    )
    for now in (0.0, 0.001, 0.002, LESSON_EVERY_S, LESSON_EVERY_S + 0.001):
        made.learnt(member(1).node_id)
        made.follow(now)
    assert asked == [True, False]
    made.follow(2 * LESSON_EVERY_S)
    made.follow(9.0)
    assert asked == [True, False, False]


@given(
    seed=some.integers(0, 2**32),
    prompt=some.integers(1, 20_000),
    output=some.integers(0, 4_000),
    cached=some.floats(0.0, 1.0),
    age_s=some.floats(0.0, 10.0),
)
def test_no_score_is_below_its_floor(seed, prompt, output, cached, age_s):
    """Whatever the record, the demand, the cache and what was sent there: sifting loses nobody."""
    rng = Random(seed)
    state = model_load(
        warm=rng.random() < 0.5,
        slots=rng.randint(0, 8),
        in_flight=rng.randint(0, 8),
        queued=rng.randint(0, 8),
        backlog_s=rng.uniform(0.0, 20.0),
        prompt_tps=rng.choice([0.0, 25.0, 4_000.0]),
        generation_tps=rng.choice([0.0, 4.0, 90.0]),
        load_s=rng.uniform(0.0, 5.0),
    )
    record = load(
        state, pressure=rng.choice(["normal", "warn"]), on_battery=rng.random() < 0.5, hot=True
    )
    made = board(record)
    demand = Demand(MODEL, frozenset(), prompt, output)
    jobs = rng.randint(0, 20)
    sent = Outstanding(jobs, jobs * rng.uniform(0.0, 9.0))
    cost = expected_completion(
        demand, made.prices[0], sent, age_s, error_ratio=rng.random(), cached_ratio=cached
    )
    floor_s = made.floors(demand, [cached], age_s)[0]
    assert floor_s <= cost.total_s + 1e-6
