"""What the chunks of one stream have in common: everything but the text.

A server sends a token as a JSON object of 200 to 300 bytes, and the next one as the same object
with another word in it. Once a chunk has been read, the bytes before its text and behind it are a
mould: what lies between them in the next chunk is a JSON string, and only that needs to be read.

Chunks that came together are read together: a burst of them costs a step or two for each word.

A mould is tried before it is used. The chunk with another text in its place must mean just that
text, and nothing else; then any other JSON string there means just that string. What does not fit
is read as a whole, and makes a new mould.
"""

from __future__ import annotations

import msgspec

from meshd.engine.openai_wire import Choice, Chunk, Delta, read_chunk
from protocol.jobs import Event, ReasoningDelta, TextDelta

LESSONS_MAX = 4
"""Chunks in a row that are tried as moulds without one being of use: some servers put the time or
a random word into each."""

BULK = 64
"""Chunks that are read at once: a long read is hardly dearer in several parts, and a part that has
to be read chunk by chunk is short."""

BULK_MIN = 4
"""Fewer are read one by one."""

LAST_CHUNKS = 3
"""Chunks at the end of a stream that hold no word: why it ended, what it counted, `[DONE]`."""

_TRIAL = "\0trial"
_TRIAL_TOKEN = msgspec.json.encode(_TRIAL)
_MEANINGS = (
    (Chunk([Choice(delta=Delta(content=_TRIAL))]), TextDelta),
    (Chunk([Choice(text=_TRIAL)]), TextDelta),
    (Chunk([Choice(delta=Delta(reasoning_content=_TRIAL))]), ReasoningDelta),
    (Chunk([Choice(delta=Delta(reasoning=_TRIAL))]), ReasoningDelta),
)
_read_string = msgspec.json.Decoder(str).decode
_read_strings = msgspec.json.Decoder(list[str]).decode


class Mould:
    """Of one stream. Fits nothing until it has learnt."""

    __slots__ = ("_before", "_behind", "_lessons", "_meaning", "poured_chars")

    def __init__(self) -> None:
        self.poured_chars = 0
        self._before = b""
        self._behind = b""
        self._meaning: type[TextDelta | ReasoningDelta] = TextDelta
        self._lessons = LESSONS_MAX

    def pour(self, payloads: list[bytes], at: int, events: list[Event]) -> int:
        """Adds the events of the payloads from `at` on, up to one that does not fit; where that
        one is."""
        while self._before and at < len(payloads):
            part = payloads[at : at + BULK]
            texts = self._at_once(part) or self._one_by_one(part)
            if texts:
                events.extend(map(self._meaning, filter(None, texts)))
                self.poured_chars += len("".join(texts))
                self._lessons = LESSONS_MAX
                at += len(texts)
            if len(texts) < len(part):
                break
        return at

    def _at_once(self, payloads: list[bytes]) -> list[str]:
        """The texts of all but the last few; none where that cannot be said without looking at
        each.

        Where the texts with their surroundings put back are the payloads again, all fit. Then they
        are read as one list: a line break is allowed between two strings of a list and never inside
        of one, so as many strings as payloads are one of each.
        """
        fitting, least = len(payloads), max(BULK_MIN, len(payloads) - LAST_CHUNKS)
        while fitting >= least and not self._fits(payloads[fitting - 1]):
            fitting -= 1
        if fitting < least:
            return []
        some = payloads[:fitting]
        before, behind = self._before, self._behind
        start, end = len(before), -len(behind)
        tokens = [payload[start:end] for payload in some]
        if before + (behind + before).join(tokens) + behind != b"".join(some):
            return []
        try:
            texts = _read_strings(b"[%b]" % b",\n".join(tokens))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        return texts if len(texts) == fitting else []

    def _one_by_one(self, payloads: list[bytes]) -> list[str]:
        """The texts of the payloads up to one that does not fit."""
        start, end = len(self._before), -len(self._behind)
        texts: list[str] = []
        try:
            for payload in payloads:
                if not self._fits(payload):
                    break
                texts.append(_read_string(payload[start:end]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # it is read as a whole, which says what is wrong with it
        return texts

    def _fits(self, payload: bytes) -> bool:
        return payload.startswith(self._before) and payload.endswith(self._behind)

    def learn(self, payload: bytes, events: list[Event]) -> None:
        """Make a mould of a payload that meant `events`, if it can be one."""
        if len(events) != 1 or not self._lessons:
            return
        event = events[0]
        if not isinstance(event, TextDelta | ReasoningDelta):
            return
        self._lessons -= 1
        token = msgspec.json.encode(event.text)
        before, found, behind = payload.partition(token)
        if not found:
            return
        try:
            chunk = read_chunk(before + _TRIAL_TOKEN + behind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        for meant, meaning in _MEANINGS:
            if chunk == meant:
                self._before, self._behind, self._meaning = before, behind, meaning
                return
