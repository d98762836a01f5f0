"""Python's share of the decode loop: `python -m benchmarks.engine_loop MODEL STREAMS THREADS`.

Runs the worker's own loop in this process, with a line that counts instead of a socket, and adds up
the time spent inside llama.cpp (the pass, and the sampling that reads its output). What is left of
the wall time is Python, pipes and all. Prints the share as a number.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from meshd.engine import frames
from meshd.engine.line import Line
from meshd.engine.llamacpp import LlamaModel
from meshd.engine.worker import Worker
from protocol.jobs import Job, Sampling

TOKENS = 200
WARMUP_PASSES = 20
"""Until all prompts are read."""

FOREIGN = ("llama_decode", "llama_sampler_sample")


class _Stop(Exception):
    pass


class CountingLine(Line):
    """Takes frames, and ends the run when enough have come."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.sent = 0
        self.began = 0.0
        self.foreign_s = 0.0

    def send(self, frame: bytes) -> None:
        self.sent += 1
        if self.sent == WARMUP_PASSES:
            self.began, self.foreign_s = time.perf_counter(), 0.0
        if self.sent == TOKENS - WARMUP_PASSES:
            raise _Stop

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, with its time added up."""

        def inside(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = call(*arguments)
            self.foreign_s += time.perf_counter() - began
            return result

        return inside


def share(path: Path, streams: int, threads: int) -> float:
    """Python's part of the wall time of generation."""
    line = CountingLine()
    for name in FOREIGN:
        setattr(llama, name, line.timed(getattr(llama, name)))
    model = LlamaModel(path, context=512, slots=streams, threads=threads)
    for key in range(streams):
        job = Job(
            "r",
            "completion",
            "m",
            prompt=f"Story number {key}: once upon a time",
            max_tokens=TOKENS,
            sampling=Sampling(temperature=0.0),
            extras={"ignore_eos": True},
        )
        frame = frames.job_frame(key, job)
        line.received.put(frames.read_frame(frame[frames.LENGTH.size :]))
    with suppress(_Stop):
        Worker(line, model, streams, 512).run_for_ever()
    return 1.0 - line.foreign_s / (time.perf_counter() - line.began)


if __name__ == "__main__":
    print(round(share(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), 4))
