"""Settings: where each comes from, and what is refused with which words."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import pytest

from meshd.config import ConfigError, Settings, describe, find_config, load_settings, usual_places
from meshd.ctl.service import launchd, systemd
from meshd.options import OPTIONS, node_name


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "config.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def refusal(
    flags: dict[str, object] | None = None,
    env: dict[str, str] | None = None,
    file: Path | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags or {}, env or {}, file)
    return str(caught.value)


def test_defaults_serve_loopback_and_listen_for_peers(tmp_path: Path) -> None:
    """Nothing told: HTTP on loopback 8787, mesh on 8788, relay on 8789, mDNS on."""
    settings = load_settings({"state_dir": str(tmp_path)}, {}, None)
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8787)
    assert (settings.mesh_host, settings.mesh_port, settings.relay_port) == ("0.0.0.0", 8788, 8789)
    assert settings.mdns
    assert settings.engines == ()


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """Value by value, and each one's origin is kept in words."""
    file = write(tmp_path, '# mine\nname = "from-file"\nlog_format = "json"\nhttp = "[::1]:1"\n')
    env = {"MESHD_NAME": "from-env", "MESHD_HTTP": "127.0.0.1:2", "PATH": "/bin"}
    settings = load_settings({"name": "from-flag", "http": None}, env, file)
    assert (settings.name, settings.http_port, settings.log_format) == ("from-flag", 2, "json")
    assert settings.origins["name"] == "flag --name"
    assert settings.origins["http_port"] == "environment MESHD_HTTP"
    assert settings.origins["log_format"] == f"{file}, line 3: log_format"
    assert settings.origins["mesh_port"] == "default"


def test_every_field_has_an_origin(tmp_path: Path) -> None:
    """No value can appear from nowhere."""
    settings = load_settings({"state_dir": str(tmp_path)}, {}, None)
    assert set(settings.origins) == {f.name for f in fields(Settings)} - {"origins"}


@pytest.mark.parametrize(
    ("mesh", "ports"),
    [("0.0.0.0:9000", (9000, 9001)), ("[::]:0", (0, 0)), ("127.0.0.1:65534", (65534, 65535))],
)
def test_relay_port_follows_the_mesh_port(mesh: str, ports: tuple[int, int]) -> None:
    """The relay takes the next port; where any port will do, any port will do for it too."""
    settings = load_settings({"mesh": mesh, "state_dir": "x"}, {}, None)
    assert (settings.mesh_port, settings.relay_port) == ports


@pytest.mark.parametrize(
    ("http", "mesh"),
    [("127.0.0.1:8788", None), ("127.0.0.1:8789", None), ("[::1]:9000", "[::1]:9000")],
)
def test_the_endpoint_and_the_mesh_must_not_want_one_port(http: str, mesh: str | None) -> None:
    """Said before anything listens: afterwards "the port is taken" would blame a stranger."""
    assert "both want port" in refusal({"http": http, "mesh": mesh})


def test_one_port_on_two_addresses_is_two_ports(tmp_path: Path) -> None:
    """As is any free one."""
    for http, mesh in (("127.0.0.1:9000", "192.168.1.2:9000"), ("127.0.0.1:0", "127.0.0.1:0")):
        load_settings({"http": http, "mesh": mesh, "state_dir": str(tmp_path)}, {}, None)


def test_lists_are_repeated_flags_cut_text_or_toml_arrays(tmp_path: Path) -> None:
    """Each layer writes lists its own way; engines keep the commas inside a SPEC."""
    peers = load_settings({"peer": ["a:1", "[fe80::1%eth0]:2", "a:1"]}, {}, None).peers
    assert peers == ("a:1", "[fe80::1%eth0]:2")
    assert load_settings({}, {"MESHD_PEER": "a:1, b:2 c:3"}, None).peers == ("a:1", "b:2", "c:3")
    specs = "llamacpp:/m.gguf,ctx=4096; emulated:model=x,slots=2"
    settings = load_settings({}, {"MESHD_ENGINE": specs}, None)
    assert settings.engines == ("llamacpp:/m.gguf,ctx=4096", "emulated:model=x,slots=2")
    file = write(tmp_path, 'peers = ["a:1"]\ninterface = "eth0"\n')
    assert load_settings({}, {}, file).peers == ("a:1",)
    assert load_settings({}, {}, file).interfaces == ("eth0",)


@pytest.mark.parametrize("word", ["1", "true", "YES", "on"])
def test_mdns_is_switched_off_by_every_word_for_yes(word: str) -> None:
    """The environment has no booleans, so the usual words count."""
    assert not load_settings({}, {"MESHD_NO_MDNS": word}, None).mdns


def test_paths_in_a_file_start_at_the_file(tmp_path: Path) -> None:
    """A config folder can be moved as a whole; dashes and underscores are the same."""
    file = write(tmp_path, 'mesh-key-file = "mesh.key"\nstate-dir = "/var/lib/meshd"\n')
    settings = load_settings({}, {}, file)
    assert settings.mesh_key_file == tmp_path / "mesh.key"
    assert settings.state_dir == Path("/var/lib/meshd")


def test_unknown_key_in_the_file_is_named_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    """A typo is found where it was made."""
    file = write(tmp_path, 'name = "a"\n\nmesh_keyfile = "k"\n')
    words = refusal(file=file)
    assert words.startswith(f"{file}, line 3: mesh_keyfile: there is no such setting")
    assert words.endswith("did you mean mesh_key_file?")


def test_unknown_environment_variable_is_named_with_the_nearest() -> None:
    """A setting that silently does nothing is worse than a daemon that does not start."""
    words = refusal(env={"MESHD_ENGNE": "x"})
    assert words.startswith("environment MESHD_ENGNE: there is no such setting")
    assert "did you mean MESHD_ENGINE?" in words


def test_a_key_like_no_other_gets_the_whole_list() -> None:
    """Where nothing is near, everything there is."""
    assert "there are state_dir, name, http" in refusal(env={"MESHD_ZZZZZZ": "x"})


def test_one_setting_spelt_twice_is_refused(tmp_path: Path) -> None:
    """`peer` and `peers` in one file: which one was meant is not ours to guess."""
    file = write(tmp_path, 'peer = ["a:1"]\npeers = ["b:1"]\n')
    assert "peers: the same as 'peer'; keep one" in refusal(file=file)


def test_toml_syntax_errors_give_line_and_column(tmp_path: Path) -> None:
    """The parser's own position is passed on."""
    file = write(tmp_path, 'name = "a"\nhttp = nonsense\n')
    assert "not valid TOML: Invalid value (at line 2, column 8)" in refusal(file=file)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"name = '\xff'\n", "line 1: not UTF-8"),
        (b"a = " + b"[" * 5000, "not"),
        (b"#" * (1024 * 1024 + 1), "not a config file?"),
    ],
)
def test_a_file_of_another_kind_is_one_clear_line(tmp_path: Path, raw: bytes, words: str) -> None:
    """Whatever was named as the config file, the answer is a sentence."""
    said = refusal(file=write(tmp_path, raw))
    assert words in said
    assert "\n" not in said


def test_a_missing_or_unreadable_file_says_so(tmp_path: Path) -> None:
    """Told explicitly, by flag or environment, a file must be there."""
    with pytest.raises(ConfigError, match="no such config file"):
        find_config(str(tmp_path / "none.toml"), {})
    with pytest.raises(ConfigError, match="no such config file"):
        find_config(None, {"MESHD_CONFIG": str(tmp_path)})
    with pytest.raises(ConfigError, match="account that is not here"):
        find_config("~nobody-here/config.toml", {})
    assert "cannot be read: Is a directory" in refusal(file=tmp_path)


def test_a_file_where_nobody_may_look_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that is closed to the daemon's account."""

    def refuse(path: Path, *_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        find_config("/closed/config.toml", {})


def test_a_byte_order_mark_is_no_part_of_the_settings(tmp_path: Path) -> None:
    """Some editors put one in front of everything."""
    file = write(tmp_path, b'\xef\xbb\xbfname = "attic"\n')
    assert load_settings({}, {}, file).name == "attic"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"http": "8787"}, "flag --http: '8787' is not HOST:PORT; write"),
        ({"http": "127.0.0.1:70000"}, "port 70000 is outside 0-65535"),
        ({"http": "::1:80"}, "is not HOST:PORT"),
        ({"mesh": "[::g]:80"}, "'::g' is not an IPv6 address"),
        ({"mesh": "a b:80"}, "'a b' is neither an address nor a host name"),
        ({"mesh": "0.0.0.0:65535"}, "leaves none for the relay"),
        ({"peer": ["box:0"]}, "flag --peer: port 0 is outside 1-65535"),
        ({"name": "My Mac"}, "such as 'My-Mac'"),
        ({"name": "x" * 64}, "is not a node name"),
        ({"name": "  "}, "is not a text"),
        ({"log_format": "xml"}, "choose text or json"),
        ({"no_mdns": "maybe"}, "neither true nor false"),
        ({"peer": 3}, "is not a list of texts"),
        ({"engine": [3]}, "is not a text"),
        ({"memory_reserve": "2"}, "flag --memory-reserve: '2' is not a size; write a number and"),
        ({"memory_reserve": 2}, "such as '2GB'"),
        ({"keep_alive": "soon"}, "such as '30m', or 'forever'"),
        ({"state_dir": "~nobody-here/x"}, "--state-dir: '~nobody-here/x' begins with the home"),
        ({"model_dir": ["~nobody-here/x"]}, "an account that is not here"),
        ({"when_hot": "some"}, "'some' is not a share; choose full, half or one"),
    ],
)
def test_a_value_that_cannot_be_read_says_how_to_write_it(
    flags: dict[str, object], words: str
) -> None:
    """One line: the key, what is wrong, what would be right."""
    assert words in refusal(flags)


def test_a_hidden_value_is_checked_all_the_same() -> None:
    """Removing a flag must bring no surprise."""
    assert "environment MESHD_HTTP" in refusal({"http": "127.0.0.1:1"}, {"MESHD_HTTP": "nonsense"})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "[::]", "kitchen"])
def test_a_bind_wider_than_loopback_is_for_the_door_to_judge(host: str) -> None:
    """Whether there are API keys is known to `meshd.api.keys`, not to the settings."""
    assert load_settings({"http": f"{host}:8787"}, {}, None).http_host == host.strip("[]")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_every_spelling_of_loopback_is_welcome(host: str) -> None:
    """Loopback is a range and a name, not one address."""
    assert load_settings({"http": f"{host}:0"}, {}, None).http_port == 0


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("kitchen.local", "kitchen"),
        ("Anna's MacBook", "Anna-s-MacBook"),
        ("---", "node"),
        ("", "node"),
        ("x" * 80, "x" * 63),
        ("küche", "k-che"),
    ],
)
def test_node_name_is_the_host_names_first_label_made_plain(host: str, name: str) -> None:
    """Whatever a machine is called, its node has a name that fits a header and a DNS label."""
    assert node_name(host) == name


def test_describe_names_every_option_once_with_its_origin(tmp_path: Path) -> None:
    """What `meshctl config check` prints is the whole table of options."""
    settings = load_settings({"state_dir": str(tmp_path), "mesh": "[::]:5"}, {}, None)
    rows = describe(settings)
    assert [key for key, _, _ in rows] == [option.key for option in OPTIONS]
    assert ("mesh", "[::]:5", "flag --mesh") in rows
    assert ("no_mdns", "false", "default") in rows


def test_the_settings_of_the_machines_service_are_found_without_being_named() -> None:
    """So that `meshctl config set` changes the file that the service reads."""
    assert systemd.SYSTEM_CONFIG in usual_places("linux")
    assert launchd.DAEMON_SUPPORT / "config.toml" in usual_places("darwin")


def test_usual_place_is_read_when_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person's own config folder, as the platform defines it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_config(None, {}) is None
    own = usual_places()[0]
    own.parent.mkdir(parents=True)
    own.write_text('name = "mine"\n')
    assert find_config(None, {}) == own


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("1.5 gib", 1_610_612_736), ("512MB", 512 * 10**6)]
)
def test_sizes_are_written_with_their_unit(text: str, size: int) -> None:
    """Decimal or binary, as people write them."""
    settings = load_settings({"memory_reserve": text}, {}, None)
    assert settings.memory_reserve_bytes == size
    shown = {key: value for key, value, _ in describe(settings)}["memory_reserve"]
    again = load_settings({"memory_reserve": shown}, {}, None)
    assert again.memory_reserve_bytes == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800.0), ("90 s", 90.0), ("2h", 7200.0), ("forever", math.inf)]
)
def test_times_are_written_with_their_unit(text: str, seconds: float) -> None:
    """And shown as they can be written."""
    settings = load_settings({"keep_alive": text}, {}, None)
    assert settings.keep_alive_s == seconds
    shown = {key: value for key, value, _ in describe(settings)}["keep_alive"]
    assert load_settings({"keep_alive": shown}, {}, None).keep_alive_s == seconds


def test_model_folders_are_paths_from_every_layer(tmp_path: Path) -> None:
    """Relative to the file that names them; in the environment separated as PATH is."""
    file = write(tmp_path, 'model_dirs = ["models", "/srv/models"]\nno_adopt = true\n')
    settings = load_settings({}, {}, file)
    assert settings.model_dirs == (tmp_path / "models", Path("/srv/models"))
    assert (settings.adopt, settings.catalog) == (False, True)
    told = load_settings({}, {"MESHD_MODEL_DIR": "/a:/b"}, None).model_dirs
    assert told == (Path("/a"), Path("/b"))
