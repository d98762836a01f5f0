"""Merging into somebody's files: what is theirs stays, what is ours is found again."""

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.ctl.connect.merge import (
    BEGIN,
    END,
    OWN,
    Entry,
    Hold,
    InTheWay,
    merged_json,
    merged_toml,
    merged_yaml_items,
    merged_yaml_keys,
    own_file,
    with_block,
    without_block,
)

HEAD = {"model": "tiny", "model_provider": "mesh"}
TABLE = "model_providers.mesh"
ROWS = {"base_url": "http://x/v1", "wire_api": "responses"}
ITEMS = [{"model_id": "mesh/a", "vision": True}, {"model_id": "mesh/b"}]
OURS = Entry(("provider", "mesh"), {"url": "new"}, Hold.OURS)
FIRM = Entry(("env", "URL"), "new")
SOFT = Entry(("model",), "new", Hold.SOFT)


def test_json_keeps_what_is_there_and_its_indent():
    """Order and other keys too."""
    text = '{\n    "theme": "dark",\n    "env": {\n        "A": "1"\n    }\n}\n'
    merged = merged_json(text, [FIRM, SOFT])
    assert merged == (
        '{\n    "theme": "dark",\n    "env": {\n        "A": "1",\n        "URL": "new"\n    },\n'
        '    "model": "new"\n}\n'
    )


def test_json_that_says_it_already_is_not_touched():
    """Not even its spaces."""
    text = '{"env":{"URL":"new"},   "model":"mine"}'
    assert merged_json(text, [FIRM, SOFT]) == text
    fresh = merged_json("", [FIRM, OURS, SOFT])
    assert merged_json(fresh, [FIRM, OURS, SOFT]) == fresh


def test_what_is_ours_is_replaced_and_what_is_soft_gives_way():
    """By name."""
    text = '{"provider": {"mesh": {"url": "old"}, "other": 1}, "model": "mine"}'
    assert json.loads(merged_json(text, [OURS, SOFT])) == {
        "provider": {"mesh": {"url": "new"}, "other": 1},
        "model": "mine",
    }


def test_what_somebody_else_set_is_in_the_way_unless_the_owner_insists():
    """And is named."""
    text = '{"env": {"URL": "theirs"}}'
    with pytest.raises(InTheWay, match=r'env.URL = "theirs"'):
        merged_json(text, [FIRM])
    assert json.loads(merged_json(text, [FIRM], force=True)) == {"env": {"URL": "new"}}


@pytest.mark.parametrize("text", ["// note\n{}", "[]", "{", '{"env": 5}', "[" * 100_000])
def test_json_that_cannot_be_merged_is_left_alone(text):
    """Comments would be lost."""
    with pytest.raises(InTheWay):
        merged_json(text, [FIRM])


TOML = '# mine\nname = "x"  # kept\n\n[other]\na = 1\n'


def test_toml_gets_a_head_and_a_table_and_keeps_its_comments():
    """Defaults must stand in front of the first table."""
    merged = merged_toml(TOML, HEAD, TABLE, ROWS)
    assert TOML in merged
    assert tomllib.loads(merged) == {
        **HEAD,
        "name": "x",
        "other": {"a": 1},
        "model_providers": {"mesh": ROWS},
    }


def test_toml_with_defaults_of_its_own_keeps_them():
    """Only the provider is added."""
    merged = merged_toml('model = "mine"\n', HEAD, TABLE, ROWS)
    assert merged.startswith('model = "mine"\n')
    assert tomllib.loads(merged) == {"model": "mine", "model_providers": {"mesh": ROWS}}


@pytest.mark.parametrize("text", ["", TOML, 'model = "mine"', "a = 1\n\n\n"])
def test_toml_merged_twice_changes_nothing_and_new_values_replace_old(text):
    """The block is found again."""
    once = merged_toml(text, HEAD, TABLE, ROWS)
    assert merged_toml(once, HEAD, TABLE, ROWS) == once
    moved = merged_toml(once, HEAD, TABLE, ROWS | {"base_url": "http://y/v1"})
    assert tomllib.loads(moved)["model_providers"]["mesh"]["base_url"] == "http://y/v1"
    assert moved.count(END) == once.count(END)


@pytest.mark.parametrize(
    "text",
    [
        *("a = ", "[model_providers.mesh]\nname = 'theirs'\n"),
        *("model_providers = {}\n", "model_providers = {a = {b = 1}}\n", "model_providers = 3\n"),
    ],
)
def test_toml_that_cannot_be_merged_is_left_alone(text):
    """Broken, with a provider of that name that is not ours, or closed to others."""
    with pytest.raises(InTheWay):
        merged_toml(text, HEAD, TABLE, ROWS)


def test_yaml_keys_come_in_a_block_at_the_end():
    """Once."""
    merged = merged_yaml_keys("# mine\ndark-mode: true\nread:\n  - a.md\n", {"model": "x"})
    assert merged == (f'# mine\ndark-mode: true\nread:\n  - a.md\n\n{BEGIN}\nmodel: "x"\n{END}\n')
    assert merged_yaml_keys(merged, {"model": "x"}) == merged


@pytest.mark.parametrize(
    "text", ["model: mine\n", "{model: x}\n", "just words\n", " a: 1\n", "- a\n", "# x\n\n  a: 1\n"]
)
def test_yaml_that_has_the_key_or_another_form_is_left_alone(text):
    """A key twice would be an error, or worse, none."""
    with pytest.raises(InTheWay):
        merged_yaml_keys(text, {"model": "x"})


def test_yaml_items_come_in_a_block_at_the_end():
    """With their flags, once."""
    merged = merged_yaml_items("- model_id: theirs\n  vision: true\n", ITEMS, "model_id")
    assert merged == (
        "- model_id: theirs\n  vision: true\n\n"
        f'{BEGIN}\n- model_id: "mesh/a"\n  vision: true\n- model_id: "mesh/b"\n{END}\n'
    )
    assert merged_yaml_items(merged, ITEMS, "model_id") == merged


@pytest.mark.parametrize(
    "text",
    ["- model_id: mesh/a\n", '- x: 1\n  model_id: "mesh/b"\n', "a: 1\n", "---\n  - model_id: x\n"],
)
def test_yaml_lists_with_the_same_item_or_of_another_form_are_left_alone(text):
    """An id twice would hide one of them."""
    with pytest.raises(InTheWay):
        merged_yaml_items(text, ITEMS, "model_id")


def test_a_file_of_our_own_is_replaced_and_any_other_is_not():
    """It says so in its first line."""
    ours = own_file("", "a: 1\n")
    assert ours == f"{OWN}\na: 1\n"
    assert own_file(ours, "a: 2\n") == f"{OWN}\na: 2\n"
    with pytest.raises(InTheWay):
        own_file("a: 1\n", "a: 2\n")
    assert own_file("a: 1\n", "a: 2\n", force=True) == f"{OWN}\na: 2\n"


@given(text=st.text(st.sampled_from("ab#\n ")), at_head=st.booleans())
def test_a_block_that_is_taken_out_leaves_no_trace(text, at_head):
    """Whatever stood around it, but for a last line without an end."""
    whole = with_block(text, ["x = 1"], at_head=at_head)
    assert with_block(whole, ["x = 1"], at_head=at_head) == whole
    assert without_block(whole, at_head=at_head).rstrip("\n") == text.rstrip("\n")
    assert with_block(whole, [], at_head=at_head) == without_block(whole, at_head=at_head)
