"""Words to the service manager, over a real socket; life only while the mesh thread turns."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from meshd.notify import SILENT_MAX_S, Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The end that systemd would read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def notifier(manager: socket.socket, **more: str) -> Notifier:
    """A daemon that was started by it."""
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), **more})


def heard(manager: socket.socket) -> list[bytes]:
    """Everything said so far."""
    words = []
    with suppress(BlockingIOError):
        while True:
            words.append(manager.recv(1_000))
    return words


def test_what_is_said_arrives(manager: socket.socket) -> None:
    """One datagram, an assignment a line."""
    notifier(manager).say("READY=1", "STATUS=http://x")
    assert heard(manager) == [b"READY=1\nSTATUS=http://x"]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_a_manager_that_is_not_there_is_no_trouble(environ: dict[str, str]) -> None:
    """Most daemons are started by hand."""
    Notifier(environ).say("READY=1")


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_word_of_life_is_due_thrice_as_often_as_it_is_waited_for(
    environ: dict[str, str], every_s: float
) -> None:
    """And never where it is meant for another process."""
    assert Notifier(environ).every_s == every_s


@pytest.mark.parametrize(("silent_s", "alive"), [(0.1, True), (SILENT_MAX_S + 1, False)])
async def test_life_is_claimed_only_while_the_mesh_thread_turns(
    manager: socket.socket, silent_s: float, alive: bool
) -> None:
    """A daemon whose one half hangs is restarted."""
    feeding = asyncio.create_task(
        notifier(manager, WATCHDOG_USEC="30000").stay_alive(lambda: silent_s)
    )
    await asyncio.sleep(0.1)
    feeding.cancel()
    assert (b"WATCHDOG=1" in heard(manager)) is alive


async def test_nobody_who_does_not_wait_is_told(manager: socket.socket) -> None:
    """Without a watchdog the task ends at once."""
    await notifier(manager).stay_alive(lambda: 0.0)
    assert heard(manager) == []
