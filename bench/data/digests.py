"""Content digests of files, remembered by path, size and time of change so that a second look costs no reading.

The digests depend on content alone; the memory (``<cache>/fingerprints``) is local, and losing it costs time only. A
file rewritten with the same size and time of change would be missed: remove that folder to force a new reading.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench.cache import cache_root
from bench.errors import BenchError
from bench.files import write_atomically

_ROW = np.dtype([("size", "<i8"), ("mtime", "<i8"), ("digest", "V32")])
_THREADS = 8
_CHUNK = 1 << 20


def file_digests(root: Path, names: Sequence[str]) -> list[bytes]:
    """sha256 of each file ``root/name``, in order. Raises `BenchError` for a file that cannot be read."""
    memory = cache_root() / "fingerprints" / f"{_key(root, names)}.npy"
    known = _remembered(memory, len(names))
    found = np.zeros(len(names), dtype=_ROW)
    with ThreadPoolExecutor(_THREADS) as pool:
        for index, (stat, digest) in enumerate(
            pool.map(lambda i: _digest(root / names[i], known, i), range(len(names)))
        ):
            found[index] = (stat.st_size, stat.st_mtime_ns, digest)
    if known is None or (found != known).any():
        # A memory that cannot be kept is only slower next time.
        with contextlib.suppress(BenchError):
            write_atomically(memory, lambda stream: np.save(stream, found, allow_pickle=False))
    return [bytes(row) for row in found["digest"]]


def _digest(path: Path, known: np.ndarray | None, index: int) -> tuple[os.stat_result, bytes]:
    try:
        stat = path.stat()
        if known is not None and known[index]["size"] == stat.st_size and known[index]["mtime"] == stat.st_mtime_ns:
            return stat, bytes(known[index]["digest"])
        total = hashlib.sha256()
        with open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                total.update(chunk)
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from None
    return stat, total.digest()


def _remembered(memory: Path, n: int) -> np.ndarray | None:
    try:
        found: np.ndarray = np.load(memory, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (n,) and found.dtype == _ROW else None


def _key(root: Path, names: Sequence[str]) -> str:
    total = hashlib.sha256(str(root.resolve()).encode(errors="surrogateescape"))
    for name in names:
        total.update(b"\0" + name.encode(errors="surrogateescape"))
    return total.hexdigest()[:32]
