"""Names that are not a model's own: words for a kind of model, and other people's spellings.

**Words.** `auto`, the tiers and the personas name no model; they ask for one by what it can do and
how large it is, until the mesh judges by quality. The choice is the same on every node that knows
the same models, and never between what a request needs and what is left: a picture asks only for
models that see, a long text those that have room for it, and a model whose nodes take no work now
(drained, short of memory) is passed over while another takes some. Vectors are asked of models that
make nothing else, where there are any, and of no other because one is away: those of two models
cannot be compared. Weights stand for ability: among models of today, twice the size is seldom
worse.

    auto                  the largest that is warm somewhere, else the largest
    fast, micro-logic     the smallest (also: basic)
    cruncher              the one in the middle (also: balanced)
    fat-brain             the largest (also: premium)
    media-lab             the largest that sees

A word is taken before a model of that name: who asks for `fast` gets the same everywhere. Emulated
models are chosen only where there are no others.

**Spellings.** Clients write `provider/name` where the mesh has `name`, `name:tag` where it has the
name and the tag is its quantisation, and leave out a provider or a tag that the mesh has. Each is
taken only when exactly one model can be meant. Nothing else is guessed, and the answer says in its
`model` who really spoke.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from protocol.frozen import frozen

BYTES_PER_WEIGHT = 0.6
"""For models whose size is not known: about 4.8 bits a weight, the usual quantisation."""

UNITS = {"b": 1e9, "m": 1e6}

_WEIGHTS = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
"""`7b`, `0.5B`, `135M` as a word of its own inside a model's name."""


@frozen
class Known:
    """What is known of one model, over all nodes that offer it."""

    model_id: str
    aliases: tuple[str, ...] = ()
    quantisation: str = ""
    capabilities: frozenset[str] = frozenset({"chat"})
    size_bytes: int = 0
    """Of its weights, 0 when unknown."""
    warm: bool = False
    emulated: bool = False
    is_open: bool = True
    """Some node that offers it takes work now."""
    context_length: int = 0
    """The longest on such a node, tokens; 0 when unknown."""


Pick = Callable[[Sequence[Known]], Known]
"""Of models ordered by size, the smallest first; never empty."""


def _largest_warm(models: Sequence[Known]) -> Known:
    return next((model for model in reversed(models) if model.warm), models[-1])


def _largest(models: Sequence[Known]) -> Known:
    return models[-1]


def _middle(models: Sequence[Known]) -> Known:
    return models[len(models) // 2]


def _smallest(models: Sequence[Known]) -> Known:
    return models[0]


WORDS: Mapping[str, Pick] = {
    "auto": _largest_warm,
    "fast": _smallest,
    "basic": _smallest,
    "micro-logic": _smallest,
    "balanced": _middle,
    "cruncher": _middle,
    "premium": _largest,
    "fat-brain": _largest,
    "media-lab": _largest,
}
"""Every reserved name."""

ALSO_NEEDED: Mapping[str, frozenset[str]] = {"media-lab": frozenset({"vision"})}
"""What a word asks for beyond the request."""

VECTORS = frozenset({"embedding"})


def choose(
    word: str, models: Iterable[Known], needed: frozenset[str], prompt_tokens: int = 0
) -> str | None:
    """The model that a reserved word stands for, for a request that needs these capabilities and
    has a prompt of about so many tokens.

    Where no model has them, the word is answered without regard to them: the router then says what
    is missing, which helps more than "unknown model". None where there are no models at all.
    """
    everything = sorted(models, key=_by_size)
    able = [model for model in everything if needed <= model.capabilities]
    wanted = ALSO_NEEDED.get(word)
    if wanted is not None:
        able = [model for model in able if wanted <= model.capabilities] or able
    able = [model for model in able if not model.emulated] or able or everything
    if needed == VECTORS:
        able = [model for model in able if model.capabilities == VECTORS] or able
    else:
        able = [model for model in able if _has_room(model, prompt_tokens)] or able
        able = [model for model in able if model.is_open] or able
    return WORDS[word](able).model_id if able else None


def spelt(name: str, models: Iterable[Known]) -> str | None:
    """The one model that another spelling of its name can mean, None where it is not one."""
    wanted = name.casefold()
    bare = wanted.rpartition("/")[2]
    stem, _, tag = bare.partition(":")
    meant = set()
    for model in models:
        for own in (model.model_id, *model.aliases):
            if _is_meant(own.casefold(), wanted, stem, tag, model.quantisation.casefold()):
                meant.add(model.model_id)
    return meant.pop() if len(meant) == 1 else None


def _is_meant(own: str, wanted: str, stem: str, tag: str, quantisation: str) -> bool:
    """Both names without what one of them leaves out; two different providers never meet."""
    provider, own_provider = wanted.rpartition("/")[0], own.rpartition("/")[0]
    if provider and own_provider and not f"/{provider}".endswith(f"/{own_provider}"):
        return False
    own_stem, _, own_tag = own.rpartition("/")[2].partition(":")
    if not stem or own_stem != stem:
        return False
    if tag in ("", "latest", own_tag):
        return True
    return not own_tag and tag == quantisation


def size_of(model: Known) -> float:
    """Bytes of its weights: known, or from the number of weights in its name, or 0."""
    if model.size_bytes:
        return float(model.size_bytes)
    found = _WEIGHTS.search(model.model_id)
    return float(found[1]) * UNITS[found[2].lower()] * BYTES_PER_WEIGHT if found else 0.0


def _has_room(model: Known, prompt_tokens: int) -> bool:
    return not model.context_length or prompt_tokens < model.context_length


def _by_size(model: Known) -> tuple[float, str]:
    return size_of(model), model.model_id
