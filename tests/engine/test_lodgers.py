"""Claims of meshd.engine.lodgers and meshd.engine.roster: from settings to what may be loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.config import Settings
from meshd.core.ports import EngineError, HostReading
from meshd.engine.bundled import bundled_gguf
from meshd.engine.catalog import Stores
from meshd.engine.lodgers import found_lodgers, wanted_lodgers
from meshd.engine.places import Machine
from meshd.engine.residency import ResidentEngine
from meshd.engine.roster import roster
from meshd.engine.spec import LlamaSpec, MlxSpec, parse
from tests.engine.mlx_folder import needs_mlx
from tests.engine.modelfiles import write

GB = 10**9
TEMPLATE = {"tokenizer_chat_template": "{{ messages }}{{ tools }}<tool_call>"}


def machine(gigabytes: float) -> Machine:
    size = round(gigabytes * GB)
    return Machine(lambda: HostReading(size, size, "normal"), lambda _pid: None)


def wanted(path: Path, gigabytes: float = 1000, **options: object):
    (lodger,) = wanted_lodgers([(LlamaSpec(str(path), **options), path)], machine(gigabytes))
    return lodger


@pytest.mark.parametrize("kind", [LlamaSpec, MlxSpec])
def test_a_place_that_cannot_be_looked_at_is_said_in_one_line(kind) -> None:
    """A folder of somebody else's, say: the owner learns which, and the node does not start."""
    path = Path("x" * 300)
    with pytest.raises(EngineError, match="x" * 300):
        wanted_lodgers([(kind(str(path)), path)], machine(8))


def test_the_context_is_what_the_model_and_the_machine_allow() -> None:
    """SmolLM2 was made for 8,192 tokens; on a machine of 1.5 GB it gets half of them."""
    assert wanted(bundled_gguf()).record.context_length == 8192
    assert wanted(bundled_gguf(), gigabytes=1.5).record.context_length == 4096
    assert wanted(bundled_gguf(), ctx=1000).record.context_length == 1000


def test_what_is_reserved_follows_slots_and_context() -> None:
    """The owner's own numbers, when given."""
    small, large = (wanted(bundled_gguf(), ctx=2048, slots=slots) for slots in (1, 4))
    assert large.need.kv_bytes == 4 * small.need.kv_bytes
    assert (small.slots, small.is_wanted) == (1, True)


@pytest.mark.parametrize(
    ("own", "asked", "context"),
    [(512, 0, 512), (512, 4096, 512), (8192, 0, 2048), (8192, 4096, 4096)],
)
def test_a_model_that_makes_vectors_only_reads_one_text_at_a_time(
    tmp_path: Path, own: int, asked: int, context: int
) -> None:
    """In one pass, so a text is bounded where the owner says nothing; slots cost no memory."""
    said = {"context_length": own, "block_count": 12, "embedding_length": 768}
    said |= {"attention.head_count": 12, "feed_forward_length": 3072}
    file = write(
        tmp_path / "m.gguf",
        general_architecture="nomic-bert",
        **{f"nomic-bert_{key}": value for key, value in said.items()},
    )
    lodger = wanted(file, ctx=asked, slots=4)
    assert (lodger.record.context_length, lodger.slots) == (context, 4)
    assert lodger.need.kv_bytes == context * 2 * 12 * 768 * 2
    assert lodger.need.prefill_bytes == context * (6 * 768 + 2 * 3072 + 2 * context) * 4


def test_a_name_given_by_the_owner_is_the_id(tmp_path: Path) -> None:
    """The one made from the file is an alias then."""
    record = wanted(write(tmp_path / "Tiny-Q4_0.gguf", **TEMPLATE), model="mine").record
    assert record.model_id == "mine"
    assert {"tiny", "Tiny-Q4_0"} <= set(record.aliases)


def test_a_named_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    """A projector belongs to a model, and a reranker makes nothing that can be asked for."""
    with pytest.raises(EngineError, match="a projector or an adapter"):
        wanted(write(tmp_path / "x.gguf", general_type="mmproj"))
    with pytest.raises(EngineError, match="a reranker"):
        wanted(write(tmp_path / "r.gguf", llama_pooling_type=4))
    with pytest.raises(EngineError, match="not found"):
        wanted(tmp_path / "absent.gguf")


def test_found_models_are_told_with_what_the_worker_can_do(tmp_path: Path) -> None:
    """It has no eyes, whatever lies beside the file."""
    write(tmp_path / "m.gguf", **TEMPLATE)
    write(tmp_path / "mmproj-m.gguf", general_type="mmproj")
    (lodger,) = found_lodgers(Stores(gguf=(tmp_path,)), machine(8), None)
    assert lodger.record.capabilities == ("chat", "completion", "embedding", "tools")
    assert not lodger.is_wanted


def names(*engines: str, catalog: bool = False, adopt: bool = False) -> list[str]:
    settings = Settings(Path("absent"), "n", catalog=catalog, adopt=adopt)
    specs = [parse(engine) for engine in engines]
    return [engine.name for engine in roster(specs, settings, machine(8))]


def test_all_model_files_share_one_memory() -> None:
    """Two SPECs, one residency."""
    assert names("llamacpp:a.gguf", "emulated:name=e", "llamacpp:b.gguf") == [
        "llamacpp",
        "emulated e",
    ]


def mlx_folder(folder: Path, **config: object) -> Path:
    """A model folder whose weights are empty."""
    folder.mkdir()
    shape = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 100}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **shape, **config}))
    tensor = {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}
    head = json.dumps({"w": tensor}).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_an_mlx_model_is_counted_like_any_other(tmp_path: Path) -> None:
    """Weights, the cache of running and of kept conversations, and a pass of MLX's own length."""
    folder = mlx_folder(tmp_path / "Tiny-4bit", quantization={"bits": 4})
    spec = MlxSpec(str(folder), ctx=1000, slots=3)
    (lodger,) = wanted_lodgers([(spec, folder)], machine(8))
    record = lodger.record
    assert (record.model_id, record.engine, record.aliases) == ("tiny", "mlx", ("Tiny-4bit",))
    assert (record.quantisation, record.context_length) == ("4bit", 1000)
    kv_bytes_per_token = 2 * 2 * (16 + 16) * 2
    assert lodger.need.kv_bytes == 2 * 3 * 1000 * kv_bytes_per_token
    assert lodger.need.prefill_bytes > 2048 * 6 * 64 * 4
    assert lodger.is_wanted


def test_an_mlx_model_takes_calls_before_it_is_loaded(tmp_path: Path) -> None:
    """Who asks for tools first is not told that nobody has any."""
    folder = mlx_folder(tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{{ tools }} <tool_call>")
    (lodger,) = wanted_lodgers([(MlxSpec(str(folder)), folder)], machine(8))
    assert lodger.record.capabilities == ("chat", "completion", "tools")


def test_a_folder_that_does_not_say_its_shape_is_taken_at_its_size(tmp_path: Path) -> None:
    """And a half."""
    folder = mlx_folder(tmp_path / "odd", num_hidden_layers=None)
    (lodger,) = wanted_lodgers([(MlxSpec(str(folder)), folder)], machine(8))
    assert (lodger.need.kv_bytes, lodger.record.context_length) == (0, 8192)


def test_two_squeezes_of_one_model_keep_apart(tmp_path: Path) -> None:
    """The first has the plain id, the other carries its quantisation."""
    one, two = (
        mlx_folder(tmp_path / "m-4bit"),
        mlx_folder(tmp_path / "m-8bit", quantization={"bits": 8}),
    )
    named = [(MlxSpec(str(path)), path) for path in (one, two)]
    told = [each.record.model_id for each in wanted_lodgers(named, machine(8))]
    assert told == ["m", "m:8bit"]


@needs_mlx
def test_mlx_models_share_the_same_memory(tmp_path: Path) -> None:
    """One residency for all that runs here; alone, it is called by their name."""
    folder = mlx_folder(tmp_path / "m")
    assert names(f"mlx:{folder}") == ["mlx"]
    assert names(f"mlx:{folder}", "llamacpp:a.gguf") == ["llamacpp"]


def test_what_is_found_can_be_turned_off() -> None:
    """Nothing but what was named, then."""
    assert names("emulated:name=e") == ["emulated e"]
    found = names("openai:http://127.0.0.1:1234", catalog=True, adopt=True)
    assert found[:2] == ["llamacpp", "upstream http://127.0.0.1:1234"]
    assert "ollama http://127.0.0.1:11434" in found
    assert "lm-studio http://127.0.0.1:1234" not in found


def test_a_daemon_without_models_is_a_whole_daemon() -> None:
    """It routes to others."""
    assert names() == []
    settings = Settings(Path("absent"), "n", adopt=False)
    (engine,) = roster([], settings, machine(8))
    assert isinstance(engine, ResidentEngine)
    assert engine.models() == ()
