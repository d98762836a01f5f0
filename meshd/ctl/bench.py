"""`meshctl bench`: how fast this mesh answers, model by model, asked as a client asks.

Each model gets one question to wake it, which is not counted, then `--requests` at a time of
`--concurrency`. Every answer is streamed, so what is measured is what a person waits for: the first
word, and the words a second after it. Figures are medians, and the answers' own count of tokens.
The prompts differ in their first words, so no cache answers for the machine.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from queue import SimpleQueue
from statistics import median
from threading import Thread
from time import monotonic
from typing import TypeVar

from meshd.ctl import exits
from meshd.ctl.chat import ANSWER_TIMEOUT_S, Said, Talk
from meshd.ctl.client import Node
from meshd.ctl.console import Body, node_of, progress, shaped, show
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import Cell, Column, Screen, harmless, table
from meshd.ctl.words import UNKNOWN, rate_words, seconds_words
from protocol.frozen import frozen

T = TypeVar("T")

REQUESTS = 4
"""Per model, where nobody says: enough for a median, a minute for a Pi."""

REQUESTS_MAX = 1_000
"""Per model: an hour of a household's machines."""

CONCURRENCY_MAX = 64
"""At a time: a thread each, and more than any home machine has slots."""

QUESTION = (
    "Question {number}. In about a hundred words, explain to a child why the sky is blue by day "
    "and red in the evening, and say what would be different on a planet without air."
)
"""A hundred words: long enough for a rate, short enough for a Pi."""

COLUMNS = (
    Column("MODEL"),
    Column("ANSWERED BY"),
    Column("FIRST WORD", right=True),
    Column("TOK/S EACH", right=True),
    Column("TOK/S ALL", spare=1, right=True),
    Column("FAILED", spare=2, right=True),
)


@frozen
class Figures:
    """What was measured of one model."""

    model: str
    nodes: tuple[str, ...]
    first_word_s: float | None
    """Median time from the question to the first word."""
    tokens_per_s: float | None
    """Median over the answers, each by itself."""
    all_tokens_per_s: float | None
    """Of all answers together, from the first question to the last word."""
    failed: int
    emulated: bool


def bench(args: Namespace) -> int:
    """FAILURE when a model answers nothing at all."""
    node = node_of(args, ANSWER_TIMEOUT_S)
    models = _models(node, args)
    requests = min(args.requests or REQUESTS, REQUESTS_MAX)
    together = min(args.concurrency, CONCURRENCY_MAX, requests)
    found = []
    for index, (model, emulated) in enumerate(models, 1):
        which = f"[{index}/{len(models)}] {harmless(model)}"
        progress(f"{which}: waking it ...")
        _ask(node, model, 0)
        progress(f"{which}: {requests} questions, {together} at a time ...")
        found.append(measure(node, model, requests, together, emulated=emulated))
    body = {"requests": requests, "concurrency": together, "models": [_row(f) for f in found]}
    show(args, body, _lines)
    return exits.FAILURE if any(f.first_word_s is None for f in found) else exits.OK


def measure(node: Node, model: str, requests: int, together: int, *, emulated: bool) -> Figures:
    """Ask, and take the medians."""
    began = monotonic()
    answers = _in_turn(requests, together, lambda number: _ask(node, model, number))
    took_s = monotonic() - began
    good = [said for said in answers if said is not None and said.text]
    rates = [(said.tokens - 1) / (said.took_s - said.began_s) for said in good
             if said.tokens > 1 and said.took_s > said.began_s]  # fmt: skip
    return Figures(
        model=model,
        nodes=tuple(sorted({said.node for said in good})),
        first_word_s=median(said.began_s for said in good) if good else None,
        tokens_per_s=median(rates) if rates else None,
        all_tokens_per_s=sum(said.tokens for said in good) / took_s if good else None,
        failed=len(answers) - len(good),
        emulated=emulated,
    )


def _in_turn(count: int, together: int, ask: Callable[[int], T]) -> list[T]:
    """What `ask` says to 1, 2 ... `count`, `together` at a time. Its threads keep nobody who stops
    it: an executor's would finish their answers first, which takes a thinking model minutes."""
    numbers, ended = iter(range(1, count + 1)), SimpleQueue[Future[T]]()

    def work() -> None:
        for number in numbers:
            future = Future[T]()
            try:
                future.set_result(ask(number))
            except Exception as error:  # noqa: BLE001 - raised where the answers are collected
                future.set_exception(error)
            ended.put(future)

    for _ in range(together):
        Thread(target=work, daemon=True).start()
    return [ended.get().result() for _ in range(count)]


def _ask(node: Node, model: str, number: int) -> Said | None:
    """One answer, None when there was none."""
    talk = Talk(node, model)
    try:
        for _ in talk.ask(QUESTION.format(number=number)):
            pass
    except Trouble as trouble:
        progress(f"  {harmless(str(trouble))}")
        return None
    return talk.last


def _models(node: Node, args: Namespace) -> Sequence[tuple[str, bool]]:
    """The models to measure, and whether each is emulated. Raises Trouble where there is none."""

    def pick(body: Body) -> list[tuple[str, bool]]:
        rows = [row for row in body["data"] if "chat" in row.get("capabilities", ["chat"])]
        return [(row["id"], bool(row.get("emulated"))) for row in rows]

    found = shaped(pick, node.get("/v1/models"))
    if args.model:
        return [next((each for each in found if each[0] == args.model), (args.model, False))]
    if not found:
        raise Trouble(exits.FAILURE, "no node of this mesh offers a model that can chat")
    return found


def _row(figures: Figures) -> Body:
    return asdict(figures)


def _lines(body: Body, screen: Screen) -> list[str]:
    rows = [
        (
            Cell(row["model"] + (" (emulated)" if row["emulated"] else ""), "bold"),
            Cell(", ".join(row["nodes"]) or UNKNOWN),
            Cell(seconds_words(row["first_word_s"])),
            Cell(rate_words(row["tokens_per_s"])),
            Cell(rate_words(row["all_tokens_per_s"])),
            Cell(str(row["failed"]), "bad" if row["failed"] else ""),
        )
        for row in body["models"]
    ]
    return table(COLUMNS, rows, screen)
