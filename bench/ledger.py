"""Ledger: a folder of Records, append-only, the single source for every report.

``RUNS/<run>.json`` is one record; ``RUNS/artifacts/<run>/<name>.npz`` are its per-sample outcomes. Artifacts are
written first and the record last, so a record that can be seen is whole; nothing is overwritten or edited, which is
what lets several processes write one ledger without a lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import secrets
import shutil
import unicodedata
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from bench.errors import BenchError
from bench.files import TEMPORARY, write_atomically
from bench.record import Record, parse

ARTIFACTS = "artifacts"
FILES = (".json", ".png", ".svg", ".jpg")
"""Endings of artifacts that are files of their own, not tables: stored detections, drawings, photographs."""
LARGEST_RECORD = 64 * 2**20
"""Bytes. A record holds cards and numbers; per-sample data are artifacts, so a larger file is a mistake."""
LARGEST_ARTIFACT = 2 * 2**30
"""Bytes after unpacking, against archives that grow without end."""

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,+=@-]{0,199}")


class Ledger:
    """The records under ``folder``. Reading never creates anything; `add` creates what it needs."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def add(self, record: Record, outcomes: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> Path:
        """Write the record and its outcome tables; return where the record lies.

        ``outcomes`` maps a table's name to its arrays; a measurement names its table with `artifact`. The digests of
        the tables are entered in ``record.artifacts``, which makes the record the proof of what lies beside it.
        Raises `BenchError` for an unsafe name, a table that no measurement or no caller names, an array that is no
        plain data or holds NaN or Inf, a run that is already there, a full disk or an unwritable folder.
        """
        if not _SAFE.fullmatch(record.run):
            raise BenchError(f"the run '{record.run}' is not a safe file name: make it with bench.ledger.run_id")
        tables = {artifact(record.run, name): arrays for name, arrays in (outcomes or {}).items()}
        named = {m.outcomes for m in record.measurements if m.outcomes is not None}
        if missing := sorted(named - set(tables)):
            raise BenchError(f"the record {record.run} names outcomes that were not handed over: {', '.join(missing)}")
        packed = {path: _pack(arrays, path) for path, arrays in sorted(tables.items())}
        record.artifacts = {path: hashlib.sha256(content).hexdigest() for path, content in packed.items()}
        for path, content in packed.items():
            target = self._inside(path)
            # An earlier attempt of this very run may have left the same table; another content is never replaced.
            if not write_atomically(target, content, exclusive=True) and target.read_bytes() != content:
                raise BenchError(f"{target} holds other outcomes already: a ledger is never edited, start a new run")
        target = self._inside(f"{record.run}.json")
        if not write_atomically(target, record.to_json().encode(), exclusive=True):
            raise BenchError(f"{target} is there already: a ledger is never edited, start a new run")
        return target

    def find(self, run: str) -> Record | None:
        """The record of ``run``; None when there is none, or none that can be read."""
        try:
            return self._read_inside(self.folder / f"{run}.json") if is_safe(run) else None
        except BenchError:
            return None

    def discard(self, run: str) -> None:
        """Remove what an attempt without a record left of ``run``; nothing is touched when there is a record."""
        if is_safe(run) and not (self.folder / f"{run}.json").exists():
            shutil.rmtree(self._inside(f"{ARTIFACTS}/{run}"), ignore_errors=True)
            self._sweep(run)

    def settle(self, run: str) -> None:
        """``run`` has its record: remove what its writer left beside it, where it was killed before it could."""
        if is_safe(run) and (self.folder / f"{run}.json").exists():
            with contextlib.suppress(OSError):
                self._sweep(run)

    def _sweep(self, run: str) -> None:
        for unfinished in self.folder.glob(f"{TEMPORARY}{run}.json.*"):
            unfinished.unlink(missing_ok=True)

    def paths(self) -> list[Path]:
        """The record files, oldest run first; hidden and unfinished files are not records."""
        if not self.folder.is_dir():
            raise BenchError(f"no ledger at {self.folder}: give the folder that `bench run --runs` writes")
        return sorted(path for path in self.folder.glob("*.json") if not path.name.startswith("."))

    def records(self, problems: list[str] | None = None) -> Iterator[Record]:
        """Every record, oldest run first.

        A file that is not a record raises `BenchError` naming it, or, where ``problems`` is given, adds its sentence
        to that list and is left out.
        """
        for path in self.paths():
            try:
                yield self._read_inside(path)
            except BenchError as error:
                if problems is None:
                    raise
                problems.append(str(error))

    def mentioning(self, text: str) -> Iterator[Record]:
        """The records whose document holds ``text``, newest first; others are not parsed, and faulty ones left out."""
        if not self.folder.is_dir():
            return
        for path in reversed(self.paths()):
            try:
                if text.encode() in path.read_bytes():
                    yield self._read_inside(path)
            except (OSError, BenchError):
                continue

    def _read_inside(self, path: Path) -> Record:
        record = read(self._inside(path.name))
        if f"{record.run}.json" != path.name:
            raise BenchError(f"{path} holds the run '{record.run}': a record's file is named after its run")
        return record

    def outcomes(self, record: Record, path: str, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """The arrays of the outcome table ``path`` of ``record`` (those of ``names`` alone), its digest checked.

        Raises `BenchError` when the table is missing, damaged, outside the ledger or not plain arrays.
        """
        return _unpack(self._content(record, path), self.folder / path, names)

    def file(self, record: Record, path: str, most: int = LARGEST_ARTIFACT) -> bytes:
        """The content of the artifact ``path`` of ``record``, at most ``most`` bytes, its digest checked.

        Raises `BenchError` as `outcomes` does, and for an artifact that is larger.
        """
        return self._content(record, path, most)

    def check(self) -> list[str]:
        """One sentence per fault: files that are no records; artifacts missing, damaged, undigested or outside."""
        problems: list[str] = []
        for record in self.records(problems):
            named = {m.outcomes for m in record.measurements if m.outcomes is not None}
            for path in sorted(named | set(record.artifacts)):
                try:
                    content = self._content(record, path)
                    if path.endswith(".npz"):
                        _unpack(content, self.folder / path)
                    if path not in record.artifacts:
                        raise BenchError(f"the outcomes {self.folder / path} have no SHA-256 in the record")
                except BenchError as error:
                    problems.append(f"{record.run}: {error}")
        return problems

    def _content(self, record: Record, path: str, most: int = LARGEST_ARTIFACT) -> bytes:
        target = self._inside(path)
        try:
            if target.stat().st_size > most:
                raise BenchError(f"the outcomes {target} are larger than {most >> 20:,} MiB")
            content = target.read_bytes()
        except OSError as error:
            raise BenchError(f"the outcomes {target} cannot be read: {error.strerror or error}") from None
        digest = record.artifacts.get(path)
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise BenchError(f"the outcomes {target} are not those of the record: their SHA-256 differs")
        return content

    def _inside(self, relative: str) -> Path:
        """``relative`` under the folder; refused when it, or a symbolic link on its way, leads out of it."""
        pure = PurePosixPath(relative)
        target = self.folder / pure
        leaves = pure.is_absolute() or ".." in pure.parts or "\\" in relative or "\0" in relative or not pure.parts
        if leaves or not target.resolve().is_relative_to(self.folder.resolve()):
            raise BenchError(f"the path {relative!r} leads out of the ledger {self.folder}")
        return target


def read(path: Path | str) -> Record:
    """The record in one file. Raises `BenchError`, one sentence naming the file, when it is not there or is none."""
    path = Path(path)
    if not path.is_file():
        raise BenchError(f"no record at {path}" + (": it is not a regular file" if path.exists() else ""))
    try:
        if path.stat().st_size > LARGEST_RECORD:
            size = path.stat().st_size
            raise BenchError(
                f"{path} is not a bench record: {size >> 20} MiB, and a record has at most {LARGEST_RECORD >> 20}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"the record {path} cannot be read: {error.strerror or error}") from None
    return parse(content, str(path))


def is_safe(run: str) -> bool:
    """Whether a run's id can be a file's name."""
    return _SAFE.fullmatch(run) is not None


def artifact(run: str, name: str) -> str:
    """What ``Measurement.outcomes`` holds for the table ``name`` of ``run``: its path relative to the ledger."""
    if not _SAFE.fullmatch(name):
        raise BenchError(f"the outcome table name {name!r} is not a safe file name")
    return f"{ARTIFACTS}/{run}/{name}" + ("" if name.endswith(FILES) else ".npz")


def as_table(content: bytes) -> dict[str, np.ndarray]:
    """A whole file in the form of a table: `Ledger.add` writes it as it is when its name ends like one of `FILES`."""
    return {"content": np.frombuffer(content, dtype=np.uint8)}


def run_id(created: str, name: str, seed: int = 0) -> str:
    """A name for a run: sorts by time, tells the label and the seed, safe as a file name, and no two are alike.

    ``created`` as `bench.record.now` gives it; ``name`` may hold any characters.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9.]+", "-", ascii_name.lower()).strip("-.")[:48].rstrip("-.") or "run"
    moment = re.sub(r"[^0-9TZ]", "", created)
    return f"{moment}-{slug}-s{seed}-{secrets.token_hex(4)}"


def _pack(arrays: Mapping[str, np.ndarray], path: str) -> bytes:
    """The arrays as npz; equal arrays give equal bytes, whenever they are written. A file of `FILES` is as it is."""
    if path.endswith(FILES):
        return np.asarray(arrays["content"], dtype=np.uint8).tobytes()
    for name, array in arrays.items():
        plain = np.asarray(array)
        if plain.dtype.hasobject:
            raise BenchError(f"the outcomes {path} hold Python objects in '{name}': only plain arrays are kept")
        if plain.dtype.kind in "fc" and not np.isfinite(plain).all():
            wrong = np.argwhere(~np.isfinite(np.atleast_1d(plain)))
            raise BenchError(
                f"the outcomes {path} hold NaN or Inf at {len(wrong)} of {plain.size} places in '{name}' (first "
                f"{', '.join(map(str, wrong[0]))}): what is undefined is left out before it is recorded"
            )
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **{name: np.asarray(arrays[name]) for name in sorted(arrays)})
    return stream.getvalue()


def _unpack(content: bytes, path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_ARTIFACT:
                raise BenchError(f"the outcomes {path} unpack to more than {LARGEST_ARTIFACT >> 30} GiB")
        # allow_pickle=False is what keeps an artifact from running code (law 5).
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if names is None or name in names}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise BenchError(f"the outcomes {path} are not an npz of plain arrays: {error}") from None
