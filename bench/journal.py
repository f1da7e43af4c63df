"""Finished suites of an unfinished run: a killed run, started again with the same request, takes them over.

One folder per plan under ``RUNS/.unfinished``; a suite's file appears whole or not at all, and the folder goes when the
record is written.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from bench.files import write_atomically
from bench.record import Measurement

FOLDER = ".unfinished"


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
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.parent.rmdir()
        except OSError:
            # Another run is unfinished.
            return
