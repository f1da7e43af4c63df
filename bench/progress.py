"""Progress on stderr: rich bars with rate and time left on a terminal, plain lines elsewhere, nothing below 2 s."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

from bench.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

PATIENCE = 2.0
"""A stage shorter than this many seconds shows nothing."""
PLAIN_EVERY = 10.0
"""Seconds between plain lines."""
REDRAW_EVERY = 0.1
"""Seconds between redraws of a bar."""


class Stage:
    """One counted stage. ``advance`` is cheap to call often."""

    def __init__(self, progress: Progress, name: str, total: int | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self.note = ""
        self.started = time.monotonic()
        self.bar: TaskID | None = None
        self._skipped = 0
        self._shown = self.started
        self._progress = progress

    def skip(self, count: int) -> None:
        """Count work that an earlier run left behind: it does not enter the rate."""
        self.done += count
        self._skipped += count

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if note:
            self.note = note
        now = time.monotonic()
        if now - self.started >= PATIENCE and now - self._shown >= self._progress.interval:
            self._shown = now
            self._progress.show(self)

    def line(self) -> str:
        """``extract train  1,024/2,000 images  120/s  0:08 left``."""
        counted = f"{self.done:,}/{self.total:,} {self.unit}" if self.total else f"{self.done:,} {self.unit}"
        parts = [self.name, counted.strip(), self.pace(), self.note]
        return "  ".join(part for part in parts if part)

    def pace(self) -> str:
        """``120/s  0:08 left``: the rate since this run began, and what it says of the rest."""
        rate = (self.done - self._skipped) / max(time.monotonic() - self.started, 1e-9)
        if rate <= 0:
            return ""
        shown = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
        if self.total and self.done < self.total:
            shown += f"  {clock((self.total - self.done) / rate)} left"
        return shown


class Progress:
    """Where stages are shown. ``quiet`` shows nothing but warnings."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream
        self._bars: Bars | None = None
        self.quiet = quiet

    @property
    def stream(self) -> TextIO:
        return self._stream or sys.stderr

    @property
    def live(self) -> bool:
        return self.stream.isatty()

    @property
    def interval(self) -> float:
        return REDRAW_EVERY if self.live else PLAIN_EVERY

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Stage]:
        """Count one stage: ``with progress.stage("extract", 2000, "images") as stage: stage.advance(32)``."""
        stage = Stage(self, name, total, unit)
        try:
            yield stage
        finally:
            self._finish(stage)

    def show(self, stage: Stage) -> None:
        """Draw the bar, or print a plain line."""
        if self.quiet:
            return
        if not self.live:
            print(stage.line(), file=self.stream, flush=True)
            return
        if self._bars is None:
            self._bars = _bars(self.stream)
            self._bars.start()
        if stage.bar is None:
            stage.bar = self._bars.add_task(stage.name, total=stage.total, note="")
        count = f"{stage.done:,}/{stage.total:,}" if stage.total else f"{stage.done:,}"
        note = "  ".join(part for part in (f"{count} {stage.unit}".strip(), stage.pace(), stage.note) if part)
        self._bars.update(stage.bar, completed=stage.done, note=note)
        self._bars.refresh()

    def say(self, text: str) -> None:
        """One plain line of information."""
        if not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """One line that is shown even when quiet."""
        self._print(f"warning: {text}")

    def _print(self, text: str) -> None:
        # Names of data sets and files are part of it, and a terminal obeys what they hold.
        text = printable(text)
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def _finish(self, stage: Stage) -> None:
        seconds = time.monotonic() - stage.started
        if self._bars is not None and stage.bar is not None:
            self._bars.remove_task(stage.bar)
            if not self._bars.tasks:
                self._bars.stop()
                self._bars = None
        if not self.quiet and seconds >= PATIENCE:
            self._print(f"{stage.line()}  in {clock(seconds)}")


_WATCHED: ContextVar[Progress] = ContextVar("watched")


@contextmanager
def watching(progress: Progress) -> Iterator[None]:
    """Long work below that nobody hands a `Progress` to (a fingerprint is a mere attribute) is shown on this one."""
    token = _WATCHED.set(progress)
    try:
        yield
    finally:
        _WATCHED.reset(token)


def watched() -> Progress:
    """The `Progress` of the enclosing `watching`; a quiet one outside."""
    return _WATCHED.get(None) or Progress(quiet=True)


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, secs = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def _bars(stream: TextIO) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    # No refresh thread: worker processes are forked while a bar is up, and a thread's locks do not survive that.
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=stream),
        auto_refresh=False,
        transient=True,
    )
