"""What an interrupted training left behind: written whole or not at all, taken over by the same training alone."""

from __future__ import annotations

import pickle
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from bench.card import digest_of
from bench.files import write_atomically
from bench.progress import Progress
from suites.training import ranks

FILE = "training.pt"
OVERHEAD = 0.1
"""Share of the time that checkpoints may take: one that is slow to write is written at fewer epochs' ends."""
LONGEST = 600.0
"""Seconds of work that a kill may cost, whatever the length of an epoch."""


class Checkpoint:
    """The state of one training in ``folder`` (None: nothing is kept). ``identity``: what it belongs to."""

    def __init__(self, folder: Path | None, identity: str, progress: Progress) -> None:
        self.path = folder / FILE if folder is not None else None
        self.identity = identity
        self.progress = progress
        self._last = time.monotonic()
        self._took = 0.0

    def load(self) -> dict[str, Any] | None:
        """The state of the interrupted training, the same on every rank; None when there is none of this identity."""
        state = self._read() if ranks.rank() == 0 else None
        found: dict[str, Any] | None = ranks.from_first(state)
        return found

    def due(self, *, epoch_ends: bool) -> bool:
        """Whether a checkpoint is to be written now; rank 0 decides."""
        since = time.monotonic() - self._last
        wanted = (epoch_ends and since * OVERHEAD >= self._took) or since >= LONGEST
        return self.path is not None and wanted

    def save(self, state: dict[str, Any]) -> None:
        """Keep ``state`` (tensors, numbers, text, containers). Raises `BenchError` when it cannot be written."""
        if self.path is None or ranks.rank() != 0:
            return
        begun = time.monotonic()
        content = {"identity": self.identity, **state}
        write_atomically(self.path, lambda stream: torch.save(content, stream))
        self._last = time.monotonic()
        self._took = self._last - begun

    def remove(self) -> None:
        """The training is over and its result is kept elsewhere."""
        if self.path is not None and ranks.rank() == 0:
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError):
            self.progress.warn(f"{self.path} is damaged: this training begins anew")
            return None
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            self.progress.warn(f"{self.path} belongs to a training of other settings: this one begins anew")
            return None
        return state


def identity_of(
    model: nn.Module, optimiser: torch.optim.Optimizer, device: torch.device, given: Any, settings: list[Any]
) -> str:
    """Digest of all that a training's numbers depend on, its samples left to ``given``."""
    shapes = [[name, list(value.shape)] for name, value in model.state_dict().items()]
    groups = [
        {key: value for key, value in group.items() if key not in ("params", "lr")} for group in optimiser.param_groups
    ]
    return digest_of(repr([given, settings, shapes, groups, type(optimiser).__name__, device.type]))


class Interrupted:
    """Whether somebody asked to stop. Signals wait for the end of an iteration, where the state is whole."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            # Asked twice: at once, with what the last checkpoint holds.
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def interruptible() -> Iterator[Interrupted]:
    """Inside, Ctrl-C and SIGTERM are noted instead of obeyed; at the end they are obeyed."""
    asked = Interrupted()
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; elsewhere an interrupt costs the work since the last checkpoint.
        yield asked
        return
    before = {number: signal.signal(number, asked.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            # A handler that was not set from Python cannot be put back: the default is.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    if asked.signal is not None:
        signal.raise_signal(asked.signal)
