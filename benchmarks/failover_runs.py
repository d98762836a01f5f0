"""The runs behind `benchmarks.failover`: real daemons on loopback, struck in the middle of work."""

from __future__ import annotations

import itertools
import json
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.failover_clients import Heard, ask, body
from benchmarks.measure import say
from tests.e2e.daemons import Daemon, wait_until, write_key

SEED = 5
READY_S = 120.0
REAL_MODEL = "smollm2-135m-instruct"
REAL_ENGINE = "llamacpp:bundled,slots=2"
PROMPT_TOKENS_PER_S = 40
"""Of the machines that are struck before their first word: a prompt takes a third of a second."""
TOGETHER = 4
"""Requests under way when a node is struck."""
STOPPED_EVERY = 5
"""Every fifth strike is a SIGSTOP: the node is not gone, it leads nowhere."""


WAIT_MAX = "2s"
"""What the owners of overloaded machines let somebody wait: four answers' time."""


class Household:
    """Serving nodes and entry nodes of one mesh."""

    def __init__(
        self, home: Path, engines: Sequence[str], entries: int = 1, flags: Sequence[str] = ()
    ) -> None:
        """`flags` are the serving nodes'."""
        self.model = REAL_MODEL if REAL_ENGINE in engines else "echo"
        self._home, self._key = home, write_key(home / "mesh.key")
        self.serving: dict[str, Daemon] = {}
        for number, engine in enumerate(engines):
            node = self._daemon(f"serving{number}", "--engine", engine, *flags)
            self.serving[node.name] = node
        self.entries = [self._daemon(f"entry{number}") for number in range(entries)]
        self.entry = self.entries[0]

    def _daemon(self, name: str, *flags: str) -> Daemon:
        known = [word for node in self.serving.values() for word in ("--peer", node.peer)]
        key = ("--no-mdns", "--mesh-key-file", str(self._key))
        return Daemon(self._home, name, *key, *known, *flags).start()

    def wait_whole(self) -> None:
        """Everybody answers, and every entry knows every serving node as warm."""
        for node in (*self.serving.values(), *self.entries):
            node.wait_ready(READY_S)
        for entry in self.entries:
            self.wait_serving(len(self.serving), entry)

    def wait_serving(self, count: int, entry: Daemon | None = None) -> None:
        """So many nodes can be given work."""
        node = entry or self.entry
        wait_until(lambda: len(node.serving(self.model)) >= count, READY_S, f"{count} serve")

    def holder(self, request_id: str) -> str:
        """The node that works on a request now; empty when nobody does."""
        status, story = self.entry.ask("GET", f"/mesh/v1/requests/{request_id}")
        attempts = story["attempts"] if status == 200 else []
        running = [each["node"] for each in attempts if each["outcome"] == "running"]
        return str(running[-1]) if running else ""

    def stop(self) -> None:
        """End everybody."""
        for node in (*self.entries, *self.serving.values()):
            if node.process is not None and node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
            node.stop()


@contextmanager
def household(
    home: Path, engines: Sequence[str], entries: int = 1, flags: Sequence[str] = ()
) -> Iterator[Household]:
    """A mesh that is whole; ended afterwards."""
    home.mkdir()
    made = Household(home, engines, entries, flags)
    try:
        made.wait_whole()
        yield made
    finally:
        made.stop()


def before_first_byte(home: Path, requests: int) -> dict[str, Any]:
    """A node is struck while it reads prompts: what its clients notice of it."""
    engine = f"emulated:model=echo,prompt_tps={PROMPT_TOKENS_PER_S},generation_tps=4000,slots=8"
    chance = random.Random(SEED)
    heard: list[Heard] = []
    added: dict[bool, list[float]] = {False: [], True: []}
    with household(home, [engine] * 4) as house, ThreadPoolExecutor(TOGETHER) as pool:
        calm = [ask(house.entry, _question(f"calm {number}")).first_s for number in range(8)]
        usual_s = statistics.median(calm)
        for number in range(requests // TOGETHER):
            house.wait_serving(2)
            ids = [f"r{number}-{each}" for each in range(TOGETHER)]
            asked = [pool.submit(ask, house.entry, _question(name), name) for name in ids]
            time.sleep(chance.uniform(0.05, usual_s * 0.6))
            held = {name: house.holder(name) for name in ids}
            victim = next((node for node in held.values() if node), "")
            stopped = number % STOPPED_EVERY == 0
            struck_at = _strike(house, victim, stopped=stopped)
            answers = [each.result() for each in asked]
            _recover(house, victim, stopped=stopped)
            heard += answers
            for name, answer in zip(ids, answers, strict=True):
                if not answer.is_good:
                    at = held[name] or "nobody"
                    say(f"    {name} at {at}, {victim} struck: {answer.status} {answer.error}")
                if held[name] == victim and answer.attempts > 1 and answer.at:
                    added[stopped].append(answer.at[0] - struck_at - usual_s)
            if number % 25 == 24:
                say(f"    {len(heard)} requests, {_errors(heard)} errors")
    return {
        "requests": len(heard),
        "errors": _errors(heard),
        "added_ms_refused": percentile_ms(added[False], 0.5),
        "added_ms_refused_p99": percentile_ms(added[False], 0.99),
        "added_ms_blackholed": percentile_ms(added[True], 0.5),
        "added_ms_blackholed_p99": percentile_ms(added[True], 0.99),
        "struck": len(added[False]) + len(added[True]),
    }


def mid_stream(home: Path, streams: int) -> dict[str, Any]:
    """A node is killed in the middle of a greedy answer of the real model."""
    chance = random.Random(SEED)
    identical, gaps = 0, []
    with household(home, [REAL_ENGINE] * 3) as house, ThreadPoolExecutor(1) as pool:
        for number in range(streams):
            asked = body(REAL_MODEL, f"Tell story number {number}.", temperature=0, max_tokens=80)
            house.wait_serving(2)
            whole = ask(house.entry, asked)
            assert whole.is_good, whole.error
            name = f"s{number}"
            broken = pool.submit(ask, house.entry, asked, name)
            time.sleep(whole.first_s + chance.uniform(0.2, 0.7) * (whole.took_s - whole.first_s))
            victim = house.holder(name)
            _strike(house, victim, stopped=False)
            answer = broken.result()
            _recover(house, victim, stopped=False)
            identical += answer.is_good and answer.text == whole.text
            gaps.append(answer.gap_s)
            say(f"    stream {number}: longest pause {answer.gap_s:.2f} s {answer.error}")
    return {"streams": streams, "identical": identical, "gap_s_max": round(max(gaps), 3)}


def leave(home: Path, clients: int) -> dict[str, Any]:
    """Clients that leave in the middle: until the slot at the other node is free."""
    engine = "emulated:model=echo,prompt_tps=20000,generation_tps=20,slots=1,tokens=400"
    took = []
    with household(home, [engine]) as house:
        serving = house.serving["serving0"]
        for number in range(clients):
            left = ask(house.entry, _question(f"leaving {number}"), words=2)
            wait_until(lambda: serving.get("/mesh/v1/requests")["running"] == 0, 10, "it is free")
            took.append(time.monotonic() - left.done_at)
    return {"clients": clients, "slot_free_ms_p99": percentile_ms(took, 0.99)}


def overload(home: Path, seconds: float) -> dict[str, Any]:
    """Twice what the machines can do, for a while: what is still done, and how soon the rest is
    told. Capacity is by the numbers of the emulated machines, whose owners let nobody wait longer
    than WAIT_MAX: by themselves nodes would let all of them wait."""
    engine = "emulated:model=echo,prompt_tps=20000,generation_tps=40,slots=2,tokens=20"
    service_s, slots = 19 / 40, 4
    rate = 2.0 * slots / service_s
    count = int(seconds * rate)
    flags = ("--queue-wait", WAIT_MAX)
    with household(home, [engine] * 2, flags=flags) as house, ThreadPoolExecutor(256) as pool:
        began = time.monotonic()
        asked: list[Future[Heard]] = []
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            asked.append(pool.submit(ask, house.entry, _question(f"load {number}")))
        until = began + seconds
        heard = [each.result() for each in asked]
    window = (began + seconds / 4, until)
    done = sum(each.is_good and window[0] <= each.done_at <= window[1] for each in heard)
    refused = [each.took_s for each in heard if each.status in {429, 503}]
    return {
        "goodput_ratio": round(done / (window[1] - window[0]) * service_s / slots, 3),
        "refusal_ms_p99": percentile_ms(refused, 0.99),
        "refused": len(refused),
        "errors": sum(not each.is_good and each.status not in {429, 503} for each in heard),
    }


def fairness(home: Path, rounds: int) -> dict[str, Any]:
    """One person floods, four ask now and then. A person is who owns the node that is asked."""
    engine = "emulated:model=echo,prompt_tps=20000,generation_tps=100,slots=4,tokens=20"
    with household(home, [engine], entries=5) as house, ThreadPoolExecutor(64) as pool:
        flooder, light = house.entries[0], house.entries[1:]
        alone = _lightly(pool, light, rounds)
        flooding = [True]
        floods = [pool.submit(_flood, flooder, number, flooding) for number in range(40)]
        time.sleep(2.0)
        beside = _lightly(pool, light, rounds)
        flooding.clear()
        flooded = sum(each.result() for each in floods)
    ratio = percentile_ms(beside, 0.99) / max(1.0, percentile_ms(alone, 0.99))
    return {
        "light_p99_ratio": round(ratio, 2),
        "light_ms_p99_alone": percentile_ms(alone, 0.99),
        "light_ms_p99": percentile_ms(beside, 0.99),
        "flooded": flooded,
    }


def _lightly(pool: ThreadPoolExecutor, entries: Sequence[Daemon], rounds: int) -> list[float]:
    """Each asks, reads, rests, `rounds` times."""

    def one(entry: Daemon) -> list[float]:
        took = []
        for number in range(rounds):
            took.append(ask(entry, _question(f"{entry.name} {number}")).took_s)
            time.sleep(0.2)
        return took

    return list(itertools.chain(*pool.map(one, entries)))


def _flood(entry: Daemon, number: int, flooding: Sequence[bool]) -> int:
    answered = 0
    while flooding:
        answered += ask(entry, _question(f"flood {number} {answered}")).is_good
    return answered


def _question(text: str) -> dict[str, Any]:
    """A prompt of about a dozen tokens that no cache knows."""
    return body("echo", f"{text}: where in the world is it?", max_tokens=20)


def _strike(house: Household, victim: str, *, stopped: bool) -> float:
    """Kill or stop a node; when it was done."""
    if victim:
        process = house.serving[victim].process
        assert process is not None
        process.send_signal(signal.SIGSTOP if stopped else signal.SIGKILL)
    return time.monotonic()


def _recover(house: Household, victim: str, *, stopped: bool) -> None:
    if not victim:
        return
    node = house.serving[victim]
    assert node.process is not None
    if stopped:
        node.process.send_signal(signal.SIGCONT)
    else:
        node.process.wait(10)
        node.start()


def _errors(heard: Sequence[Heard]) -> int:
    return sum(not each.is_good for each in heard)


def percentile_ms(samples: Sequence[float], share: float) -> float:
    """The sample (s) below which `share` of them lie, in ms; 0 without samples."""
    if not samples:
        return 0.0
    ordered = sorted(samples)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 1)


PARTS: dict[str, tuple[Callable[[Path, Any], dict[str, Any]], Any, Any]] = {
    "before_first_byte": (before_first_byte, 1_000, 40),
    "mid_stream": (mid_stream, 200, 4),
    "leave": (leave, 200, 20),
    "overload": (overload, 30.0, 10.0),
    "fairness": (fairness, 50, 10),
}
"""Part -> how it is run, how much of it, and how much with `--quick`."""


def printed(result: dict[str, Any]) -> str:
    """The figures for a person."""
    return "\n".join(
        f"{name}: {json.dumps(figures)}" for name, figures in result.items() if name != "machine"
    )
