"""A line in the log for each request that did not go smoothly, with its id and no word of it.

What went well is in the metrics and in `/mesh/v1/requests`; a line for each would be most of the
log of a busy node. What failed, what its client left, and what needed more than one node is worth a
line: the id is the one that the client was told (`x-request-id`). A flood of failures is a few
lines a second and a number, so that it cannot fill a disk.
"""

from __future__ import annotations

import logging

from meshd.history import Story
from protocol.jobs import Failure

log = logging.getLogger(__name__)

LINES_PER_S = 10
"""Beyond, they are counted: nobody reads faster."""


class Journal:
    """The log of one node's requests."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0
        self._unsaid = 0

    def ended(self, story: Story) -> None:
        """A request is over. Cheap where there is nothing to say."""
        smooth = story.state == "done" and len(story.attempts) <= 1
        if smooth or story.ended_at is None:
            return
        second = int(story.ended_at)
        if second != self._second:
            self._second, self._lines = second, 0
            if self._unsaid:
                log.warning("and %d more requests like these", self._unsaid)
                self._unsaid = 0
        self._lines += 1
        if self._lines > LINES_PER_S:
            self._unsaid += 1
            return
        self._say(story)

    @staticmethod
    def _say(story: Story) -> None:
        last = story.last
        code = last.code if isinstance(last, Failure) else ""
        nodes = [attempt.node for attempt in story.attempts]
        took_s = round((story.ended_at or story.opened_at) - story.opened_at, 3)
        facts = {
            "request_id": story.request_id,
            "state": story.state,
            "code": code,
            "model": story.asked,
            "nodes": nodes,
            "took_s": took_s,
        }
        level = logging.WARNING if story.state == "failed" else logging.INFO
        log.log(
            level,
            "request %s for %s: %s after %s s by way of %s",
            story.request_id,
            story.asked,
            f"{story.state} ({code})" if code else story.state,
            took_s,
            ", ".join(nodes) or "no node",
            extra={"request": facts},
        )
