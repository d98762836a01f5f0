"""The `meshd` command line, as processes see it: words and exit codes."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.cli import CERTIFICATES_VARIABLE, build_parser, main, no_certificates
from meshd.options import OPTIONS


def meshd(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MESHD_")}
    return subprocess.run(
        [sys.executable, "-m", "meshd", *words],
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_version_goes_to_stdout() -> None:
    """Both spellings, exit 0, nothing on stderr."""
    for words in (["version"], ["--version"]):
        done = meshd(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("meshd 0.")


def test_no_command_prints_help_and_is_a_mistake() -> None:
    """A service manager must not take it for a daemon that stopped as asked."""
    done = meshd()
    assert done.returncode == 2
    assert "run" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--htpp", "x"], "meshd run: unknown flag --htpp (did you mean --http?)"),
        (["run", "--mesh-key=k"], "unknown flag --mesh-key (did you mean --mesh-key-file?)"),
        (["run", "--zzzzzz"], "unknown flag --zzzzzz;"),
        (["run", "stray"], "unexpected argument 'stray'"),
        (["run", "--http"], "--http: expected one argument"),
        (["run", "--http", "nonsense"], "flag --http: 'nonsense' is not HOST:PORT"),
        (["run", "--config", "/nowhere.toml"], "/nowhere.toml: no such config file"),
        (["dance"], "'dance'"),
    ],
)
def test_a_wrong_command_line_is_exit_2_and_one_line(words: list[str], said: str) -> None:
    """It names the flag, what is near it, and where to read more; no usage dump."""
    done = meshd(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_flags_are_never_abbreviated() -> None:
    """`--engin` today would be another flag tomorrow."""
    assert meshd("run", "--engin", "x").returncode == 2


def test_unknown_keys_are_exit_2_naming_the_key(tmp_path: Path) -> None:
    """In the file and in the environment alike."""
    file = tmp_path / "c.toml"
    file.write_text("htpt = '127.0.0.1:1'\n")
    done = meshd("run", "--config", str(file))
    assert (done.returncode, "line 1: htpt" in done.stderr) == (2, True)
    done = meshd("run", MESHD_PEERZZ="x")
    assert (done.returncode, "MESHD_PEERZZ" in done.stderr) == (2, True)


def test_every_setting_is_a_flag_with_help() -> None:
    """The command line is made from the table of options, and nothing else but --config."""
    _, commands = build_parser()
    flags = set(commands["run"].flags())
    assert flags == {option.flag for option in OPTIONS} | {"--config", "-h", "--help"}
    assert all(option.help for option in OPTIONS)


def test_main_returns_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Entry points hand it to sys.exit."""
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("meshd ")


@pytest.mark.parametrize("own", [None, "/somewhere/certificates.pem"])
def test_certificates_are_left_out_only_while_the_daemon_is_imported(monkeypatch, own) -> None:
    """Servers that are asked over TLS are checked later, against all that the system trusts."""
    monkeypatch.delenv(CERTIFICATES_VARIABLE, raising=False)
    if own is not None:
        monkeypatch.setenv(CERTIFICATES_VARIABLE, own)
    with no_certificates():
        assert ssl.create_default_context().cert_store_stats()["x509_ca"] == 0
    assert os.environ.get(CERTIFICATES_VARIABLE) == own


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leaves_its_number_to_no_socket(closed: str) -> None:
    """libuv ends the process that closes a socket with a stream's number: a service of cron's."""
    words = "from meshd.cli import main; main(['version']); import os; exit(os.open('.', 0))"
    shell = f'exec "$0" -c "{words}" {closed}'
    assert subprocess.run(["sh", "-c", shell, sys.executable], check=False).returncode == 3
