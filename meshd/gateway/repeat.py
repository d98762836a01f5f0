"""A tool call that broke off, made once more by another node.

Half a call is nobody else's to finish: its arguments are one JSON text in the making, and no engine
can be handed its beginning. But the same weights with the same prompt, as long as they are not left
to chance, make the same call again. So the next node makes it from its first letter, and what the
client has of it already is held back; once the new one is longer, the rest of it leaves. Where it
becomes another call, the client, who has half of the first, can only be told.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshd.core.ports import ENDINGS, Batch, Note
from protocol.frozen import frozen
from protocol.jobs import Event, Failure, Queued, TextDelta, ToolCallDelta


@frozen
class Call:
    """As much of a call as a client has been given."""

    name: str
    arguments: str

    def longer(self, delta: ToolCallDelta) -> Call:
        """With one more piece."""
        return Call(self.name + delta.name, self.arguments + delta.arguments)

    def is_beginning_of(self, other: Call) -> bool:
        """Whether the other one may yet come of this."""
        return other.name.startswith(self.name) and other.arguments.startswith(self.arguments)

    def goes_beyond(self, other: Call) -> bool:
        """Whether this is the other one, and more."""
        more = len(self.arguments) > len(other.arguments)
        return more and self.name == other.name and self.arguments.startswith(other.arguments)


NO_CALL = Call("", "")


class Repeat:
    """Compares what comes with what was given, until there is something new."""

    def __init__(self, given: Mapping[int, Call]) -> None:
        """`given` are the calls by their number, in order; only of the last is there more."""
        self._given = dict(given)
        self._again: dict[int, Call] = {}
        self._last = max(self._given)
        self.is_over = False
        """There was something new: nothing need be compared any more."""
        self.is_other = False
        """It has become another answer."""

    def feed(self, batch: Batch) -> Batch:
        """What of a batch the client has not got yet; nothing more where `is_other`."""
        return [event for each in batch if (event := self._new(each)) is not None]

    def _new(self, event: Event | Note) -> Event | Note | None:
        if self.is_over or isinstance(event, Note | Queued | Failure):
            return event
        if self.is_other or (isinstance(event, TextDelta) and not event.text.strip()):
            return None
        if isinstance(event, ToolCallDelta):
            return self._call(event)
        self.is_other = True
        if type(event) in ENDINGS and self._is_whole(self._last):
            self.is_over, self.is_other = True, False
            return event
        return None

    def _call(self, delta: ToolCallDelta) -> ToolCallDelta | None:
        index = delta.index
        now = self._again[index] = self._again.get(index, NO_CALL).longer(delta)
        if not all(self._is_whole(each) for each in self._given if each < index):
            self.is_other = True
        elif index > self._last:
            self.is_over = True
            return delta
        elif index == self._last and now.goes_beyond(self._given[index]):
            self.is_over = True
            return ToolCallDelta(index, "", "", now.arguments[len(self._given[index].arguments) :])
        else:
            self.is_other = not now.is_beginning_of(self._given.get(index, NO_CALL))
        return None

    def _is_whole(self, index: int) -> bool:
        return self._again.get(index) == self._given[index]
