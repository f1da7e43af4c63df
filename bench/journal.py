"""Finished suites of an unfinished run: a killed run, started again with the same request, takes them over.

One folder per plan under ``RUNS/.unfinished``; a suite's file appears whole or not at all, and the folder goes when the
record is written. The run's id is in it too, so that no attempt makes a second record of what another one recorded.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.card import digest_of
from bench.errors import BenchError
from bench.files import TRIES, write_atomically
from bench.ledger import is_safe
from bench.locks import LockFile
from bench.record import Measurement

FOLDER = ".unfinished"
LOCK = "lock"
POLL = 0.05
"""Seconds between looks at a run that another process ends."""


class Journal:
    """The unfinished run of one plan (``plan``: a digest of everything that its numbers depend on)."""

    def __init__(self, runs: Path, plan: str) -> None:
        self.folder = runs / FOLDER / plan[:32]

    def load(self, suite: str) -> tuple[list[Measurement], dict[str, dict[str, np.ndarray]], float] | None:
        """(measurements, outcome tables by name, seconds) of a suite that finished, or None."""
        path = self.folder / f"{suite}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                document = json.loads(bytes(stored["document"]).decode())
                outcomes: dict[str, dict[str, np.ndarray]] = {name: {} for name in document["outcomes"]}
                for index, (name, key) in enumerate(document["arrays"]):
                    outcomes[name][key] = stored[f"array{index}"]
            measurements = [Measurement.model_validate(m) for m in document["measurements"]]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            # Damaged by something other than us: the suite simply runs again.
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return measurements, outcomes, float(document["seconds"])

    def run(self, name: str, new: str) -> str:
        """The id of the run called ``name``: that of the attempt that began it, else ``new``, kept for the next one.

        Attempts one after the other, and processes at the same time, thus make one record of one run.
        """
        path = self._named(name)
        for _ in range(TRIES):
            if write_atomically(path, new.encode(), exclusive=True):
                return new
            try:
                found = path.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                continue  # that run ended meanwhile
            except OSError as error:
                raise BenchError(f"{path} cannot be read: {error.strerror or error}") from None
            if is_safe(found):
                return found
            path.unlink(missing_ok=True)  # damaged by something other than us
        raise BenchError(f"{path} cannot be kept: run again")

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Within the block no other process ends a run of this plan."""
        locks = LockFile(self.folder / LOCK)
        try:
            while not locks.hold(0):
                time.sleep(POLL)
            yield
        finally:
            locks.close()

    def settle(self, run: str) -> None:
        """``run`` has its record: remove what it left, where it was stopped before it could."""
        with contextlib.suppress(OSError):
            # Whoever is at work on this plan has a mark of its own in the folder.
            if all(mark.read_text(encoding="utf-8", errors="replace") == run for mark in self.folder.glob("*.run")):
                self.remove()

    def withdraw(self, name: str) -> None:
        """The run called ``name`` ends without a record of its own: leave nothing, where it had finished nothing."""
        with contextlib.suppress(OSError):
            if list(self.folder.iterdir()) == [self._named(name)]:
                self._named(name).unlink()
                self.folder.rmdir()
                self.folder.parent.rmdir()

    def _named(self, name: str) -> Path:
        return self.folder / f"{digest_of(name)[:16]}.run"

    def save(
        self,
        suite: str,
        measurements: list[Measurement],
        outcomes: dict[str, dict[str, np.ndarray]],
        seconds: float,
    ) -> None:
        """Keep a finished suite. Raises `BenchError` when the folder cannot be written."""
        arrays = [(name, key, array) for name, table in outcomes.items() for key, array in table.items()]
        document: dict[str, Any] = {
            "measurements": [m.model_dump(mode="json") for m in measurements],
            "outcomes": list(outcomes),
            "arrays": [(name, key) for name, key, _ in arrays],
            "seconds": seconds,
        }
        buffer = io.BytesIO()
        np.savez(
            buffer,
            document=np.frombuffer(json.dumps(document).encode(), dtype=np.uint8),
            allow_pickle=False,
            **{f"array{index}": array for index, (_, _, array) in enumerate(arrays)},
        )
        write_atomically(self.folder / f"{suite}.npz", buffer.getvalue())

    def remove(self) -> None:
        """The record is written: nothing unfinished is left."""
        # The runs' ids last: whoever is stopped in here finds by them, when started again, that the record is there.
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.suffix != ".run":
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.parent.rmdir()
        except OSError:
            # Another run is unfinished.
            return
