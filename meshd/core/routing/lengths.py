"""How long will the answer be? A running percentile per class of request.

Nobody knows the length of an answer before it is written, but requests of one class resemble each
other: a code completion is ten tokens long, a chat a few hundred. So the router remembers the last
`SAMPLES` lengths of each class that passed through this node and expects their 70th percentile,
which for the skewed lengths of real traffic is close to the mean. A class that was seen seldom
leans on EXPECTED_OUTPUT_TOKENS, by as many samples as it lacks.

The class is what can be seen from outside: kind, tools, forced format, streamed, batch. Classes
are few (below 100) and bounded all the same.

Left out: the words of the prompt. Predictors that read them gain little on traffic they were not
trained on, and a prompt is nothing to keep.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import lru_cache

from protocol.jobs import Job

SAMPLES = 64
"""Lengths remembered per class: an afternoon's chat, and enough for a percentile to hold still."""

PERCENTILE = 0.7
"""Of a lognormal with the spread of public traces (sigma 0.9-1.1) this is the mean, within 6 %."""

SAMPLES_TRUSTED = 8
"""With fewer than this the usual length takes the place of those that lack."""

RECOUNT_EVERY = 8
"""Lengths between two looks at the percentile once SAMPLES are there: an eighth of them moves it by
less than its error."""

CLASSES_MAX = 256
"""Classes kept; the one used least recently gives way."""

EXPECTED_OUTPUT_TOKENS = 220
"""Length of an answer nobody has bounded: between the medians of public chat traces (129-350)."""


def class_of(job: Job) -> str:
    """The class of a job: a short word list, no text of the request in it."""
    return _named(job.kind, bool(job.tools), bool(job.response_format), job.stream, job.priority)


@lru_cache(maxsize=CLASSES_MAX)
def _named(kind: str, tools: bool, formatted: bool, streamed: bool, priority: str) -> str:
    words = {
        "tools": tools,
        "formatted": formatted,
        "streamed": streamed,
        priority: priority != "interactive",
    }
    return " ".join([kind, *[word for word, is_said in words.items() if is_said]])


def usual(_job_class: str) -> int:
    """What to expect of an answer while nothing is known."""
    return EXPECTED_OUTPUT_TOKENS


class OutputLengths:
    """The lengths of the answers that passed through here."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, deque[int]] = OrderedDict()
        self._expected: dict[str, int] = {}
        self._observed: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def expected(self, job_class: str) -> int:
        """Tokens to expect of an answer of this class when nobody bounds it."""
        return self._expected.get(job_class, EXPECTED_OUTPUT_TOKENS)

    def observe(self, job_class: str, tokens: int) -> None:
        """An answer of this class was `tokens` long."""
        seen = self._seen.get(job_class)
        if seen is None:
            if len(self._seen) >= CLASSES_MAX:
                oldest, _ = self._seen.popitem(last=False)
                del self._expected[oldest], self._observed[oldest]
            seen = self._seen[job_class] = deque(maxlen=SAMPLES)
            self._observed[job_class] = 0
        self._seen.move_to_end(job_class)
        seen.append(tokens)
        self._observed[job_class] += 1
        if len(seen) == SAMPLES and self._observed[job_class] % RECOUNT_EVERY:
            return
        middle = sorted(seen)[int(PERCENTILE * (len(seen) - 1) + 0.5)]
        trust = min(1.0, len(seen) / SAMPLES_TRUSTED)
        self._expected[job_class] = round(trust * middle + (1.0 - trust) * EXPECTED_OUTPUT_TOKENS)
