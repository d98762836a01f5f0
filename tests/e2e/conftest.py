"""Fixtures of the end-to-end tests: daemons that are gone when the test is."""

import pytest

from tests.e2e.daemons import Daemon, write_key


@pytest.fixture
def key_file(tmp_path):
    """One mesh key for every daemon of a test."""
    return write_key(tmp_path / "mesh.key")


@pytest.fixture
def launch(tmp_path, key_file):
    """Starts daemons of one mesh on loopback, without mDNS."""
    started: list[Daemon] = []

    def start(name: str, *flags: str, module: str = "meshd") -> Daemon:
        daemon = Daemon(tmp_path, name, "--no-mdns", "--mesh-key-file", str(key_file), *flags)
        daemon.module = module
        started.append(daemon)
        return daemon.start()

    yield start
    for daemon in started:
        daemon.stop()
