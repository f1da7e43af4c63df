"""Text from outside (file names, class names, what a checkpoint holds) as records, pages and terminals can hold it."""

from __future__ import annotations

import re

UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators and marks that turn the reading direction (a terminal or a page would obey
them), and the surrogates that Python makes of bytes that are no UTF-8 (a record cannot keep them)."""

_ENDLESS = re.compile(r"\S{400,}")


def printable(text: str) -> str:
    """``text`` with everything that is `UNSPEAKABLE` written as an escape, as in ``cl\\udcff`` or ``a\\x1b[31m``."""
    return UNSPEAKABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def sentence(text: str) -> str:
    """``text`` on one line, printable, with words that have no end (a path of thousands of characters) cut short."""
    return _ENDLESS.sub(
        lambda found: f"{found[0][:120]}...{found[0][-60:]} ({len(found[0]):,} characters)",
        printable(" ".join(text.split())),
    )


LONGEST = 4096
"""Characters of one argument; no path is longer on Linux."""


def spoken(text: str) -> str:
    """``text`` as it is. Raises ValueError (the end of a sentence) for what a record, a page or a terminal cannot hold,
    and for an empty or endless text."""
    if not text.strip():
        raise ValueError("is empty")
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text):,} characters; {LONGEST:,} are the most")
    if found := UNSPEAKABLE.search(text):
        if "\ud800" <= found[0] <= "\udfff":
            raise ValueError("holds bytes that are no UTF-8, which a record cannot keep: rename it")
        raise ValueError("holds control characters: leave them out")
    return text
