"""What an emulated machine says: short sentences that say that it is emulated.

The words follow from the model, the prompt and the seed, and from nothing else: two emulated
machines give the same answer to the same question, so one can carry on where the other stopped.
One word is one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from protocol.jobs import Job

OPENING = "This answer is emulated — no model was run, only numbers."
SUBJECTS = ("A careful node", "The router", "Each machine", "A quiet peer", "The next token")
VERBS = ("weighs", "carries", "remembers", "measures", "returns", "follows")
OBJECTS = ("the question", "its own queue", "a warm cache", "the shortest path", "what it was told")
ENDINGS = ("in time.", "without hurry.", "again.", "before the others.", "as expected.")

TOKENS_LEAST, TOKENS_MOST = 24, 96
"""Length of an answer that nobody bounded, in tokens: a paragraph."""

BYTES_PER_TOKEN = 3.6
"""English text in a common vocabulary; the estimate for prompts that nobody tokenises."""


def prompt_text(job: Job) -> str:
    """The words of the question, in order."""
    if job.kind == "chat":
        return "\n".join(_words(message) for message in job.messages)
    return job.prompt or "\n".join(map(str, job.inputs))


def has_pictures(job: Job) -> bool:
    """Does a message hold anything but text?"""
    contents = (message.get("content") for message in job.messages if isinstance(message, dict))
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return any(isinstance(part, dict) and not isinstance(part.get("text"), str) for part in parts)


def prompt_tokens(job: Job) -> int:
    """An estimate of the prompt's length in tokens, at least 1."""
    carried = job.prefix_thought + (job.prefix_text if job.prefix_tokens is None else "")
    size = len(prompt_text(job).encode()) + len(carried.encode())
    counted = len(job.prompt_tokens or ()) + len(job.prefix_tokens or ())
    return max(1, counted + round(size / BYTES_PER_TOKEN))


def words(job: Job) -> Iterator[str]:
    """The answer, a token at a time, without end."""
    seed = job.sampling.seed
    chance = Random(f"{job.model}\n{prompt_text(job)}\n{job.prompt_tokens}\n{seed}")  # noqa: S311
    before = ""
    for word in OPENING.split():
        yield before + word
        before = " "
    while True:
        for part in (SUBJECTS, VERBS, OBJECTS, ENDINGS):
            for word in chance.choice(part).split():
                yield before + word


def natural_length(job: Job) -> int:
    """Tokens after which the answer ends by itself."""
    chance = Random(f"length\n{job.model}\n{prompt_text(job)}\n{job.sampling.seed}")  # noqa: S311
    return chance.randint(TOKENS_LEAST, TOKENS_MOST)


def _words(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return " ".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
