"""A mesh for official clients: an entry node without a model, and a node that serves it.

Everything that a client sees here has crossed the relay. One mesh serves all tests of a file,
because clients keep nothing on a node.
"""

import pytest

from tests.e2e.daemons import Daemon, wait_until, write_key

MODEL = "echo"
THINKER = "gpt-5-claude-sonnet-4"
"""A model whose name makes clients ask it to think."""

ENGINES = [
    f"--engine=emulated:model={model},prompt_tps=20000,generation_tps=1000,slots=4,can=vision+embedding"
    for model in (MODEL, THINKER)
]


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """The node that clients talk to, which has no model."""
    home = tmp_path_factory.mktemp("mesh")
    common = ("--no-mdns", "--mesh-key-file", str(write_key(home / "mesh.key")))
    serving = Daemon(home, "serving", *common, *ENGINES)
    entry = Daemon(home, "entry", *common, "--peer", serving.peer)
    try:
        serving.start().wait_ready()
        entry.start().wait_ready()
        wait_until(lambda: len(entry.get("/v1/models")["data"]) == len(ENGINES), 10, "its models")
        yield entry
    finally:
        entry.stop()
        serving.stop()
