"""The models that lie on this machine's disks, found without being told where.

One entry for each different model: files in several stores with the same fingerprint are one model
with several names. The id is made from the file's name (`names.model_name`), or is Ollama's own
name; of several quantisations of one model the one that most people run keeps the plain id, and the
others carry theirs (`qwen3-8b:q8_0`). Every entry also answers to its file's name and to what its
store calls it.

What a file says of itself is remembered by (path, size, time of change), so that a second look at a
thousand models costs a thousand `stat`s and no reading.

Walks are bounded in depth and in entries, never follow a linked folder, and pass over what they may
not read. Nothing is ever written in a store. All of this blocks on disks: call it from a thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from meshd.core.ports import EngineError
from meshd.core.residency.footprint import UNKNOWN_SHAPE, ModelShape
from meshd.engine.heads import HeadCache, Seen
from meshd.engine.names import model_name
from meshd.engine.stores import (
    Found,
    gguf_models,
    hub_name,
    lmstudio_name,
    ollama_model,
)
from protocol import limits
from protocol.frozen import frozen
from protocol.load import ModelRecord

SAID_MAX = 256
"""Different lines of the log: as many files that cannot be read as there are models kept."""


class Once(logging.Filter):
    """Lets a line into the log once: every look at the disks, one each minute, would say it."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is new; none is when too many were."""
        line = record.getMessage()
        if line in self._said or len(self._said) >= SAID_MAX:
            return False
        self._said.add(line)
        return True


LOG = logging.getLogger(__name__)
LOG.addFilter(Once())

DEPTH_MAX = 8
"""Folders below a store's root: the Hugging Face cache needs four, and sub-folders a few more."""

ENTRIES_MAX = 50_000
"""Files and folders looked at in one store: a second of walking on a slow disk."""

ENTRIES_KEPT_MAX = 256
"""Models kept: four times what a node announces."""

MANIFEST_MAX_BYTES = 64 * 1024
"""Read of an Ollama manifest (about 1 kB)."""

COMMON_QUANTISATIONS = ("Q4_K_M", "Q4_K_S", "Q4_0", "MXFP4", "Q5_K_M", "Q6_K", "Q8_0")
"""Which of several quantisations keeps the plain id: what most people run, first."""


@frozen
class Stores:
    """Folders to look through, by whose habits they follow. Those that do not exist are empty."""

    gguf: tuple[Path, ...] = ()
    hub: tuple[Path, ...] = ()
    lmstudio: tuple[Path, ...] = ()
    ollama: tuple[Path, ...] = ()


@frozen
class Entry:
    """One model on the disk."""

    record: ModelRecord
    """As it would be announced; its context length is what the model was made for."""
    path: Path
    shape: ModelShape = UNKNOWN_SHAPE
    modified_ns: int = 0


def usual_stores(env: Mapping[str, str], home: Path, extra: Sequence[Path] = ()) -> Stores:
    """Where the programs keep their models by default, and where their variables say; `extra` are
    the owner's own folders."""
    cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(env.get("HF_HUB_CACHE") or Path(env.get("HF_HOME") or cache / "huggingface") / "hub")
    llama = Path(env.get("LLAMA_CACHE") or cache / "llama.cpp")
    ollama = [Path(env["OLLAMA_MODELS"])] if env.get("OLLAMA_MODELS") else []
    return Stores(
        gguf=(*extra, llama, home / "Library/Caches/llama.cpp"),
        hub=(hub,),
        lmstudio=(home / ".lmstudio/models", cache / "lm-studio/models"),
        ollama=(*ollama, home / ".ollama/models", Path("/usr/share/ollama/.ollama/models")),
    )


def scan(stores: Stores, heads: HeadCache) -> list[Entry]:
    """Every model of the stores, newest first, at most ENTRIES_KEPT_MAX. Never raises: what cannot
    be read is left out, and said in the log."""
    read = [entry for each in _found(stores) if (entry := _readable(each, heads)) is not None]
    heads.save()
    return _distinct(read)[:ENTRIES_KEPT_MAX]


def _found(stores: Stores) -> Iterator[Found]:
    for root in stores.gguf:
        yield from gguf_models(walk(root))
    for root in stores.hub:
        yield from (_called(each, hub_name(each.path)) for each in gguf_models(walk(root)))
    for root in stores.lmstudio:
        for each in gguf_models(walk(root)):
            yield _called(each, lmstudio_name(root, each.path))
    for root in stores.ollama:
        yield from _ollama(root)


def _called(found: Found, name: str | None) -> Found:
    return replace(found, names=(*found.names, name)) if name else found


def _ollama(root: Path) -> Iterator[Found]:
    manifests = root / "manifests"
    for file in walk(manifests):
        text = _text(file)
        found = ollama_model(root, file.relative_to(manifests), text) if text else None
        if found is not None:
            yield found


def walk(root: Path) -> Iterator[Path]:
    """Every file below `root`, links to files included, linked folders not."""
    waiting = [(root, 0)]
    left = ENTRIES_MAX
    while waiting:
        folder, depth = waiting.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            left -= 1
            if left < 0:
                LOG.warning("%s: more than %d files; the rest is not looked at", root, ENTRIES_MAX)
                return
            if entry.is_dir(follow_symlinks=False):
                if depth < DEPTH_MAX and not entry.name.startswith("."):
                    waiting.append((Path(entry.path), depth + 1))
            elif _is_file(entry):
                yield Path(entry.path)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Also where a link leads; one that leads in a circle, or where we may not look, to none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def entry_of(path: Path, heads: HeadCache) -> Entry:
    """A model file that the owner named; of a split one the first. Raises EngineError."""
    try:
        beside = [path, *path.parent.glob("*.gguf")] if path.is_file() else []
        models = gguf_models(dict.fromkeys(beside))
        found = next((each for each in models if each.path == path), None)
        entry = _entry(found or Found(path, (path,), path.stem), heads)
    except OSError as error:
        raise EngineError(f"model file {path} cannot be read: {error.strerror}") from None
    if entry is None:
        raise EngineError(
            f"{path} is a part of a model (a projector or an adapter) or a reranker: it makes "
            "neither text nor vectors"
        )
    return entry


def _readable(found: Found, heads: HeadCache) -> Entry | None:
    try:
        return _entry(found, heads)
    except (OSError, EngineError) as error:
        LOG.info("catalog: left out: %s", error)
        return None


def _entry(found: Found, heads: HeadCache) -> Entry | None:
    """What the catalog says of a model; None for what is no model. Raises EngineError, OSError."""
    seen = heads.read(found.path)
    sizes = [part.stat() for part in found.parts]
    if seen.kind not in {"", "model"}:
        return None
    size = sum(each.st_size for each in sizes)
    plain = found.stem if found.is_named else model_name(found.stem)
    names = (found.stem, *found.names, *_with_quantisation(found.names, seen.quantisation))
    record = ModelRecord(
        model_id=plain[: limits.TEXT_MAX_CHARS],
        engine="llamacpp",
        aliases=_aliases(names, plain),
        context_length=seen.context_length,
        quantisation=seen.quantisation,
        capabilities=_capabilities(seen, has_eyes=found.has_eyes),
        size_bytes=size,
        fingerprint=seen.fingerprint if len(sizes) == 1 else f"{seen.fingerprint}-{size}",
    )
    return Entry(record, found.path, seen.shape, max(each.st_mtime_ns for each in sizes))


def _with_quantisation(names: Iterable[str], quantisation: str) -> Iterator[str]:
    """llama.cpp's own way to name a file of a repository: `ORG/NAME:Q4_K_M`."""
    return (f"{name}:{quantisation}" for name in names if quantisation and ":" not in name)


def _aliases(names: Iterable[str], model_id: str) -> tuple[str, ...]:
    told = dict.fromkeys(
        name for name in names if name != model_id and len(name) <= limits.TEXT_MAX_CHARS
    )
    return tuple(told)[: limits.ALIASES_MAX]


def _capabilities(seen: Seen, *, has_eyes: bool) -> tuple[str, ...]:
    """What `worker` will say of it, and what it could do elsewhere."""
    if seen.embeds:
        return ("embedding",)
    tools = ("tools",) if seen.calls_tools else ()
    vision = ("vision",) if has_eyes else ()
    return ("chat", "completion", "embedding", *tools, *vision)


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """One entry for each fingerprint, and one model for each id. Newest first."""
    by_weights: dict[str, Entry] = {}
    for entry in entries:
        known = by_weights.setdefault(entry.record.fingerprint, entry)
        if known is not entry:
            by_weights[entry.record.fingerprint] = _merged(known, entry)
    taken: set[str] = set()
    kept = []
    for entry in sorted(by_weights.values(), key=_commonness):
        model_id = _free_id(entry.record, taken)
        if model_id is not None:
            taken.add(model_id)
            aliases = _aliases(entry.record.aliases, model_id)
            kept.append(
                replace(entry, record=replace(entry.record, model_id=model_id, aliases=aliases))
            )
    return sorted(kept, key=lambda entry: -entry.modified_ns)


def _merged(first: Entry, second: Entry) -> Entry:
    """The same weights twice: one model that answers to all names, with all it was said to do."""
    one, two = first.record, second.record
    names = (*one.aliases, two.model_id, *two.aliases)
    words = tuple(dict.fromkeys((*one.capabilities, *two.capabilities)))
    record = replace(one, aliases=_aliases(names, one.model_id), capabilities=words)
    return replace(first, record=record)


def _commonness(entry: Entry) -> tuple[int, int, str]:
    known = COMMON_QUANTISATIONS
    rank = known.index(entry.record.quantisation) if entry.record.quantisation in known else 99
    return rank, entry.record.size_bytes, str(entry.path)


def _free_id(record: ModelRecord, taken: set[str]) -> str | None:
    """The plain id, else the one with the quantisation, else the one with part of its print."""
    model_id = record.model_id
    marks = ("", f":{record.quantisation.lower()}", f":{record.fingerprint[-8:]}")
    wanted = (f"{model_id}{mark}" for mark in marks if mark != ":")
    return next((name for name in wanted if name not in taken), None)


def _text(file: Path) -> str:
    """The beginning of a small file; empty where it cannot be had."""
    try:
        with file.open("rb") as opened:
            return opened.read(MANIFEST_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
