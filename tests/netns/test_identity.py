"""Who is who: a state directory that was copied, and clocks that disagree."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.daemons import wait_until
from tests.netns.fleet import HTTP, MESH, row

pytestmark = pytest.mark.timeout(120)

HOUR_S = 3_600


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory):
    """The environment in which a daemon's wall clock is off by so many seconds."""
    library = tmp_path_factory.mktemp("clock") / "wrong_clock.so"
    source = Path(__file__).with_name("wrong_clock.c")
    if shutil.which("cc") is None:
        pytest.skip("a wrong wall clock needs a C compiler (`cc`) for its preloaded library")
    subprocess.run(["cc", "-shared", "-fPIC", "-O", "-o", library, source], check=True)
    return lambda off_s: {"LD_PRELOAD": str(library), "CLOCK_OFF_S": str(off_s)}


def test_a_copied_state_directory_is_named_and_ends_with_the_copy(make_fleet):
    """Two daemons on one identity: a log says so and what to do; done so, the mesh is whole."""
    fleet = make_fleet("clone", 3, start_all=False)
    fleet.start("n1", "n2")
    two = ["n1", "n2"]
    fleet.watch.wait(lambda: fleet.watch.agree("alive", two, two), 20, "the two are whole")
    shutil.copytree(fleet.nodes["n2"].state_dir, fleet.nodes["n3"].state_dir)
    began = time.monotonic()
    fleet.start("n3")
    logs = [node.log for node in fleet.nodes.values()]
    wait_until(
        lambda: any("copy of the other's state directory" in log.read_text() for log in logs),
        10,
        "a log names the copied state directory",
    )
    fleet.watch.stay(3)
    assert fleet.watch.shown("dead", began) <= {("n1", "n2"), ("n1", "n3")}
    stopped = fleet.kill("n3")
    fleet.watch.wait(lambda: fleet.watch.agree("alive", two, two, stopped), 10, "whole again")


@pytest.mark.slow
def test_a_wall_clock_an_hour_off_changes_nothing(make_fleet, wrong_clock):
    """A node an hour ahead, then restarted with the right time, is alive to all, both times."""
    fleet = make_fleet("clock", 3, start_all=False)
    began = time.monotonic()
    fleet.nodes["n3"].start(HTTP, MESH, env=wrong_clock(HOUR_S))
    fleet.nodes["n2"].start(HTTP, MESH, env=wrong_clock(-HOUR_S))
    fleet.start("n1")
    fleet.wait_whole()
    ahead_ms = row(fleet, "n1", "n3")["incarnation"]
    behind_ms = row(fleet, "n1", "n2")["incarnation"]
    assert ahead_ms - behind_ms > 1.5 * HOUR_S * 1_000
    fleet.watch.stay(3)
    assert fleet.watch.shown("dead", began) == set()
    fleet.kill("n3")
    fleet.start("n3")
    fleet.wait_whole()
    assert row(fleet, "n1", "n3")["incarnation"] > ahead_ms
    fleet.watch.stay(2)
    assert {subject for _, subject in fleet.watch.shown("dead", began)} <= {"n3"}
