"""What the daemon asks of the system before it serves."""

import json
import os
import resource
import shlex
from types import SimpleNamespace

import pytest

from meshd.daemon import LOCK_FILE, introduction, more_descriptors, sole_owner

FEW = 512
"""About what a shell gives; a test run has fewer open."""


@pytest.fixture
def few_descriptors():
    """As in a shell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def no_mask():
    """New files get every right that they are made with."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("few_descriptors")
def test_a_daemon_from_a_shell_has_more_connections_than_a_stranger_opens_in_a_moment():
    """With a shell's thousand, a thousand to the mesh port turned away clients of the endpoint."""
    more_descriptors()
    more = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    more_descriptors()
    assert more > FEW
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == more


@pytest.mark.usefixtures("no_mask")
def test_nobody_else_can_hold_the_state_directory(tmp_path):
    """Whoever may open the lock may keep it, and the daemon would not start."""
    tmp_path.chmod(0o755)
    with sole_owner(tmp_path):
        mode = (tmp_path / LOCK_FILE).stat().st_mode
    assert mode & 0o077 == 0


def test_the_line_to_try_is_one_for_any_shell_whatever_a_model_is_called():
    """An adopted server chooses the name, and the line is there to be pasted."""
    name = "it's; touch /tmp/x #"
    node = SimpleNamespace(base_url="http://h", offered=[SimpleNamespace(model_id=name)])
    line = introduction(node, "attic").splitlines()[1]
    assert json.loads(shlex.split(line)[-1])["model"] == name
