"""Fixtures of the tests on real networks: a fleet per module, whole before each test."""

import pytest

from tests.netns.fleet import Fleet
from tests.netns.networks import UNAVAILABLE, Lan


def pytest_collection_modifyitems(items):
    """Everything in this folder needs namespaces; say so where there are none."""
    for item in items:
        if "netns" in item.path.parts:
            item.add_marker(pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE))


@pytest.fixture(scope="module")
def make_fleet(tmp_path_factory):
    """Makes fleets that are gone when the module's tests are."""
    open_ones = []

    def make(name, hosts, *flags, **options):
        home = tmp_path_factory.mktemp(name)
        lan = Lan(name, hosts)
        open_ones.append(lan)
        fleet = Fleet(home, lan.__enter__(), *flags, **options)
        open_ones.append(fleet)
        return fleet.__enter__()

    yield make
    for opened in reversed(open_ones):
        opened.__exit__()
