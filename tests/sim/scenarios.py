"""What is done to a mesh, and what must then be true.

Each scenario is a function of a seed. The seed draws the size of the mesh, who is hit, and when;
the checks of `checks` hold throughout. A scenario that fails names its seed, and `python -m
tests.sim replay SCENARIO SEED` runs exactly that one again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from protocol.messages import Endpoint
from tests.sim.desk import Office
from tests.sim.mesh import Mesh
from tests.sim.shell import PORT, SimNode, load_record

HOUR_MS = 3_600_000

Scenario = Callable[[int], None]


def _mesh(seed: int, fewest: int = 3, most: int = 6) -> tuple[Mesh, Random, int]:
    """A settled mesh, its dice, and one node that is not the seed of the mesh."""
    rng = Random(f"scenario {seed}")
    mesh = Mesh(seed, rng.randint(fewest, most))
    mesh.settle()
    mesh.world.run(rng.random())
    return mesh, rng, rng.randrange(1, len(mesh.nodes))


def _no_deaths(mesh: Mesh) -> None:
    assert not mesh.deaths, f"declared dead, but alive: {mesh.deaths}"


def join(seed: int) -> None:
    """Nodes that know one peer find all others within half a second."""
    mesh = Mesh(seed, Random(seed).randint(2, 10))
    took = mesh.settle()
    assert took <= 0.5, f"joined after {took:.2f} s"
    _no_deaths(mesh)


def kill(seed: int) -> None:
    """A killed process is dead for everybody within 0.3 s, and nobody else is."""
    mesh, rng, victim = _mesh(seed)
    mesh.nodes[victim].crash()
    mesh.world.run_until(lambda: mesh.all_hold(victim, "dead"), 0.3)
    mesh.world.run(rng.random())
    assert {whom for _, _, whom in mesh.deaths} == {mesh.nodes[victim].who.node_id}


def silent(seed: int) -> None:
    """A host whose cable is cut is dead for everybody within 3 s (4 s in a mesh of three)."""
    mesh, _, victim = _mesh(seed, 3, 7)
    mesh.isolate(victim)
    others = [index for index in range(len(mesh.nodes)) if index != victim]
    most_s = 3.0 if len(mesh.nodes) > 3 else 4.0
    mesh.world.run_until(lambda: mesh.all_hold(victim, "dead", others), most_s)


def restart(seed: int) -> None:
    """A node that is killed and comes back, even with a clock an hour behind, is alive again in its
    new run within 2 s."""
    mesh, rng, victim = _mesh(seed, 2, 5)
    mesh.nodes[victim].crash()
    mesh.world.run(rng.choice((0.0, 0.3, 1.0)))
    mesh.restart(victim, wall_shift_ms=rng.choice((0, -HOUR_MS, HOUR_MS)))
    mesh.world.run_until(mesh.agreed, 2.0)


def mass_restart(seed: int) -> None:
    """All nodes are killed and restarted at about the same time: the mesh is whole within 3 s."""
    mesh, rng, _ = _mesh(seed, 2, 5)
    for index in range(len(mesh.nodes)):
        mesh.nodes[index].crash()
        mesh.world.run(rng.random() * 0.1)
    for index in range(len(mesh.nodes)):
        mesh.restart(index, wall_shift_ms=rng.choice((0, -HOUR_MS)))
        mesh.world.run(rng.random() * 0.1)
    mesh.world.run_until(mesh.agreed, 3.0)


def split(seed: int) -> None:
    """Two halves that lose sight of each other hold each other for dead within 7 s (a doubt in the
    own network of 3 s, and no doubt in oneself because helpers are silent, too), and meet again
    within 5 s of the cable's return. Half of these cables are back before there is a verdict."""
    mesh, rng, _ = _mesh(seed, 4, 6)
    half = rng.sample(range(len(mesh.nodes)), len(mesh.nodes) // 2)
    rest = [index for index in range(len(mesh.nodes)) if index not in half]
    for one in half:
        for other in rest:
            mesh.cut(one, other)
    pairs = [pair for one in half for other in rest for pair in ((one, other), (other, one))]
    if seed % 2:
        mesh.world.run_until(lambda: all(mesh.row_state(*pair) == "dead" for pair in pairs), 7.0)
    mesh.world.run(rng.uniform(1.0, 4.0))
    mesh.world.heal()
    mesh.world.run_until(mesh.agreed, 5.0)


def one_way(seed: int) -> None:
    """A node that can only send, or only receive, for a while is back within 5 s after it."""
    mesh, rng, victim = _mesh(seed)
    for other in range(len(mesh.nodes)):
        ends = (victim, other) if seed % 2 else (other, victim)
        mesh.cut(*ends, both=False)
    mesh.world.run(rng.uniform(1.0, 6.0))
    mesh.world.heal()
    mesh.world.run_until(mesh.agreed, 5.0)


def pair_cut(seed: int) -> None:
    """Two nodes that cannot reach each other, while all others reach both, stay alive for all."""
    mesh, rng, victim = _mesh(seed, 4, 6)
    mesh.cut(victim, rng.choice([i for i in range(len(mesh.nodes)) if i != victim]))
    mesh.world.run(6.0)
    _no_deaths(mesh)


def pause(seed: int) -> None:
    """A process that is stopped for seconds declares nobody dead, and is back within 2 s."""
    mesh, rng, victim = _mesh(seed)
    mesh.nodes[victim].stop()
    mesh.world.run(rng.choice((0.5, 2.0, 5.0, 20.0)))
    mesh.nodes[victim].resume()
    mesh.world.run_until(mesh.agreed, 2.0)
    who = mesh.nodes[victim].who.node_id
    assert all(by != who for _, by, _ in mesh.deaths), f"the stopped one judged: {mesh.deaths}"


def sleep(seed: int) -> None:
    """A machine that slept believes no old load, declares nobody dead, and is back within 3 s."""
    mesh, rng, victim = _mesh(seed)
    node = mesh.nodes[victim]
    seconds = rng.uniform(1.0, 30.0)
    node.sleep(seconds)
    mesh.world.run(seconds - 0.001)
    ages = [m.load for m in node.machine.view().members.values() if m.node_id != node.who.node_id]
    assert any(load is not None for load in ages)
    mesh.world.run(0.0011)
    loads = [m.load for m in node.machine.view().members.values() if m.node_id != node.who.node_id]
    assert not any(loads), "a load from before the sleep is still shown"
    mesh.world.run_until(mesh.agreed, 3.0)
    assert all(by != node.who.node_id for _, by, _ in mesh.deaths), mesh.deaths


def starved(seed: int) -> None:
    """A process that gets the CPU only now and then neither dies nor kills."""
    mesh, rng, victim = _mesh(seed, 4, 6)
    end = mesh.world.now + 4.0
    while mesh.world.now < end:
        mesh.nodes[victim].stop()
        mesh.world.run(rng.uniform(0.05, 0.6))
        mesh.nodes[victim].resume()
        mesh.world.run(0.02)
    _no_deaths(mesh)


def bad_network(seed: int) -> None:
    """Lost, doubled and reordered frames kill nobody."""
    mesh, rng, _ = _mesh(seed, 3, 5)
    weather = mesh.world.weather
    weather.loss, weather.drop = rng.choice((0.01, 0.03, 0.05)), rng.choice((0.0, 0.02))
    weather.double, weather.reorder_s = 0.05, rng.choice((0.0, 0.01))
    mesh.world.run(5.0)
    _no_deaths(mesh)


def leave(seed: int) -> None:
    """A node that leaves has left, for everybody, at once, and is never called dead."""
    mesh, rng, victim = _mesh(seed)
    mesh.nodes[victim].put(lambda machine, now: machine.leave(now))
    mesh.world.run(rng.choice((0.01, 0.2)))
    mesh.nodes[victim].crash()
    mesh.world.run_until(lambda: mesh.all_hold(victim, "left"), 0.5)
    mesh.world.run(2.0)
    assert mesh.all_hold(victim, "left")
    _no_deaths(mesh)


def uplink(seed: int) -> None:
    """A node whose own cable is out for seconds calls nobody dead."""
    mesh, rng, victim = _mesh(seed, 5, 7)
    mesh.isolate(victim)
    mesh.world.run(rng.uniform(1.0, 8.0))
    mesh.world.heal()
    mesh.world.run_until(mesh.agreed, 5.0)
    who = mesh.nodes[victim].who.node_id
    assert all(by != who for _, by, _ in mesh.deaths), f"the cut off one judged: {mesh.deaths}"


def cloned(seed: int) -> None:
    """Two processes with one identity are noticed, and said by name."""
    mesh, _, victim = _mesh(seed, 3, 5)
    original = mesh.nodes[victim]
    mesh.nodes[victim].running = False  # so that a second process may take its place in the books
    twin = mesh.restart(victim)
    original.running = True
    mesh.world.run(1.5)
    mesh.adopt(original)
    mesh.world.run_until(lambda: _clone_noticed(mesh, original), 4.0, 0.1)
    assert twin.boot_id != original.boot_id


def _clone_noticed(mesh: Mesh, twin: SimNode) -> bool:
    heard = [notice.text for node in (*mesh.nodes, twin) for notice in node.notices]
    return any("identity" in text and twin.who.node_id in text for text in heard)


def moved(seed: int) -> None:
    """A node that changes its address is reached at the new one, and never called dead."""
    mesh, rng, victim = _mesh(seed)
    there = Endpoint(f"10.9.9.{rng.randint(1, 250)}", PORT, PORT + 1)
    mesh.rehost(victim, there)
    node = mesh.nodes[victim]
    link = f"{there.host}:{PORT}"
    mesh.world.run_until(lambda: mesh.uses(victim, link), 4.0)
    assert mesh.state(0, victim) == "alive", node.who.name


def load(seed: int) -> None:
    """A changed load is known to everybody within 0.3 s."""
    mesh, rng, victim = _mesh(seed, 3, 6)
    for in_flight in range(1, 6):
        record = load_record(in_flight)
        mesh.nodes[victim].put(lambda machine, now, r=record: machine.report(r, now))  # type: ignore[misc]
        mesh.world.run_until(lambda: mesh.sees_load(victim, in_flight), 0.3)  # noqa: B023
        mesh.world.run(rng.random() * 0.4)


def requests(seed: int) -> None:
    """Requests arrive everywhere while anything may happen: each is answered exactly once, whoever
    dies, and when all is over no router holds a lease."""
    mesh, rng, _ = _mesh(seed, 3, 6)
    office = Office(mesh, seed)
    for _ in range(rng.randint(2, 5)):
        _misfortune(mesh, rng)
        for _ in range(rng.randint(5, 20)):
            office.ask(rng.choice(mesh.nodes))
            mesh.world.run(rng.uniform(0.0, 0.2))
    _mend(mesh, rng)
    for _ in range(5):
        office.ask(rng.choice(mesh.nodes))
    mesh.world.run_until(office.settled, 30.0, 0.1)
    office.check_answers()


FAULTS = ("kill", "cut", "pause", "loss", "sleep", "pair", "leave")


def chaos(seed: int) -> None:
    """Anything may happen for six seconds; ten seconds after it ends, all agree."""
    mesh, rng, _ = _mesh(seed, 3, 6)
    for _ in range(rng.randint(2, 5)):
        _misfortune(mesh, rng)
        mesh.world.run(rng.uniform(0.1, 2.0))
    _mend(mesh, rng)
    mesh.world.run_until(mesh.agreed, 10.0)


def _mend(mesh: Mesh, rng: Random) -> None:
    """The end of all faults: cables whole, the stopped go on, the dead are started again."""
    mesh.world.heal()
    weather = mesh.world.weather
    weather.loss = weather.drop = weather.double = weather.reorder_s = 0.0
    for index, node in enumerate(mesh.nodes):
        if node.stopped and not node.asleep:
            node.resume()
        if not node.running:
            peers = [i for i in range(len(mesh.nodes)) if i != index]
            mesh.restart(index, peers=peers, wall_shift_ms=rng.choice((0, -HOUR_MS)))


def _misfortune(mesh: Mesh, rng: Random) -> None:
    """One fault, drawn at random, hits one node that is well."""
    well = [i for i, node in enumerate(mesh.nodes) if node.running and not node.stopped]
    if not well:
        return
    index = rng.choice(well)
    node, weather = mesh.nodes[index], mesh.world.weather
    match rng.choice(FAULTS):
        case "kill":
            node.crash()
        case "cut":
            mesh.isolate(index)
        case "pause":
            node.stop()
        case "loss":
            weather.loss, weather.drop = rng.random() * 0.3, rng.random() * 0.1
            weather.double, weather.reorder_s = 0.1, rng.random() * 0.05
        case "sleep":
            node.sleep(rng.uniform(0.5, 4.0))
        case "pair":
            mesh.cut(index, rng.randrange(len(mesh.nodes)), both=rng.random() < 0.5)
        case _:
            node.put(lambda machine, now: machine.leave(now))
            mesh.world.run(0.01)
            node.crash()


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        join,
        kill,
        silent,
        restart,
        mass_restart,
        split,
        one_way,
        pair_cut,
        pause,
        sleep,
        starved,
        bad_network,
        leave,
        uplink,
        cloned,
        moved,
        load,
        requests,
        chaos,
    )
}
