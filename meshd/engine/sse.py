"""Server-sent events, cut out of a byte stream.

Only what a model server sends matters: lines end with LF or CRLF, `data:` lines carry a payload,
an empty line ends an event, everything else (comments, event names, ids, retry) is passed over. A
payload that spans several `data:` lines is joined with LF, and a byte order mark before the first
one is passed over, as the standard says. The standard knows no `error:` line; llama-server wrote
them until autumn 2025, with `[DONE]` behind, which must not make an answer of what came before.

The bytes may be cut anywhere; the payloads are the same.
"""

from __future__ import annotations

EVENT_MAX_BYTES = 4 * 1024 * 1024
"""One event. A chunk of a chat answer is about 300 bytes; a whole tool call may come in one."""

FIRST_EVENTS = 3
"""Events in the first piece of a stream: the role, and a word or two."""

LINE_COST_BYTES = 64
"""Memory that a line takes besides its text, so that many short ones count as what they cost."""


BOM_DATA = b"\xef\xbb\xbfdata:"
"""How a stream begins whose server writes UTF-8 as Windows programs do."""


ERROR = b"error: {"
"""How llama-server said that an answer failed after it had begun."""


class SseError(ValueError):
    """The stream is not one of server-sent events, or an event is too long."""


class SseSplitter:
    """Feed bytes as they come; take the payloads that became whole."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0

    def feed(self, received: bytes) -> list[bytes]:
        """Payloads completed by `received`. Raises SseError."""
        whole = self._rest + received if self._rest else received
        end = whole.rfind(b"\n\n")
        payloads: list[bytes] = []
        if end > 0 and whole.startswith(b"data: ") and not self._lines and b"\r" not in whole:
            payloads = whole[6:end].split(b"\n\ndata: ")
        if payloads and b"\n" not in b"".join(payloads):
            # The usual case: every event is of one line.
            self._rest = whole[end + 2 :]
        else:
            payloads = []
            *lines, self._rest = whole.split(b"\n")
            self._take_lines(lines, payloads)
        if self._size + len(self._rest) > EVENT_MAX_BYTES:
            raise SseError(f"an event is longer than {EVENT_MAX_BYTES} bytes")
        return payloads

    def finish(self) -> list[bytes]:
        """The stream has ended: an event that only lacks its last empty line still counts."""
        payloads = self.feed(b"\n\n") if self._rest else []
        return [*payloads, self._event()] if self._lines else payloads

    def _take_lines(self, lines: list[bytes], payloads: list[bytes]) -> None:
        for line in lines:
            if line[:5] == b"data:":
                self._keep(line)
            elif self._lines and line in {b"", b"\r"}:
                payloads.append(self._event())
            elif line[:8] == BOM_DATA:
                self._keep(line[3:])
            elif line[:8] == ERROR:
                self._keep(b'data: {"error": %b}' % line[7:].rstrip(b"\r"))

    def _keep(self, line: bytes) -> None:
        start = 6 if line[5:6] == b" " else 5
        end = -1 if line[-1:] == b"\r" else None
        payload = line[start:end]
        self._lines.append(payload)
        self._size += len(payload) + LINE_COST_BYTES

    def _event(self) -> bytes:
        lines, self._lines, self._size = self._lines, [], 0
        return lines[0] if len(lines) == 1 else b"\n".join(lines)


def first_events_apart(received: bytes) -> tuple[bytes, ...]:
    """The first few server-sent events of a read, then the rest, so that the first word is on its
    way to the client before a long read is parsed. No piece is empty unless all of it is."""
    end = -1
    for _ in range(FIRST_EVENTS):
        found = received.find(b"\n\n", end + 1)
        if found < 0:
            return (received,)
        end = found + 1
    head, rest = received[: end + 1], received[end + 1 :]
    return (head, rest) if rest else (head,)
