"""A worker in this process, and what its jobs gave."""

from __future__ import annotations

from array import array
from queue import SimpleQueue

from meshd.engine import frames
from meshd.engine.worker import Worker
from protocol.jobs import Failure, Finish, TextDelta, Vector


class Outbox:
    """A line whose other end is this test."""

    def __init__(self):
        self.received = SimpleQueue()
        self.busy_since = 0.0
        self.events = {}

    def send(self, frame):
        """Keeps what the daemon would get."""
        _, streams = frames.read_frame(frame[frames.LENGTH.size :])
        for key, listed in streams:
            self.events.setdefault(key, []).extend(frames.read_events(listed))


class Bench:
    """A worker that runs until all its jobs are done."""

    def __init__(self, model):
        self.line = Outbox()
        self.worker = Worker(self.line, model, 2, 64)
        self.key = 0

    def submit(self, job):
        """Hand in a job; its key."""
        self.key += 1
        frame = frames.job_frame(self.key, job)
        self.line.received.put(frames.read_frame(frame[frames.LENGTH.size :]))
        return self.key

    def finish(self, *keys):
        """Every event of these jobs."""
        while any(not is_over(self.line.events.get(key)) for key in keys):
            self.worker.step()
        return [self.line.events[key] for key in keys]

    def run(self, job):
        """The events of one job."""
        (events,) = self.finish(self.submit(job))
        return events


def is_over(events):
    """Has the last event of a job come?"""
    return bool(events) and isinstance(events[-1], Finish | Failure)


def text_of(events):
    """The text of an answer."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def parts_of(events):
    """All that an answer says, without the account."""
    assert isinstance(events[-1], Finish)
    return events[:-1]


def vectors(events):
    """The vectors of an embedding job, in order."""
    return [array("f", event.values) for event in events if isinstance(event, Vector)]


def cosine(left, right):
    """Of two vectors of length 1."""
    return sum(a * b for a, b in zip(left, right, strict=True))
