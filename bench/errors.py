"""The one exception that users see."""

from __future__ import annotations


class BenchError(Exception):
    """A refusal: one clear sentence saying what is wrong, where, and how to mend it.

    The command line prints the sentence and exits with code 2; the library raises it. Anything else that
    escapes is a defect of ours.
    """


def brief(text: str) -> str:
    """``text`` as a sentence can hold it: the beginning of what is long, and how long it is."""
    return text if len(text) <= 120 else f"{text[:80]}... ({len(text):,} characters)"
