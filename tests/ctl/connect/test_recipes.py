"""What each client is told: golden texts, read back by the parser of each format."""

import json
import tomllib
from pathlib import Path

import pytest

from meshd.ctl.connect.command import RECIPES
from meshd.ctl.connect.merge import InTheWay
from meshd.ctl.connect.recipe import Model, Target

GOLDEN = Path(__file__).parent / "golden"
TINY = Model("tiny", 65_536, ("chat", "tools", "vision"))
OTHER = Model("org/other:q4")
TARGET = Target("http://127.0.0.1:8787", TINY, (TINY, OTHER))
KEYED = Target("http://nas.local:8787", OTHER, (TINY, OTHER), "mk-1")
WRITTEN = sorted(name for name, recipe in RECIPES.items() if recipe.merge is not None)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("kind", "target"), [("open", TARGET), ("keyed", KEYED)])
def test_every_client_is_told_what_its_documentation_asks_for(name, kind, target):
    """Reviewed once against the documents that the recipes name, and kept here."""
    recipe = RECIPES[name]
    said = recipe.text(target) + "".join([f"# {line}\n" for line in recipe.hints(target)])
    assert said == (GOLDEN / f"{name}.{kind}.txt").read_text()


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("target", [TARGET, KEYED])
def test_a_fresh_file_is_what_is_printed_and_merging_again_changes_nothing(name, target):
    """Every line of it, whatever comment stands around."""
    recipe = RECIPES[name]
    fresh = recipe.merge("", target, False)
    lines = [line for line in fresh.splitlines() if line and not line.startswith("#")]
    printed = [line for line in recipe.text(target).splitlines() if line]
    assert lines == printed
    assert recipe.merge(fresh, target, False) == fresh


@pytest.mark.parametrize("name", WRITTEN)
def test_a_place_is_known_for_every_file_that_is_written(name):
    """On both systems, below the person's own home."""
    for platform in ("linux", "darwin"):
        places = RECIPES[name].place({}, Path("/people/anna"), platform)
        assert all(place.is_relative_to("/people/anna") for place in places)


@pytest.mark.parametrize(
    ("name", "variable", "place"),
    [
        ("codex", "CODEX_HOME", "/x/config.toml"),
        ("claude-code", "CLAUDE_CONFIG_DIR", "/x/settings.json"),
        ("opencode", "XDG_CONFIG_HOME", "/x/opencode/opencode.json"),
        ("zed", "XDG_CONFIG_HOME", "/x/zed/settings.json"),
        ("continue", "CONTINUE_GLOBAL_DIR", "/x/config.yaml"),
        ("llm", "LLM_USER_PATH", "/x/extra-openai-models.yaml"),
        ("llm", "XDG_CONFIG_HOME", "/x/io.datasette.llm/extra-openai-models.yaml"),
    ],
)
def test_the_clients_own_variables_move_its_file(name, variable, place):
    """As the client itself reads them."""
    places = RECIPES[name].place({variable: "/x"}, Path("/people/anna"), "linux")
    assert places[0] == Path(place)


def test_codex_reads_what_we_write():
    """Provider, protocol, context; the key's variable only where there is a key."""
    told = tomllib.loads(RECIPES["codex"].merge("", TARGET, False))
    assert (told["model"], told["model_provider"]) == ("tiny", "mesh")
    assert told["model_context_window"] == 65_536
    assert told["model_providers"]["mesh"]["wire_api"] == "responses"
    assert "env_key" not in told["model_providers"]["mesh"]
    keyed = tomllib.loads(RECIPES["codex"].merge("", KEYED, False))
    assert keyed["model_providers"]["mesh"]["env_key"] == "MESH_API_KEY"


def test_claude_code_is_given_the_root_and_a_model_for_each_name():
    """It adds /v1/messages itself."""
    env = json.loads(RECIPES["claude-code"].merge('{"env": {"A": "1"}}', TARGET, False))["env"]
    assert (env["A"], env["ANTHROPIC_BASE_URL"]) == ("1", "http://127.0.0.1:8787")
    assert {value for name, value in env.items() if name.endswith("MODEL")} == {"tiny"}


def test_somebody_elses_gateway_is_not_replaced_in_silence():
    """Only where its owner insists."""
    theirs = '{"env": {"ANTHROPIC_BASE_URL": "https://gateway.example"}}'
    with pytest.raises(InTheWay):
        RECIPES["claude-code"].merge(theirs, TARGET, False)
    insisted = json.loads(RECIPES["claude-code"].merge(theirs, TARGET, True))
    assert insisted["env"]["ANTHROPIC_BASE_URL"] == TARGET.root


def test_an_existing_provider_and_model_of_opencode_stay():
    """Ours comes beside them."""
    theirs = {"model": "anthropic/x", "provider": {"a": {"npm": "b"}}}
    told = json.loads(RECIPES["opencode"].merge(json.dumps(theirs), TARGET, False))
    assert (told["model"], list(told["provider"])) == ("anthropic/x", ["a", "mesh"])
    assert told["provider"]["mesh"]["models"]["tiny"]["limit"]["context"] == 65_536


@pytest.mark.parametrize("name", WRITTEN)
def test_no_key_is_written_where_a_client_reads_a_variable(name):
    """Files are copied and shared; variables less so."""
    in_file = "mk-1" in RECIPES[name].merge("", KEYED, False)
    assert in_file is (name in ("aider", "claude-code", "continue"))
