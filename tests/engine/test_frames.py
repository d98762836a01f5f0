"""Claims of meshd.engine.frames."""

from __future__ import annotations

import pytest

from meshd.engine import frames
from meshd.engine.frames import WorkerFacts
from protocol.errors import ProtocolError
from protocol.jobs import Finish, Job, TextDelta


def unframed(frame: bytes):
    """The values of one frame, whose length is checked."""
    (length,) = frames.LENGTH.unpack_from(frame)
    assert length == len(frame) - frames.LENGTH.size
    return frames.read_frame(frame[frames.LENGTH.size :])


def test_a_job_arrives_as_it_was_sent():
    """Nothing is lost between the daemon and the worker."""
    job = Job("r", "chat", "m", messages=({"role": "user", "content": "é"},), stop=("x",))
    kind, key, fields = unframed(frames.job_frame(5, job))
    assert (kind, key) == (frames.JOB, 5)
    assert frames.read_job(fields) == job


def test_the_events_of_all_streams_share_a_frame():
    """One pass, one frame."""
    streams = [(1, [TextDelta("a", (4,))]), (2, [TextDelta("b"), Finish("stop", 1, 2)])]
    kind, listed = unframed(frames.events_frame(streams))
    assert kind == frames.EVENTS_OUT
    assert [(key, list(frames.read_events(each))) for key, each in listed] == streams


def test_facts_arrive_as_they_were_sent():
    """What the worker learnt from the model."""
    facts = WorkerFacts(4096, 4, 1.5, 300.0, 90.0, 64)
    assert frames.read_facts(unframed(frames.ready_frame(facts))) == facts


def test_a_job_that_cannot_be_expressed_is_refused_by_its_sender():
    """A lone surrogate is not text; the worker never sees it."""
    with pytest.raises(ProtocolError):
        frames.job_frame(1, Job("r", "completion", "m", prompt="\ud800"))
