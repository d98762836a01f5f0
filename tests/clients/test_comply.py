"""The public compliance suite, strict, through a node that has no model itself.

It holds answers and events to the published OpenAPI documents of three dialects. The model's name
makes it run the cases that it keeps for models which think.
"""

import json
import subprocess

import pytest

from tests.clients.conftest import THINKER
from tests.clients.test_programs import HOME, LIMIT_S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

COMPLY = HOME / "bin" / "llm-comply"
ANTHROPIC = ["--auth-header", "x-api-key", "--no-bearer", "-H", "anthropic-version:2023-06-01"]


@pytest.fixture
def comply(entry):
    """Runs one format of the suite: how each case ended, by its id."""
    if not COMPLY.exists():
        pytest.skip("the compliance suite is not installed: `make clients` does it")

    def run(form, *flags):
        command = [COMPLY, "-u", entry.base_url, "-k", "unused", "-m", THINKER, "--json"]
        done = subprocess.run(
            [*command, "--format", form, *flags],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return {case["id"]: case for case in json.loads(done.stdout)["results"]}

    return run


@pytest.mark.parametrize(
    ("form", "flags", "cases"),
    [("openai-chat", [], 9), ("open-responses", [], 13), ("anthropic", ANTHROPIC, 9)],
)
def test_every_case_passes(comply, form, flags, cases):
    """None fails and none is skipped."""
    ended = comply(form, *flags)
    assert {name: case for name, case in ended.items() if case["status"] != "passed"} == {}
    assert len(ended) == cases
