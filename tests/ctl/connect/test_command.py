"""`meshctl connect` as a process, with a home of its own."""

import json
import stat
from pathlib import Path

import pytest

CODEX = ".codex/config.toml"
CLAUDE = ".claude/settings.json"


@pytest.fixture
def connect(meshctl, tmp_path):
    """Runs `meshctl connect` in an empty home."""

    def run(*words, **env):
        quiet = dict.fromkeys(("XDG_CONFIG_HOME", "CODEX_HOME", "CLAUDE_CONFIG_DIR"), "")
        return meshctl("connect", *words, HOME=str(tmp_path), **quiet, **env)

    return run


def backups(file: Path):
    return sorted(file.parent.glob(f"{file.name}.before-*"))


def test_without_a_name_it_lists_the_clients(connect, daemon):
    """And asks nobody."""
    done = connect()
    assert (done.returncode, done.stderr, daemon.asked) == (0, "", [])
    assert "claude-code     Claude Code\n" in done.stdout
    assert "codex" in json.loads(connect("--json").stdout)["clients"]


def test_printing_touches_nothing(connect, daemon, tmp_path):
    """The configuration alone on stdout, the rest on stderr."""
    done = connect("codex")
    assert done.returncode == 0
    assert f'base_url = "{daemon.url}/v1"' in done.stdout
    assert 'model = "SmolLM2-135M-Instruct"' in done.stdout
    assert f"# for {tmp_path / CODEX}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_writing_makes_the_file_for_its_owner_alone(connect, tmp_path):
    """A key may stand in it."""
    done = connect("claude-code", "--write", MESHCTL_API_KEY="mk-1")
    file = tmp_path / CLAUDE
    assert (done.returncode, done.stdout) == (0, f"{file} is written\n")
    assert '+    "ANTHROPIC_AUTH_TOKEN": "mk-1"' in done.stderr
    assert json.loads(file.read_text())["env"]["ANTHROPIC_AUTH_TOKEN"] == "mk-1"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("key", "mode"), [("mk-1", 0o600), ("", 0o644)])
def test_a_file_that_gets_a_key_is_nobody_elses_to_read(connect, tmp_path, key, mode):
    """Clients make their files readable by all; one without a key stays as it is."""
    file = tmp_path / CLAUDE
    file.parent.mkdir()
    file.write_text("{}")
    file.chmod(0o644)
    assert connect("claude-code", "--write", MESHCTL_API_KEY=key).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_an_existing_file_is_merged_and_kept_beside(connect, tmp_path):
    """With its mode, through its link, and a second run changes nothing."""
    real, file = tmp_path / "dotfiles.toml", tmp_path / CODEX
    theirs = '# mine\nmodel = "gpt-x"\n'
    real.write_text(theirs)
    real.chmod(0o640)
    file.parent.mkdir()
    file.symlink_to(real)
    done = connect("codex", "--write")
    assert (done.returncode, backups(real)[0].read_text()) == (0, theirs)
    assert f"as it was: {backups(real)[0]}" in done.stdout
    assert file.is_symlink()
    assert real.read_text().startswith(theirs)
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    again = connect("codex", "--write")
    assert (again.returncode, again.stdout) == (0, f"{file} says it already.\n")
    assert len(backups(real)) == 1


def test_runs_within_a_second_keep_a_copy_each(connect, tmp_path):
    """What was there before the first one is never lost."""
    file = tmp_path / CODEX
    file.parent.mkdir()
    file.write_text("# mine\n")
    for model in ("a", "b", "c"):
        connect("codex", "--write", "--model", model)
    assert len(backups(file)) == 3
    assert "# mine\n" in [backup.read_text() for backup in backups(file)]


def test_what_is_in_the_way_is_left_alone_and_printed(connect, tmp_path):
    """Until its owner insists."""
    file = tmp_path / CLAUDE
    file.parent.mkdir()
    theirs = '{"env": {"ANTHROPIC_BASE_URL": "https://gateway.example"}}'
    file.write_text(theirs)
    done = connect("claude-code", "--write")
    assert (done.returncode, file.read_text()) == (1, theirs)
    assert '"ANTHROPIC_BASE_URL": "http://' in done.stdout
    assert "was left alone" in done.stderr
    assert connect("claude-code", "--write", "--force").returncode == 0
    assert backups(file)[0].read_text() == theirs


def test_a_model_and_an_address_can_be_given(connect):
    """As another machine would name them; what nobody offers now is said."""
    done = connect("openai", "--base-url", "http://nas.local:8787/v1/", "--key", "a b'")
    assert done.returncode == 2
    done = connect("llm", "--model", "later", "--base-url", "http://nas.local:8787/v1/")
    assert 'api_base: "http://nas.local:8787/v1"' in done.stdout
    assert "no node offers later now; there are: SmolLM2-135M-Instruct" in done.stderr


def test_with_a_model_named_no_node_needs_to_be_there(connect):
    """For machines that are set up before the daemon runs."""
    nowhere = {"MESHCTL_URL": "http://127.0.0.1:9"}
    assert connect("openai", **nowhere).returncode == 3
    done = connect("openai", "--model", "tiny", **nowhere)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "export OPENAI_BASE_URL=http://127.0.0.1:9/v1",
    )


def test_json_holds_the_text_and_where_it_goes(connect, tmp_path):
    """For programs."""
    body = json.loads(connect("codex", "--json").stdout)
    assert body["file"] == str(tmp_path / CODEX)
    assert "wire_api" in body["text"]
    written = json.loads(connect("codex", "--write", "--json").stdout)
    assert (written["changed"], written["backup"]) == (True, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["emacs"], "there are: aider, claude-code"),
        (["--write"], "for which client?"),
        (["openai", "--write"], "reads no file"),
        (["codex", "--base-url", "nas"], "http://HOST:PORT"),
        (["codex", "--model", "a\nb"], "cannot be printed"),
    ],
)
def test_wrong_usage_is_one_line(connect, words, said):
    """With what to do instead."""
    done = connect(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.parametrize("raw", [b"\xff", b"#" * (1024 * 1024 + 1)])
def test_a_file_that_is_no_configuration_is_not_touched(connect, tmp_path, raw):
    """Nor read into memory whole."""
    file = tmp_path / CODEX
    file.parent.mkdir()
    file.write_bytes(raw)
    assert connect("codex", "--write").returncode == 1
    assert file.read_bytes() == raw


def test_a_place_that_cannot_be_written_is_one_line(connect, tmp_path):
    """And nothing is left behind."""
    (tmp_path / ".codex").write_text("a file where a folder should be")
    done = connect("codex", "--write")
    assert done.returncode == 1
    assert "cannot be" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == [".codex"]
