"""The tool calls of one answer, in the order in which every dialect can tell them.

A call is told from its name on, and one after the other: the events of Messages and Responses have
no place for a piece of one call once another has begun. Nearly all servers send them like this, and
their pieces pass as they come. For the others:

- a piece waits for the name of its call;
- a call waits while the one before it is no whole JSON object, but not longer than QUIET_MAX
  pieces: a model may have made no JSON of it, or no arguments at all;
- some servers give all calls one number, or none: there another id begins another call, and where
  there are no ids, so does another name behind whole arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from meshd.engine.openai_failures import WireError
from protocol import limits
from protocol.jobs import ToolCallDelta

CALLS_MAX = 1_024
"""Tool calls of one answer: eight times as many as OpenAI lets a request offer tools."""

QUIET_MAX = 16
"""Pieces of later calls in a row, after which no more of the one before them is expected: a server
that mixes calls gives a piece of each in turn."""

ARGUMENTS_MAX_CHARS = limits.JOB_MAX_BYTES
"""Of all calls of an answer, which are kept until it is over: as much as a request may hold."""

_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Call:
    """One call, as far as it is known."""

    __slots__ = ("call_id", "is_told", "name", "number", "pieces")

    def __init__(self, number: int) -> None:
        self.number = number
        self.call_id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.is_told = False

    @property
    def is_whole(self) -> bool:
        """Its arguments are a JSON object."""
        said = "".join(self.pieces)
        if not said.rstrip().endswith("}"):
            return False
        try:
            _read_object(said)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
        return True


class Calls:
    """Feed pieces as they come, and tell what is to be told."""

    __slots__ = ("_by_given", "_next", "_quiet", "_size", "_told", "_waiting")

    def __init__(self) -> None:
        self._by_given: dict[int, _Call] = {}
        """The last call under each number that the server gives."""
        self._next = 0
        self._told: _Call | None = None
        """The one that is being told."""
        self._waiting: list[_Call] = []
        self._quiet = 0
        self._size = 0

    def take(self, given: int, call_id: str, name: str, arguments: str) -> Sequence[ToolCallDelta]:
        """What there is to tell after one more piece of the call that the server numbers `given`.
        Raises WireError: too much, or too many."""
        call = self._by_given.get(given)
        if call is None or ((call_id or name) and _is_another(call, call_id, name, arguments)):
            call = self._begin(given)
        call.call_id = call.call_id or call_id
        call.name = call.name or name
        if arguments:
            call.pieces.append(arguments)
        self._size += len(arguments)
        if self._size > ARGUMENTS_MAX_CHARS:
            raise WireError(f"its tool calls are longer than {ARGUMENTS_MAX_CHARS} characters")
        if not call.is_told:
            self._quiet += 1
            return self._go_on()
        self._quiet = 0
        told = (ToolCallDelta(call.number, "", "", arguments),)
        return (*told, *self._go_on()) if self._waiting else told

    def rest(self) -> Sequence[ToolCallDelta]:
        """What still waits when the answer is over."""
        waiting, self._waiting = self._waiting, []
        return [self._tell(call) for call in waiting]

    def _go_on(self) -> Sequence[ToolCallDelta]:
        """What need not wait any more."""
        told = []
        while self._waiting:
            call, before = self._waiting[0], self._told
            is_ready = call.name and (before is None or before.is_whole)
            if not is_ready and self._quiet <= QUIET_MAX:
                break
            del self._waiting[0]
            told.append(self._tell(call))
        return told

    def _tell(self, call: _Call) -> ToolCallDelta:
        self._told, self._quiet, call.is_told = call, 0, True
        return ToolCallDelta(call.number, call.call_id, call.name, "".join(call.pieces))

    def _begin(self, given: int) -> _Call:
        """One more call. Raises WireError."""
        number = max(given, self._next)
        if number >= CALLS_MAX:
            raise WireError(f"a tool call has the number {number}; below {CALLS_MAX} are read")
        self._next = number + 1
        call = self._by_given[given] = _Call(number)
        self._waiting.append(call)
        return call


def _is_another(call: _Call, call_id: str, name: str, arguments: str) -> bool:
    """Whether a piece under the number of `call` begins another one."""
    if call_id and call.call_id:
        return call_id != call.call_id
    return bool(name and arguments.strip() and not call_id and call.name and call.is_whole)
