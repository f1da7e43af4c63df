"""Where the gate's two sides come from: a ledger, one record, or either at a revision of a git repository."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bench.errors import BenchError
from bench.ledger import ARTIFACTS, Ledger, read
from bench.record import Record


class Source(NamedTuple):
    """Records, and the ledger that holds their outcomes."""

    spec: str
    records: list[Record]
    ledger: Ledger


@contextmanager
def opened(spec: str) -> Iterator[Source]:
    """The records of ``spec``: a folder, a record's file, or ``git:REF:path`` of either in the current repository.

    Outcomes can be read while the context is open. Raises `BenchError` for a path or revision that is not there, for
    a file that is no record, and for a folder without records.
    """
    if not spec.startswith("git:"):
        yield _local(spec, Path(spec))
        return
    ref, separator, inside = spec.removeprefix("git:").partition(":")
    if not separator or not ref or not inside or ref.startswith("-"):
        raise BenchError(f"'{spec}' is not of the form git:REF:path, as in git:origin/main:baseline")
    pure = PurePosixPath(inside)
    if pure.is_absolute() or ".." in pure.parts:
        raise BenchError(f"the path of '{spec}' must lie in the repository")
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as folder:
        # An archive of a subtree names its files from the top, and link targets outside are not followed.
        _extract(ref, _wanted(ref, pure, spec), Path(folder), spec)
        yield _local(spec, Path(folder) / pure)


def _local(spec: str, path: Path) -> Source:
    if path.is_dir():
        ledger = Ledger(path)
        records = list(ledger.records())
        if not records:
            raise BenchError(f"no records in {spec}: the gate has nothing to hold against")
        return Source(spec, records, ledger)
    return Source(spec, [read(path)], Ledger(path.parent))


def _wanted(ref: str, path: PurePosixPath, spec: str) -> list[str]:
    """The path itself and, for a single record, the folder of its outcomes where the revision has it."""
    kind = _git(["cat-file", "-t", f"{ref}:{path}"], spec).decode().strip()
    wanted = [str(path)]
    outcomes = path.parent / ARTIFACTS / path.stem
    if kind == "blob" and _git(["ls-tree", ref, "--", str(outcomes)], spec).strip():
        wanted.append(str(outcomes))
    return wanted


def _extract(ref: str, wanted: list[str], folder: Path, spec: str) -> None:
    content = _git(["archive", "--format=tar", ref, "--", *wanted], spec)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def _git(arguments: list[str], spec: str) -> bytes:
    try:
        top = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, check=True).stdout
        done = subprocess.run(["git", *arguments], capture_output=True, check=True, cwd=top.decode().strip())
    except FileNotFoundError:
        raise BenchError(f"'{spec}' needs the program git, which is not installed") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise BenchError(f"'{spec}' cannot be read from git: {said[0] if said else 'git failed'}") from None
    return done.stdout
