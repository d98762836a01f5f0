"""Tokens in, text out: what may be shown of an answer, and when it must stop.

A model emits bytes, a token at a time. A character may straddle tokens, and so may a stop string.
So bytes wait here until it is certain that they will be shown:

- the tail of an unfinished UTF-8 character waits for its rest;
- a tail that could be the beginning of a stop string waits until it turns out not to be;
- text leaves only in whole tokens, so that the ids beside it say exactly the same as the text, and
  another machine can carry on from those ids without repeating or losing a letter.

So at every moment the texts that were shown are together what the ids that were shown stand for.
Only the last piece of all may hold more text than its ids say, where a stop string begins inside a
token.

An answer that another machine began goes on as if it had begun here: of what was said before, a
token with the beginning of a character (which was not shown) leaves with the rest of it, and a stop
string that begins there and ends here ends the answer.

Stop strings are compared as bytes, which in UTF-8 is the same as comparing characters. A stop
string found anywhere ends the answer, and neither it nor what follows is shown. An unfinished
character left at the very end is dropped: half a character is not text.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.frozen import frozen


@frozen
class Piece:
    """Text that may be shown now, and the tokens it came from."""

    text: str
    token_ids: tuple[int, ...]


class Assembler:
    """The text of one answer, token by token. `stopped` turns true at a stop string, and `stop`
    says which."""

    def __init__(self, stop: Sequence[str], said: Sequence[bytes] = ()) -> None:
        """`said` are the tokens that the answer begins with, where another machine made it."""
        self._stops = [text.encode() for text in stop if text]
        text = b"".join(said)
        shown = _shown_length(said, text)
        self._held = bytearray(text[shown:])
        longest = max(map(len, self._stops), default=1)
        self._before = text[max(0, shown + 1 - longest) : shown]
        """The end of what was shown elsewhere, in which a stop string may begin; once anything was
        shown here, nothing that was shown can be the beginning of one."""
        self._ends: list[tuple[int, int]] = []
        self.stopped = False
        self.stop = ""

    def push(self, token_id: int, piece: bytes) -> Piece | None:
        """One more token; what may be shown of the text so far that was not shown before."""
        held = self._held
        searched = len(held)
        held += piece
        self._ends.append((token_id, len(held)))
        if self._stops:
            found = self._find_stop(searched)
            if found is not None:
                at, stop = found
                self.stopped, self.stop = True, stop.decode()
                return self._take(max(0, at), whole_tokens=False)
        safe = len(held) - max(self._stop_tail(), unfinished_tail(held))
        return self._take(max(0, safe), whole_tokens=True)

    def finish(self) -> Piece | None:
        """The answer has ended without a stop string: what was held back, if it is text."""
        return self._take(len(self._held) - unfinished_tail(self._held), whole_tokens=False)

    def _find_stop(self, searched: int) -> tuple[int, bytes] | None:
        """Where the first stop string begins, below 0 in what was shown elsewhere, and which it is;
        None when none ends after the first `searched` bytes held."""
        before = len(self._before)
        text = self._before + self._held
        found = [
            (at - before, stop)
            for stop in self._stops
            if (at := text.find(stop, max(0, before + searched - len(stop) + 1))) >= 0
        ]
        return min(found, default=None)

    def _stop_tail(self) -> int:
        """Length of the longest tail that is a beginning of a stop string."""
        if not self._stops:
            return 0
        text = self._before + self._held
        return max(overlap(text, stop) for stop in self._stops)

    def _take(self, end: int, *, whole_tokens: bool) -> Piece | None:
        ends = self._ends
        count = 0
        while count < len(ends) and ends[count][1] <= end:
            count += 1
        if whole_tokens:
            # Back to a token that ends between two characters.
            while count and _is_inside_character(self._held, ends[count - 1][1]):
                count -= 1
            end = ends[count - 1][1] if count else 0
        if not end:
            return None
        piece = Piece(
            self._held[:end].decode("utf-8", "replace"), tuple(token for token, _ in ends[:count])
        )
        del self._held[:end]
        self._before = b""
        self._ends = [(token, at - end) for token, at in ends[count:]]
        return piece


def _shown_length(said: Sequence[bytes], text: bytes) -> int:
    """How much of an answer that begins with these tokens was shown: it leaves in whole tokens."""
    at = len(text)
    if unfinished_tail(text):
        for piece in reversed(said):
            at -= len(piece)
            if piece and not _is_inside_character(text, at):
                break
    return at


def unfinished_tail(text: bytes | bytearray) -> int:
    """How many bytes at the end begin a UTF-8 character without finishing it: 0 to 3."""
    for back in range(1, min(3, len(text)) + 1):
        byte = text[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < length else 0
        if byte < 0x80:
            return 0
    return 0


def _is_inside_character(text: bytes | bytearray, at: int) -> bool:
    return at < len(text) and 0x80 <= text[at] < 0xC0


def overlap(text: bytes | bytearray | str, mark: bytes | str) -> int:
    """Length of the longest tail of `text` that begins `mark` without being all of it."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if text[-length:] == mark[:length]:
            return length
    return 0
