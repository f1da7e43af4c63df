"""Progress on stderr: bars with rate and time left on a terminal, plain lines elsewhere, silence below two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

PATIENCE = 2.0
"""A stage shorter than this many seconds shows nothing."""
PLAIN_EVERY = 10.0
"""Seconds between plain lines."""


class Stage:
    """One counted stage. ``advance`` is cheap to call often."""

    def __init__(self, progress: Progress, name: str, total: int | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self.note = ""
        self._started = time.monotonic()
        self._resumed = 0
        self._last = self._started
        self._progress = progress

    def skip(self, count: int) -> None:
        """Count work that an earlier run left behind: it does not enter the rate."""
        self.done += count
        self._resumed += count

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if note:
            self.note = note
        now = time.monotonic()
        if now - self._started >= PATIENCE and now - self._last >= self._progress.interval:
            self._last = now
            self._progress.show(self)

    def line(self) -> str:
        """``extract train  1,024/2,000 images  120/s  0:08 left``."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._resumed) / elapsed
        parts = [self.name, f"{self.done:,}/{self.total:,} {self.unit}" if self.total else f"{self.done:,} {self.unit}"]
        if rate > 0:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
            if self.total and self.done < self.total:
                parts.append(f"{_clock((self.total - self.done) / rate)} left")
        if self.note:
            parts.append(self.note)
        return "  ".join(parts)


class Progress:
    """Where stages are shown. ``quiet`` shows nothing but warnings."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream
        self.quiet = quiet

    @property
    def stream(self) -> TextIO:
        return self._stream or sys.stderr

    @property
    def live(self) -> bool:
        return self.stream.isatty()

    @property
    def interval(self) -> float:
        return 0.1 if self.live else PLAIN_EVERY

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Stage]:
        stage = Stage(self, name, total, unit)
        try:
            yield stage
        finally:
            self._finish(stage)

    def show(self, stage: Stage) -> None:
        if self.quiet:
            return
        if self.live:
            self._draw(stage)
        else:
            print(stage.line(), file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """One plain line of information."""
        if not self.quiet:
            print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """One line that is shown even when quiet."""
        print(f"warning: {text}", file=self.stream, flush=True)

    def _draw(self, stage: Stage) -> None:
        width = 24
        bar = ""
        if stage.total:
            filled = min(width, round(width * stage.done / stage.total))
            bar = "━" * filled + "─" * (width - filled) + "  "
        print(f"\r\x1b[2K{bar}{stage.line()}", end="", file=self.stream, flush=True)

    def _finish(self, stage: Stage) -> None:
        seconds = time.monotonic() - stage._started
        if self.quiet or seconds < PATIENCE:
            return
        if self.live:
            print("\r\x1b[2K", end="", file=self.stream)
        print(f"{stage.line()}  done in {_clock(seconds)}", file=self.stream, flush=True)


def _clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
