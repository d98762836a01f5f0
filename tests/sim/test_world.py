"""The simulator itself: a judge that cannot fail is no judge."""

from __future__ import annotations

import pytest

from tests.sim.checks import Checks
from tests.sim.desk import Office
from tests.sim.mesh import Mesh
from tests.sim.scenarios import kill, silent
from tests.sim.shell import MODEL_ID, load_record
from tests.sim.world import Connection, World


def _history(seed: int) -> list[tuple[float, str, str]]:
    mesh = Mesh(seed, 5)
    mesh.settle()
    mesh.nodes[3].crash()
    mesh.world.run(2.0)
    return [*mesh.deaths, (mesh.world.steps, "", "")]


def test_a_seed_replays_exactly() -> None:
    """The same seed gives the same events at the same times."""
    assert _history(7) == _history(7)


def test_two_seeds_differ() -> None:
    """Another seed gives another history, so many seeds see many histories."""
    assert _history(7) != _history(8)


def test_a_connection_keeps_the_order_of_its_frames() -> None:
    """Without reordering weather, a later frame never arrives before an earlier one."""
    world = World(1)
    world.weather.loss = 0.5
    connection = Connection("a", "b", "b:1")
    flights = [world.flight_s(connection, towards_listener=True) or 0.0 for _ in range(50)]
    assert flights == sorted(flights)


def test_a_scenario_that_asks_too_much_fails() -> None:
    """A mesh that is cut for good does not agree, and `run_until` says so."""
    mesh = Mesh(1, 3)
    mesh.settle()
    mesh.isolate(1)
    mesh.world.run(5.0)
    with pytest.raises(AssertionError, match="not within"):
        mesh.world.run_until(mesh.agreed, 1.0)


def test_the_checks_catch_a_node_that_speaks_for_another() -> None:
    """An incarnation that its owner never had is found at the next step of whoever holds it."""
    mesh = Mesh(1, 3)
    mesh.settle()
    row = mesh.rows(0)[mesh.nodes[1].who.node_id]
    row.incarnation += 1
    with pytest.raises(AssertionError, match="nobody spoke"):
        mesh.world.run(1.0)


def test_the_checks_catch_a_resurrection() -> None:
    """A dead row that lives again at the same incarnation is found."""
    mesh = Mesh(1, 3)
    mesh.settle()
    mesh.nodes[1].crash()
    mesh.world.run(0.5)
    mesh.rows(0)[mesh.nodes[1].who.node_id].state = "alive"
    with pytest.raises(AssertionError, match="revived by somebody else"):
        mesh.world.run(1.0)


def test_the_checks_catch_an_incarnation_that_falls() -> None:
    """A row whose incarnation goes back is found."""
    mesh = Mesh(1, 3)
    mesh.settle()
    mesh.rows(0)[mesh.nodes[1].who.node_id].incarnation -= 1
    with pytest.raises(AssertionError, match="went back"):
        mesh.world.run(1.0)


def test_deaths_are_reported_with_who_said_so() -> None:
    """The list of deaths, which the scenarios judge by, names both sides."""
    mesh = Mesh(1, 3)
    mesh.settle()
    mesh.nodes[2].crash()
    mesh.world.run(0.5)
    who = [node.who.node_id for node in mesh.nodes]
    assert {(by, whom) for _, by, whom in mesh.deaths} == {(who[0], who[2]), (who[1], who[2])}


def test_frames_are_real_bytes() -> None:
    """In a small mesh every message goes through the codec, so an unencodable one would raise."""
    mesh = Mesh(1, 2)
    mesh.settle()
    node = mesh.nodes[0]
    assert node.traffic.bytes > 40 * node.traffic.frames > 0


def test_a_stopped_process_does_nothing_and_then_reads_what_came() -> None:
    """While stopped nothing is sent; on resuming, what has arrived is there."""
    mesh = Mesh(1, 2)
    mesh.settle()
    node = mesh.nodes[0]
    node.stop()
    sent = node.traffic.frames
    mesh.nodes[1].put(lambda machine, now: machine.report(load_record(3), now))
    mesh.world.run(0.5)
    waiting = len(node.inbox)
    assert waiting > 0
    assert node.traffic.frames == sent
    node.resume()
    assert mesh.sees_load(1, 3)


def test_checks_of_a_new_mesh_know_no_deaths() -> None:
    """A fresh judge starts without a record."""
    Checks(every_row=True).on_death("a", "b")


def _asked(seed: int) -> tuple[Mesh, Office]:
    mesh = Mesh(seed, 3)
    mesh.settle()
    office = Office(mesh, seed)
    for node in mesh.nodes:
        office.ask(node)
    return mesh, office


def test_requests_are_answered_in_a_mesh_that_is_well() -> None:
    """Each has one attempt and one end, and the books are empty then."""
    mesh, office = _asked(1)
    mesh.world.run_until(office.settled, 10.0, 0.1)
    office.check_answers()
    assert [(len(request.tried), len(request.ends)) for request in office.requests] == [(1, 1)] * 3


def test_the_office_catches_a_leaked_lease() -> None:
    """An entry that belongs to no attempt is found at the next one."""
    mesh, office = _asked(1)
    desk = next(iter(office._desks.values()))
    desk.router.ledger.take(mesh.nodes[1].who.node_id, MODEL_ID, 1.0, desk.node.now)
    with pytest.raises(AssertionError, match="leases"):
        mesh.world.run(10.0)


def test_the_office_catches_a_request_that_was_answered_twice() -> None:
    """One end each, no more."""
    mesh, office = _asked(1)
    mesh.world.run_until(office.settled, 10.0, 0.1)
    office.requests[0].ends.append("answered")
    with pytest.raises(AssertionError, match="ends"):
        office.check_answers()


def test_the_office_catches_a_request_to_the_dead() -> None:
    """A router that works with an old view asks a node that membership has buried."""
    mesh, office = _asked(1)
    stale = mesh.nodes[0].machine.view()
    mesh.nodes[1].crash()
    mesh.nodes[2].crash()
    mesh.world.run(1.0)
    mesh.nodes[0].machine.view = lambda: stale  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="which is dead"):
        _ask_often(mesh, office)


def _ask_often(mesh: Mesh, office: Office) -> None:
    for _ in range(20):
        office.ask(mesh.nodes[0])
        mesh.world.run(0.1)


@pytest.mark.parametrize("scenario", [kill, silent])
def test_scenarios_are_plain_functions_of_a_seed(scenario: object) -> None:
    """Replaying needs nothing but the name and the number."""
    assert callable(scenario)
    scenario(12_345)
