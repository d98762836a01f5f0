"""How the tests are shared out when several workers run them (`make test`: two).

What starts daemons, engines, networks or clients has timers and takes a machine's whole attention,
so all of that runs in one worker, one test after the other, as it would without workers. Everything
else is calculation, and goes to the other worker by modules.

What is real meets a real clock too. A test of it that fails is therefore run once more: a machine
that was held up for a second passes then, a fault in the code does not. The summary names each test
that needed its second run ("RERUN"); one that does so twice in a week has a race, and is mended.
"""

from __future__ import annotations

import pytest

REAL = frozenset({"benchmarks", "clients", "e2e", "engine", "net", "netns", "services"})
"""Folders of tests that deal with real processes, sockets and models."""

ONE_AFTER_THE_OTHER = "real"

CLOCKED = REAL | {"api", "ctl", "gateway"}
"""Folders of tests that wait for a real clock. Those of pure calculation never get a second run."""

RERUNS = 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test belongs to a group, and a group is run by one worker."""
    for item in items:
        place = item.path.relative_to(item.config.rootpath).parts
        folder = place[1] if len(place) > 1 else ""
        if folder in CLOCKED:
            item.add_marker(pytest.mark.flaky(reruns=RERUNS))
        real = folder in REAL
        item.add_marker(pytest.mark.xdist_group(ONE_AFTER_THE_OTHER if real else "/".join(place)))
