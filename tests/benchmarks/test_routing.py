"""Claims of benchmarks.routing: the paper household keeps its books, and the figures are whole."""

import gzip
import json
from random import Random

import pytest

from benchmarks import routing, routing_checks
from benchmarks import routing_work as works
from benchmarks.routing_fleet import RTT_S, Fleet
from benchmarks.routing_machine import GPU, HOUSEHOLD, PI, Machine, Request
from benchmarks.routing_policies import Base, Meshd, Oracle
from benchmarks.routing_rivals import RIVALS


def test_a_machine_alone_takes_what_its_rates_say():
    """400 tokens at 4,000/s and 90 at 90/s."""
    machine = Machine(GPU, (1.0, 1.0), caches=False)
    machine.submit(Request(0, 0.0, 0, 400, 90), 0.0)
    assert machine.next_event() == pytest.approx(0.1)
    assert len(machine.advance(10.0)) == 1
    assert machine.alone_s(Request(1, 0.0, 0, 400, 90)) == pytest.approx(1.1)


def test_the_oracle_foresees_what_happens_when_nothing_else_comes():
    """With others in the slots and in the queue."""
    machine = Machine(PI, (1.0, 1.0), caches=False)
    machine.submit(Request(0, 0.0, 0, 100, 40), 0.0)
    mine = Request(1, 0.0, 0, 50, 4)
    foreseen = machine.would_end(mine)
    machine.submit(mine, 0.0)
    machine.advance(foreseen - 1e-6)
    assert len(machine.running) == 1
    assert len(machine.advance(foreseen + 1e-6)) == 1


def test_a_cached_prompt_is_not_read_again():
    """The second turn of a talk reads what is new."""
    work = works.conversations(40, Random(1))
    first = next(each for each in work if len(each.blocks) == 1)
    machine = Machine(GPU, (1.0, 1.0), caches=True)
    machine.submit(Request(0, 0.0, 0, first.prompt_tokens, 1, first.blocks), 0.0)
    machine.advance(100.0)
    again = Request(1, 100.0, 0, first.prompt_tokens + 50, 1, first.blocks)
    assert machine.cached_tokens(again) == first.prompt_tokens
    assert machine.load().prefixes


@pytest.mark.parametrize("name", ["meshd", "oracle", *RIVALS])
def test_every_request_is_answered_once_and_not_before_its_time(name):
    """Whatever the rule, nothing is lost, and nothing is faster than an idle GPU PC."""
    policy = {"meshd": Meshd, "oracle": Oracle, **RIVALS}[name]
    rng = Random(1)
    requests = works.arrivals(works.synthetic(80, rng), 3.0, rng)
    fleet = Fleet(HOUSEHOLD, rng)
    outcome = fleet.run(requests, policy(fleet, rng))
    assert len(outcome.took_s) == len(outcome.sent) == len(requests)
    idle = Machine(GPU, (1.0, 1.0), caches=False)
    assert all(outcome.took_s[x.number] > idle.alone_s(x) + RTT_S / 2 for x in requests)
    assert all(outcome.first_s[number] < took for number, took in outcome.took_s.items())


def test_a_failing_machine_costs_attempts_and_no_request():
    """What it refuses is answered elsewhere, and soon nothing is sent there."""
    rng = Random(1)
    fleet = Fleet(HOUSEHOLD, rng)
    fleet.machines[0].fails = True
    requests = works.arrivals(works.synthetic(200, rng), 1.5, rng)
    policy = Meshd(fleet, rng)
    outcome = fleet.run(requests, policy)
    assert len(outcome.took_s) == len(requests)
    assert not policy.leases
    assert sum(len(router.ledger) for router in policy.routers) == 0


class Crowding(Base):
    """Everybody to the first machine; whoever waits there goes to the second."""

    moves = True

    def choose(self, request, now, tried):
        return 0, 0.0

    def elsewhere(self, request, place, wait_s, now):
        self.waits_s = [*getattr(self, "waits_s", []), wait_s]
        return 1


def test_a_request_that_waits_can_move_and_ends_where_it_went():
    """Two Pis with a slot each: the second request waits a second, goes, and is answered once."""
    fleet = Fleet((PI, PI), Random(1), wrong_ratio=0.0)
    requests = [Request(number, 0.001 * number, 0, 25, 40) for number in range(2)]
    policy = Crowding(fleet, Random(1))
    outcome = fleet.run(requests, policy)
    assert outcome.moves == 1
    assert outcome.took_s[0] == pytest.approx(11.0, abs=0.1)
    assert outcome.took_s[1] == pytest.approx(12.0, abs=0.1)
    assert policy.waits_s[0] > 1.0


def test_leases_follow_the_moves():
    """More than the household can do: some move, and nothing is left in any book."""
    rng = Random(2)
    fleet = Fleet(HOUSEHOLD, rng)
    policy = Meshd(fleet, rng)
    requests = works.arrivals(works.synthetic(300, rng), 8.0, rng)
    outcome = fleet.run(requests, policy)
    assert outcome.moves > 0
    assert len(outcome.took_s) == len(requests)
    assert not policy.leases
    assert sum(len(router.ledger) for router in policy.routers) == 0


def test_both_trace_formats_are_read(tmp_path):
    """Lengths, rhythm and prefixes; what is too long is clipped and counted."""
    mooncake = tmp_path / "m.jsonl.gz"
    entry = {"timestamp": 500, "input_length": 600, "output_length": 7, "hash_ids": [1, 2]}
    long = {"timestamp": 900, "input_length": 10**6, "output_length": 7, "hash_ids": [1]}
    mooncake.write_bytes(gzip.compress(f"{json.dumps(entry)}\n{json.dumps(long)}\n".encode()))
    read, clipped = works.trace(mooncake)
    assert [cut.size_bytes for cut in read[0].blocks] == [512, 600]
    assert (clipped, read[1].prompt_tokens) == (1, works.CONTEXT_TOKENS - 7)
    azure = tmp_path / "a.csv"
    rows = ["2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.9799600,110,27"]
    azure.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    read, clipped = works.trace(azure)
    assert [(x.at, x.prompt_tokens, x.output_tokens) for x in read] == [
        (0.0, 4808, 10),
        (1.0, 110, 27),
    ]
    azure.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    with pytest.raises(ValueError, match="no requests"):
        works.trace(azure)


def test_policies_are_told_as_multiples_of_the_oracle():
    """Three figures for each, the oracle's own in seconds beside them."""
    work = [works.synthetic(60, Random(1))]
    body = routing.compared(work, caches=False)
    assert set(body["policies"]) == {"meshd", *RIVALS}
    assert all(set(each) == {"mean", "p99", "ttft_p99"} for each in body["policies"].values())
    assert body["capacity_rps"] > 0
    assert body["policies"]["meshd"]["mean"] < body["policies"]["round_robin"]["mean"]


def test_a_burst_on_frozen_records_is_spread():
    """64 at once: the last is done before one and a half times the ideal."""
    assert routing_checks.burst_ratio() <= 1.5


def test_a_decision_is_timed():
    """Whatever this machine does meanwhile, it takes some time."""
    assert routing_checks.decision_ms(3) > 0
