"""Content digests of samples, remembered by the size and time of change of their files: a second look reads nothing.

The digests depend on content alone; the memory (``<cache>/fingerprints``) is local, and losing it costs time only. A
file rewritten with the same size and time of change is not noticed: ``BENCH_REHASH=1`` reads every byte again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from bench.cache import cache_root
from bench.errors import BenchError
from bench.files import regular, write_atomically
from bench.progress import watched

VARIABLE = "BENCH_REHASH"
_ROW = np.dtype([("size", "<i8"), ("mtime", "<i8"), ("digest", "V32")])
_THREADS = 8
_CHUNK = 1 << 20
_BLOCK = 256
"""Files a thread takes at once."""


def file_digests(root: Path, names: Sequence[str]) -> Iterator[bytes]:
    """sha256 of each file ``root/name``, in order. Raises `BenchError` for a file that cannot be read."""
    memory = _memory(root, names)
    known = _remembered(memory, len(names))
    found = np.zeros(len(names), dtype=_ROW)

    def block(start: int) -> int:
        stop = min(start + _BLOCK, len(names))
        for index in range(start, stop):
            found[index] = _file_row(root / names[index], None if known is None else known[index])
        return stop - start

    with (
        ThreadPoolExecutor(_THREADS) as pool,
        watched().stage("fingerprint", len(names), "files") as stage,
    ):
        for count in pool.map(block, range(0, len(names), _BLOCK)):
            stage.advance(count)
    if known is None or found.tobytes() != known.tobytes():
        _keep(memory, found)
    return _each(found["digest"])


def sample_digests(
    root: Path, sources: Sequence[str], n: int, digests: Callable[[], Iterator[bytes]], chosen: str = ""
) -> Iterator[bytes]:
    """The digests of ``n`` samples that lie inside the files ``root/source``: remembered, or from ``digests()``.

    Remembered while every source keeps its size and time of change; ``chosen`` says which samples of the sources these
    are. Raises `BenchError` for a source that cannot be read.
    """
    memory = _memory(root, [*sources, f"{n}:{chosen}"])
    stamps = np.zeros(len(sources), dtype=_ROW)
    for index, source in enumerate(sources):
        stat = _stat(root / source)
        stamps[index] = (stat.st_size, stat.st_mtime_ns, b"")
    known = _remembered(memory, len(sources) + n)
    if known is not None and known[: len(sources)].tobytes() == stamps.tobytes():
        return _each(known["digest"][len(sources) :])
    found = np.zeros(n, dtype=_ROW)
    with watched().stage("fingerprint", n, "samples") as stage:
        for index, digest in enumerate(digests()):
            found["digest"][index] = np.void(digest)
            stage.advance()
    _keep(memory, np.concatenate([stamps, found]))
    return _each(found["digest"])


def _each(digests: np.ndarray) -> Iterator[bytes]:
    return (digest.tobytes() for digest in digests)


def _file_row(path: Path, known: np.void | None) -> tuple[int, int, bytes]:
    stat = _stat(path)
    if known is not None and known["size"] == stat.st_size and known["mtime"] == stat.st_mtime_ns:
        return stat.st_size, stat.st_mtime_ns, known["digest"].tobytes()
    try:
        with open(path, "rb") as stream:
            return stat.st_size, stat.st_mtime_ns, _digest(stream)
    except OSError as error:
        raise _unreadable(path, error) from None


def _digest(stream: IO[bytes]) -> bytes:
    total = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        total.update(chunk)
    return total.digest()


def _stat(path: Path) -> os.stat_result:
    try:
        return regular(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> BenchError:
    return BenchError(f"{path} cannot be read ({error.strerror or error}): put it back, or mend its permissions")


def _memory(root: Path, names: Sequence[str]) -> Path:
    total = hashlib.sha256(os.fsencode(root.resolve()))
    for name in names:
        total.update(b"\0" + os.fsencode(name))
    return cache_root() / "fingerprints" / f"{total.hexdigest()[:32]}.digests"


def _remembered(memory: Path, n: int) -> np.ndarray | None:
    """The ``n`` rows kept there; None when there are none, or they are damaged."""
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        return None
    try:
        content = memory.read_bytes()
    except OSError:
        return None
    rows, check = content[: n * _ROW.itemsize], content[n * _ROW.itemsize :]
    return np.frombuffer(rows, dtype=_ROW) if check == hashlib.sha256(rows).digest() else None


def _keep(memory: Path, rows: np.ndarray) -> None:
    content = rows.tobytes()
    # A memory that cannot be kept is only slower next time.
    with contextlib.suppress(BenchError):
        write_atomically(memory, content + hashlib.sha256(content).digest())
