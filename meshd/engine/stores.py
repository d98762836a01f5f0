"""Where other programs keep models, and how they name them. Pure: listings and texts come in.

Four habits, each recorded from the program that has it:

- a folder of GGUF files, possibly split (`name-00001-of-00003.gguf`), possibly with the eyes of a
  vision model beside them (`mmproj-*.gguf`);
- the Hugging Face cache: `models--ORG--NAME/snapshots/REVISION/FILE.gguf`, a link to a blob. People
  call it `ORG/NAME`, and llama.cpp `ORG/NAME:QUANT`;
- LM Studio: `ORG/NAME/FILE.gguf` below its models folder, called `ORG/NAME` too;
- Ollama: a manifest `manifests/HOST/NAMESPACE/NAME/TAG`, JSON whose layers are files
  `blobs/sha256-HEX`; called `NAME:TAG`, with `NAMESPACE/` before it where that is not `library`.

A digest that is not exactly a digest is refused: a manifest must not name files outside its store.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path, PurePath
from typing import Any

from protocol.frozen import frozen

SUFFIX = ".gguf"
SHARD = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})$")
DIGEST = re.compile(r"^sha256:([0-9a-f]{64})$")
HUB_FOLDER = re.compile(r"^models--(?P<org>[^-].*?)--(?P<name>.+)$")

OLLAMA_MODEL = "application/vnd.ollama.image.model"
OLLAMA_PROJECTOR = "application/vnd.ollama.image.projector"
OLLAMA_OWN = "library"
OLLAMA_LATEST = ":latest"

PROJECTOR = re.compile(r"(^|[-._])mmproj([-._]|$)", re.IGNORECASE)


@frozen
class Found:
    """A model in some store: its file (the first of a split one), and what it is called there."""

    path: Path
    parts: tuple[Path, ...]
    """All files, the first included; in order."""
    stem: str
    """The file's name without its ending and part number; for Ollama, the name it goes by."""
    names: tuple[str, ...] = ()
    """Other names that its store has for it."""
    has_eyes: bool = False
    """A projector for pictures lies beside it."""
    is_named: bool = field(default=False)
    """`stem` is already a name that people use, not the name of a file."""


def gguf_models(files: Iterable[Path]) -> list[Found]:
    """The models among the files of any folders. Split models with a part missing are left out."""
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in sorted(files):
        if file.suffix.lower() == SUFFIX:
            folders[file.parent].append(file)
    return [found for folder in folders.values() for found in _in_folder(folder)]


def _in_folder(files: list[Path]) -> list[Found]:
    has_eyes = any(PROJECTOR.search(file.stem) for file in files)
    whole: list[Found] = []
    split: defaultdict[tuple[str, int], list[Path]] = defaultdict(list)
    for file in files:
        if PROJECTOR.search(file.stem):
            continue
        shard = SHARD.match(file.stem)
        if shard:
            split[shard["stem"], int(shard["parts"])].append(file)
        else:
            whole.append(Found(file, (file,), file.stem, has_eyes=has_eyes))
    for (stem, count), parts in split.items():
        if len(parts) == count:
            whole.append(Found(parts[0], tuple(parts), stem, has_eyes=has_eyes))
    return whole


def hub_name(path: PurePath) -> str | None:
    """`ORG/NAME` of a file in the Hugging Face cache; None elsewhere."""
    for folder in path.parts:
        named = HUB_FOLDER.match(folder)
        if named:
            return f"{named['org']}/{named['name']}"
    return None


def lmstudio_name(root: PurePath, path: PurePath) -> str | None:
    """`ORG/NAME` of a file in LM Studio's folder `root`; None when it lies otherwise."""
    parts = path.relative_to(root).parts
    return f"{parts[0]}/{parts[1]}" if len(parts) >= 3 else None


def ollama_name(manifest: PurePath) -> str | None:
    """What Ollama calls the model of a manifest, by its path below `manifests`."""
    if len(manifest.parts) != 4:
        return None
    _, namespace, name, tag = manifest.parts
    owner = "" if namespace == OLLAMA_OWN else f"{namespace}/"
    return f"{owner}{name}:{tag}"


def ollama_model(root: Path, manifest: PurePath, text: str) -> Found | None:
    """The model of a manifest's text; None where it has none, or is not a manifest."""
    name, layers = ollama_name(manifest), _layers(text)
    model = layers.get(OLLAMA_MODEL)
    if name is None or model is None:
        return None
    short = name.removesuffix(OLLAMA_LATEST)
    return Found(
        path=root / "blobs" / model,
        parts=(root / "blobs" / model,),
        stem=short,
        names=(name,) if short != name else (),
        has_eyes=OLLAMA_PROJECTOR in layers,
        is_named=True,
    )


def _layers(text: str) -> Mapping[str, str]:
    """Blob file by media type; the first of each."""
    try:
        decoded: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    listed = decoded.get("layers") if isinstance(decoded, dict) else None
    found: dict[str, str] = {}
    for layer in listed if isinstance(listed, list) else ():
        kind = layer.get("mediaType") if isinstance(layer, dict) else None
        digest = DIGEST.match(str(layer.get("digest"))) if isinstance(kind, str) else None
        if digest:
            found.setdefault(str(kind), f"sha256-{digest[1]}")
    return found
