"""An upstream's answer, from bytes as they come to batches of events.

Both readers take what one network read gave, nothing for the end of the body, and the time; each
returns the events that became known, and ends with exactly one Finish or Failure. The bytes may be
cut anywhere.

A stream is whole at `[DONE]`, or at its end if a finish reason came before. Anything else that
stops is a failure: a server that dies in the middle must not look like a short answer, nor one that
says nothing and not even why like an empty one.
"""

from __future__ import annotations

from meshd.engine.failures import failure_of
from meshd.engine.openai_failures import WireError
from meshd.engine.openai_mould import Mould
from meshd.engine.openai_wire import Translation
from meshd.engine.sse import SseError, SseSplitter
from protocol import limits
from protocol.jobs import Event, Finish, Job

DONE = b"[DONE]"

PLAIN_MAX_BYTES = limits.JOB_MAX_BYTES
"""A plain answer: as large as a request may be."""


class AnswerStream:
    """Reads a stream of server-sent events."""

    def __init__(self, job: Job, began: float) -> None:
        """`began` is when the request was sent, on the clock of `take`."""
        self.is_over = False
        self._job = job
        self._began = began
        self._first = 0.0
        self._splitter = SseSplitter()
        self._translation = Translation()
        self._mould = Mould()

    def take(self, received: bytes, now: float) -> list[Event]:
        """What `received` adds; empty bytes are the end of the body."""
        events: list[Event] = []
        try:
            payloads = self._splitter.feed(received) if received else self._splitter.finish()
            translation, mould, at = self._translation, self._mould, 0
            while (at := mould.pour(payloads, at, events)) < len(payloads):
                payload, known = payloads[at], len(events)
                if payload == DONE:
                    return self._end(events, now)
                if payload:  # without data it is no event
                    translation.read(payload, events)
                if translation.has_failed:
                    self.is_over = True
                    return events
                mould.learn(payload, events[known:])
                at += 1
        except (SseError, WireError) as error:
            return self._fail(events, f"the upstream server sent a broken stream: {error}")
        if events and not self._first:
            self._first = now
        if received:
            return events
        if self._translation.is_whole:
            return self._end(events, now)
        return self._fail(events, "the upstream server ended its answer in the middle")

    def _end(self, events: list[Event], now: float) -> list[Event]:
        events += self._translation.rest()
        if not (events or self._first or self._translation.is_whole):
            return self._fail(events, "the upstream server ended its answer without saying a word")
        self.is_over = True
        first = self._first or now
        prompt_s, generation_s, poured = first - self._began, now - first, self._mould.poured_chars
        return [*events, self._translation.finish(self._job, prompt_s, generation_s, poured)]

    def _fail(self, events: list[Event], message: str) -> list[Event]:
        self.is_over = True
        return [*events, failure_of("engine_failed", message, elsewhere=True)]


class PlainAnswer:
    """Reads one JSON body."""

    def __init__(self, job: Job, began: float) -> None:
        """`began` is when the request was sent, on the clock of `take`."""
        self.is_over = False
        self._job = job
        self._began = began
        self._body = bytearray()

    def take(self, received: bytes, now: float) -> list[Event]:
        """Nothing until the body is whole, then everything."""
        self._body += received
        if len(self._body) > PLAIN_MAX_BYTES:
            return self._fail(f"the upstream server's answer exceeds {PLAIN_MAX_BYTES} bytes")
        if received:
            return []
        translation, events = Translation(), list[Event]()
        try:
            translation.read(bytes(self._body), events)
        except WireError as error:
            return self._fail(f"the upstream server sent a broken answer: {error}")
        self.is_over = True
        if translation.has_failed:
            return events
        if not translation.is_whole:
            return self._fail("the upstream server's answer has no finish_reason")
        return [*events, *translation.rest(), self._finish(translation, now)]

    def _finish(self, translation: Translation, now: float) -> Finish:
        return translation.finish(self._job, 0.0, now - self._began)

    def _fail(self, message: str) -> list[Event]:
        self.is_over = True
        return [failure_of("engine_failed", message, elsewhere=True)]
