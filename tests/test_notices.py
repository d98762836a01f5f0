"""The last warnings of a node: newest first, bounded, and information only in the log."""

from __future__ import annotations

from meshd.core.effects import Notice
from meshd.notices import NOTICES_MAX, Notices


def test_warnings_are_kept_newest_first_with_their_age() -> None:
    """What is normal is not kept."""
    now = [0.0]
    notices = Notices(lambda: now[0])
    notices.say(Notice("warning", "one"))
    notices.say(Notice("info", "joined"))
    now[0] = 5.0
    notices.say(Notice("warning", "two"))
    assert notices.body() == [{"age_s": 0.0, "text": "two"}, {"age_s": 5.0, "text": "one"}]


def test_only_the_last_are_kept() -> None:
    """A node that complains for days stays as small as it was."""
    notices = Notices()
    for number in range(NOTICES_MAX + 5):
        notices.say(Notice("warning", str(number)))
    kept = [notice["text"] for notice in notices.body()]
    assert kept == [str(number) for number in range(NOTICES_MAX + 4, 4, -1)]
