"""Ctrl-C and SIGTERM alike end a command by one sentence, into whatever they fall, and never after its work is done."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)

_owner = 0
"""The process that heeds; forked ones are ended as Python ends them."""
_came = False


def heed() -> None:
    """From now on both signals raise KeyboardInterrupt here, and `came` remembers."""
    global _owner, _came
    _owner, _came = os.getpid(), False
    for number in NUMBERS:
        with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
            # Who started us with Ctrl-C ignored (nohup, a background job of a script) meant it.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _raise)
    sys.unraisablehook = _unraisable


def came() -> bool:
    """Whether one came: libraries now and then make another error of it."""
    return _came


def check() -> None:
    """Raise KeyboardInterrupt where one came and a library made an error of it that was then caught: nothing that
    follows from that error may be kept."""
    if _came and os.getpid() == _owner:
        raise KeyboardInterrupt


def ignore() -> None:
    """The answer is given: what comes now would only spoil it."""
    for number in NUMBERS:
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    global _came
    if os.getpid() == _owner:
        _came = True
    elif number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise KeyboardInterrupt


def _unraisable(unraisable: Any) -> None:
    if unraisable.exc_type is KeyboardInterrupt and os.getpid() == _owner:
        # It fell into a destructor, where Python can only print it: once more, to fall behind it.
        signal.raise_signal(signal.SIGINT)
        return
    if _came:
        return  # What falls over on the way out, workers that the same signal ended above all, is no news.
    sys.__unraisablehook__(unraisable)
