"""Programs written with other people's libraries, through a node that has no model itself.

Each program asks for the same things in its library's own way and prints what it got: a
conversation, a stream, a tool loop, a structured answer. Where a library has several ways to this
endpoint, the program holds them to the same result. The libraries live apart, in `.clients`, which
`make clients` sets up; what is not there is skipped.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import MODEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".clients"
PYTHON = HOME / "bin" / "python"
NODE_MODULES = HOME / "node_modules"
LIMIT_S = 150
"""Some of them take a quarter of a minute to be imported on two busy cores."""

EXPECTED = {
    "conversation": "Hello.",
    "stream": "one two three",
    "call": ["weather", {"city": "Rome"}],
    "after": True,
    "structured": ["height_m", "name"],
}


def printed(command, folder):
    """The JSON object that a program prints last."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def python():
    """The interpreter of the clients' environment."""
    if not PYTHON.exists():
        pytest.skip("the other clients are not installed: `make clients` does it")
    return str(PYTHON)


@pytest.fixture
def node(tmp_path):
    """Node, and a folder from which it finds the clients' packages."""
    found = shutil.which("node")
    if found is None or not NODE_MODULES.is_dir():
        pytest.skip("the Node clients are not installed: `make clients` does it where Node is")
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    for program in (HERE / "programs").glob("*.mjs"):
        shutil.copy(program, tmp_path)
    return found


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("openai", EXPECTED.keys()),
        ("langchain", EXPECTED.keys()),
        ("langchain_responses", EXPECTED.keys()),
        ("litellm", EXPECTED.keys()),
        ("instructor", ["structured"]),
        ("llm", EXPECTED.keys()),
    ],
)
def test_a_program_in_python(entry, python, tmp_path, name, asked):
    """Gets what it asked for, in its library's own types."""
    program = str(HERE / "programs" / f"with_{name}.py")
    said = printed([python, program, entry.base_url, MODEL], tmp_path)
    assert said == {key: EXPECTED[key] for key in asked}


@pytest.mark.parametrize("name", ["openai", "ai"])
def test_a_program_for_node(entry, node, tmp_path, name):
    """Gets what it asked for, in its library's own types."""
    said = printed([node, f"with_{name}.mjs", entry.base_url, MODEL], tmp_path)
    assert said == EXPECTED
