"""Fixtures of the end-to-end tests: daemons that are gone when the test is, and a browser."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

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


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium, where there is one."""
    chromium = (
        shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    )
    if chromium is None:
        pytest.skip("no Chromium here (Debian: apt install chromium)")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
