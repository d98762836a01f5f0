"""Does anybody notice machines that fail at random? `python -m benchmarks.chaos [--json]`

Five real daemons in network namespaces, found by mDNS: two that people ask, three that answer
(emulated). Clients of every dialect ask all the time, while one fault after the other befalls those
that answer. Each answer is held against the one that was given in peace. How: METHODOLOGY.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.chaos_clients import QUESTIONS
from benchmarks.chaos_faults import FAULTS, LEAST_S, STARTS, House, Mend
from benchmarks.machine import describe
from benchmarks.measure import MeasureError, say
from tests.netns.fleet import Fleet
from tests.netns.networks import UNAVAILABLE, Host, Lan

SUBNET = 7
ASKERS, SERVERS = ("n1", "n2"), ("n3", "n4", "n5")
CLIENTS = 6
"""At each of the askers: twelve people on twelve slots, so there is no queue while all are well."""

ENGINE = "emulated:name={name},model=toy,prompt_tps=3000,generation_tps=60,slots=4,ctx=8192"

FAULT_S = (0.5, 8.0)
"""How long a fault lasts: less than anybody notices, to longer than anything is waited for."""

WELL_S = 4.0
START_S = 3.0
"""After a fault a machine is left alone for so long, and longer after a start: with two faults at
once the third machine has always been well for four seconds."""

LOOK_S = 0.25
LAST_FAULT_S = 12.0
"""Before the end: what is under way then ends in peace."""

SETTLE_S = 4.0
WHOLE_LIMIT_S = 40.0

CALL_BROKEN = "broke off inside a tool call"
"""A stream that nobody could go on with: the call did not come out the same again."""


class Weather:
    """Begins and ends faults. `fault_counts` says how often each came."""

    def __init__(self, house: House, at_once: int, kinds: Sequence[str]) -> None:
        self._house = house
        self._at_once = at_once
        self._kinds = kinds
        self._mends: dict[str, tuple[float, str, Mend]] = {}
        self._well_at: dict[str, float] = {}
        self.fault_counts = Counter[str]()

    def turn(self, now: float) -> None:
        """End what is over, and perhaps begin something."""
        for name, (until, kind, mend) in list(self._mends.items()):
            if now >= until:
                mend()
                del self._mends[name]
                self._well_at[name] = now + WELL_S + (START_S if kind in STARTS else 0.0)
        ill = {*self._mends, *(name for name, at in self._well_at.items() if now < at)}
        chance = self._house.chance
        if len(ill) < self._at_once and chance.random() < 0.5:
            name = chance.choice([each for each in SERVERS if each not in ill])
            kind = chance.choice(self._kinds)
            lasts_s = max(LEAST_S.get(kind, 0.0), chance.uniform(*FAULT_S))
            say(f"{name} is {kind} for {lasts_s:.1f} s")
            self.fault_counts[kind] += 1
            self._mends[name] = (now + lasts_s, kind, FAULTS[kind](self._house, name))

    def clear(self) -> None:
        """Everybody is well again."""
        for _, _, mend in self._mends.values():
            mend()
        self._mends.clear()


class Crowd:
    """The clients at one node, in its namespace, and what they got."""

    def __init__(self, host: Host, seed: int, seconds: float) -> None:
        words = (str(seed), str(CLIENTS), str(seconds))
        self._process = subprocess.Popen(
            [
                *("ip", "netns", "exec", host.netns),
                *(sys.executable, "-m", "benchmarks.chaos_clients", *words),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.heard: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.heard.append(json.loads(line))

    def wait(self) -> list[dict[str, Any]]:
        """All answers. Raises MeasureError when the clients failed."""
        self._reader.join()
        if self._process.wait():
            raise MeasureError("the clients failed")
        return self.heard


def run(seconds: float, seed: int, at_once: int, kinds: Sequence[str]) -> dict[str, Any]:
    """The whole of it. Raises MeasureError, and AssertionError where no network can be made."""
    own = {name: ("--engine", ENGINE.format(name=name)) for name in SERVERS}
    with (
        tempfile.TemporaryDirectory(prefix="meshd-chaos-") as home,
        Lan("c", len(ASKERS) + len(SERVERS), subnet=SUBNET) as lan,
        Fleet(Path(home), lan, own=own) as fleet,
    ):
        say(f"asking {QUESTIONS} questions in peace")
        peace = Crowd(fleet.host(ASKERS[0]), seed, 0.0).wait()
        expected = {each["number"]: each["said"] for each in peace if not each["error"]}
        if len(expected) < QUESTIONS:
            raise MeasureError(f"in peace: {[each['error'] for each in peace if each['error']]}")
        weather = Weather(House(fleet, ASKERS, Random(seed)), at_once, kinds)
        crowds = [Crowd(fleet.host(name), seed + index, seconds) for index, name in
                  enumerate(ASKERS)]  # fmt: skip
        until = time.monotonic() + seconds - LAST_FAULT_S
        while time.monotonic() < until:
            weather.turn(time.monotonic())
            time.sleep(LOOK_S)
        weather.clear()
        heard = [each for crowd in crowds for each in crowd.wait()]
        whole_s = fleet.wait_whole(WHOLE_LIMIT_S)
        time.sleep(SETTLE_S)
        busy = sum(model["in_flight"] + model["queued"] for model in _models(fleet))
    for each in heard:
        each["wrong"] = not each["error"] and each["said"] != expected[each["number"]]
        if each["error"] or each["wrong"]:
            say(f"{each['form']}: {each['error'] or 'another answer'}")
    return {**summary(heard), "faults": dict(weather.fault_counts), "left_busy": busy} | {
        "whole_s": round(whole_s, 2),
        "settings": {"seconds": seconds, "seed": seed, "at_once": at_once},
        "machine": {**describe({}), "network": "namespaces on one bridge"},
    }


def _models(fleet: Fleet) -> list[Mapping[str, Any]]:
    members = fleet.nodes[ASKERS[0]].get("/mesh/v1/members")["members"]
    return [model for row in members for model in (row["load"] or {}).get("models", ())]


def summary(heard: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of all answers."""
    if not heard:
        raise MeasureError("nobody was answered")
    failed = [each for each in heard if each["error"]]
    broken = sum(CALL_BROKEN in each["error"] for each in failed)
    took = sorted(each["took_s"] for each in heard)
    pauses = sorted(each["pause_s"] for each in heard)
    late = int(len(heard) * 0.99)
    return {
        "requests": len(heard),
        "errors": len(failed) - broken,
        "broken_tool_calls": broken,
        "other_words": sum(each["wrong"] for each in heard),
        "tried_again": sum(each["attempts"] > 1 for each in heard),
        "took_s": {"p50": round(took[len(took) // 2], 2), "p99": round(took[late], 2)},
        "pause_s": {"p99": round(pauses[late], 2), "max": round(pauses[-1], 2)},
    }


def main() -> int:
    """0, 1 when it could not be measured, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--seconds", type=float, default=240.0, help="how long people ask")
    parser.add_argument("--seed", type=int, default=1, help="which faults, and which questions")
    parser.add_argument(
        "--at-once", type=int, choices=(1, 2), default=2, help="machines in trouble"
    )
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    args = parser.parse_args()
    if UNAVAILABLE:
        say(f"cannot be measured here: {UNAVAILABLE}")
        return 1
    try:
        result = run(args.seconds, args.seed, args.at_once, args.only)
    except (MeasureError, AssertionError) as error:
        say(f"not measured: {error}")
        return 1
    text = json.dumps(result) if args.json else json.dumps(result, indent=1)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
