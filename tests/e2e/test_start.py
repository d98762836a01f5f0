"""What the daemon says when it can't start, and how it ends."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from meshd.api.keys import add_key
from meshd.daemon import LOOK_AROUND_S
from meshd.reload import LOOK_EVERY_S
from tests.e2e.daemons import Daemon, wait_until


def meshd(*args, **env):
    """Run `meshd` to its end: (exit code, standard error)."""
    done = subprocess.run(
        [sys.executable, "-m", "meshd", *args],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        env={**os.environ, **env},
    )
    assert not done.stdout, "it greets nobody before it knows that it can serve"
    return done.returncode, done.stderr


def one_line(text):
    """Whether this is one clear line and no traceback."""
    return len(text.strip().splitlines()) == 1 and "Traceback" not in text


def test_a_taken_port_is_one_line_and_exit_1(tmp_path):
    """The line names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, words = meshd(
            *("run", "--state-dir", str(tmp_path), "--no-mdns"),
            *("--http", address, "--mesh", "127.0.0.1:0"),
        )
    assert code == 1
    assert address in words
    assert one_line(words)


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    """The line names the command that mends it."""
    key = tmp_path / "mesh.key"
    key.write_text("ab" * 32)
    key.chmod(0o644)
    code, words = meshd("run", "--state-dir", str(tmp_path), "--mesh-key-file", str(key))
    assert code == 1
    assert "chmod 600" in words
    assert one_line(words)


@pytest.mark.parametrize("content", [None, b"", b"not a model at all", b"GGUF\x03\x00\x00\x00"])
def test_a_missing_or_corrupt_model_file_is_one_line_and_exit_1(tmp_path, content):
    """The line names the file."""
    model = tmp_path / "model.gguf"
    if content is not None:
        model.write_bytes(content)
    code, words = meshd(
        *("run", "--state-dir", str(tmp_path / "state"), "--no-mdns"),
        *("--http", "127.0.0.1:0", "--mesh", "127.0.0.1:0", "--engine", f"llamacpp:{model}"),
    )
    assert code == 1
    assert "model.gguf" in words
    assert one_line(words)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--colour"], "--colour"),
        (["--engine", "emulated:speed=3"], "speed"),
        (["--http", "nowhere"], "nowhere"),
    ],
)
def test_an_unknown_flag_or_value_exits_2_and_names_it(tmp_path, flags, names):
    """Usage errors are told apart from failures."""
    code, words = meshd("run", "--state-dir", str(tmp_path), *flags)
    assert code == 2
    assert names in words
    assert "Traceback" not in words


def test_an_unknown_config_key_exits_2_and_names_it(tmp_path):
    """A setting that does nothing is an error."""
    config = tmp_path / "meshd.toml"
    config.write_text('nmae = "pi"\n')
    code, words = meshd("run", "--config", str(config))
    assert code == 2
    assert "nmae" in words


def test_two_daemons_cannot_share_a_state_directory(tmp_path):
    """The second says so instead of playing the first one's double."""
    first = Daemon(tmp_path, "first", "--no-mdns").start().wait_ready()
    try:
        code, words = meshd(
            *("run", "--state-dir", str(first.state_dir), "--no-mdns"),
            *("--http", "127.0.0.1:0", "--mesh", "127.0.0.1:0"),
        )
    finally:
        first.stop()
    assert code == 1
    assert "another meshd" in words
    assert one_line(words)


def test_without_mdns_an_interface_that_is_not_there_is_one_line_and_exit_1(tmp_path):
    """The line names the flag, and the interfaces that there are."""
    code, words = meshd(
        *("run", "--state-dir", str(tmp_path), "--no-mdns", "--interface", "eht0"),
        *("--http", "127.0.0.1:0", "--mesh", "127.0.0.1:0"),
    )
    assert code == 1
    assert "interface eht0 (flag --interface); there are: lo" in words
    assert one_line(words)


def test_a_daemon_serves_on_when_its_words_are_read_no_more(tmp_path):
    """`meshd run | head -1`: the endpoint outlives its reader."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "meshd", "run", "--state-dir", str(tmp_path), "--no-mdns"),
            *("--http", "127.0.0.1:0", "--mesh", "127.0.0.1:0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.stdout.close()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(LOOK_AROUND_S + 1)
    process.terminate()
    assert "Traceback" not in process.communicate(timeout=10)[1]
    assert process.returncode == 0


def test_settings_made_while_it_runs_are_taken_over(tmp_path):
    """`meshctl config set` on a machine that had no file yet does what it says."""
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "settings")}
    daemon = Daemon(tmp_path, "first", "--no-mdns").start(env=env).wait_ready()
    try:
        set_it = ("config", "set", "keep_alive", "10m")
        subprocess.run(
            [sys.executable, "-m", "meshd.ctl", *set_it], env=os.environ | env, check=True
        )
        wait_until(lambda: "taken over" in daemon.log.read_text(), 3 * LOOK_EVERY_S, "taken over")
    finally:
        daemon.stop()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_cleanly_and_its_peers_are_told(launch, signal_number):
    """Exit 0, and `left` rather than `dead` at the peer."""
    stays = launch("stays").wait_ready()
    leaves = launch("leaves", "--peer", stays.peer).wait_ready()
    wait_until(lambda: stays.states().get("leaves") == "alive", 5, "joined")
    assert leaves.process is not None
    leaves.process.send_signal(signal_number)
    assert leaves.process.wait(10) == 0
    wait_until(lambda: stays.states().get("leaves") == "left", 3, "said farewell")
    assert "Traceback" not in leaves.log.read_text()
    assert "Warning" not in leaves.log.read_text()


def test_a_wide_endpoint_needs_keys_and_then_asks_for_one(tmp_path):
    """Refused without keys; with one, a request needs it, and /health does not."""
    wide = Daemon(tmp_path, "wide", "--no-mdns", "--engine", "emulated:model=echo")
    refused = wide.start(http="0.0.0.0:0")
    assert refused.process is not None
    assert refused.process.wait(10) == 1
    assert "meshctl keys add" in wide.log.read_text()
    key = add_key(wide.state_dir, "kitchen", "2026-11-21")
    try:
        wide.start(http="0.0.0.0:0").wait_ready()
        asked = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert wide.ask("GET", "/health")[0] == 200
        assert wide.ask("POST", "/v1/chat/completions", asked)[0] == 401
        assert wide.ask("POST", "/v1/chat/completions", asked, key=key)[0] == 200
    finally:
        wide.stop()
