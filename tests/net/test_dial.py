"""Why an attempt fails, and how long to wait for the next."""

from __future__ import annotations

import errno

import pytest

from meshd.net import dial


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (errno.ECONNREFUSED, "refused"),
        (errno.ETIMEDOUT, "timeout"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.ECONNRESET, "unreachable"),
        (errno.EACCES, "unreachable"),
    ],
)
def test_only_a_closed_port_counts_as_refused(code: int, cause: str) -> None:
    """`refused` is proof of a dead process, so nothing else may be called that."""
    assert dial.cause_of(code) == cause


def test_waits_double_up_to_a_limit() -> None:
    """A machine that is off costs six knocks a minute, however long it is off."""
    waits = [dial.retry_wait_s(failures) for failures in range(8)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert dial.retry_wait_s(10**6) == 10.0
