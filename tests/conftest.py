"""How the tests are shared out when several workers run them (`make test`: two).

What starts daemons, engines, networks or clients has timers and takes a machine's whole attention,
so all of that runs in one worker, one test after the other, as it would without workers. Everything
else is calculation, and goes to the other worker by modules.
"""

from __future__ import annotations

import pytest

REAL = frozenset({"benchmarks", "clients", "e2e", "engine", "net", "netns", "services"})
"""Folders of tests that deal with real processes, sockets and models."""

ONE_AFTER_THE_OTHER = "real"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test belongs to a group, and a group is run by one worker."""
    for item in items:
        place = item.path.relative_to(item.config.rootpath).parts
        real = len(place) > 1 and place[1] in REAL
        item.add_marker(pytest.mark.xdist_group(ONE_AFTER_THE_OTHER if real else "/".join(place)))
