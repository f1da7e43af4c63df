"""FeatureStore: what one pass of one backbone over one data set produced, in checksummed shards on disk.

``cache_root()/features/<key>/`` holds ``store.json`` (what it is, in clear), ``lock`` and ``00000.safetensors``... A
shard is complete when its file is there. Byte 0 of ``lock`` is held, shared, by every process that uses the store; byte
1 + s by the one that makes shard s.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench._version import __version__
from bench.cache import cache_root
from bench.card import digest_of
from bench.errors import BenchError
from bench.files import TEMPORARY, refusal, write_atomically
from bench.locks import LockFile
from bench.record import now
from bench.shards import Corrupt, DamagedShard, Header, read_header, read_rows, verify_shard, write_shard

if TYPE_CHECKING:
    from bench.card import Card
    from bench.dataset import Dataset
    from bench.device import Precision

FORMAT = 1
MANIFEST = "store.json"
LOCK = "lock"
IN_USE = 0
SHARD_BYTES = 32 << 20
"""A shard holds at most about this many bytes of features."""
SHARD_SHARE = 128
"""A shard holds about this part of the samples: what a kill costs..."""
SHARD_LEAST = 256
"""...but never fewer samples than this."""


def features_root() -> Path:
    """Where the stores are."""
    return cache_root() / "features"


class Manifest(BaseModel):
    """``store.json``: written once, by the first process; ``batch`` alone may be lowered when memory runs out."""

    model_config = ConfigDict(extra="forbid")

    format: int
    identity: dict[str, Any]
    """What the features depend on; its digest begins the folder's name."""
    names: list[str]
    model: str
    dataset: str
    split: str
    n: int = Field(ge=1)
    batch: int = Field(ge=1)
    shard: int = Field(ge=1)
    """Samples per shard, a multiple of ``batch``."""
    created: str


def identity(card: Card, dataset: Dataset, precision: Precision) -> dict[str, Any]:
    """Everything that the features depend on, apart from their names.

    The architecture and the meaning of ``pooled`` are in it because equal tensors can make two networks (QuickGELU and
    GELU), and the engine's minor version because a release may mend a forward.
    """
    return {
        "format": FORMAT,
        "bench": ".".join(__version__.split(".")[:2]),
        "weights": card.weight_digest,
        "architecture": card.architecture,
        "feature": card.feature,
        "dims": card.dims,
        "transform": card.transform.model_dump(mode="json") if card.transform is not None else None,
        "fingerprint": dataset.fingerprint,
        "split": dataset.split,
        "precision": precision,
    }


def key_of(identity: Mapping[str, Any], names: Sequence[str]) -> str:
    """The folder's name: what the features are, then which of them."""
    return f"{digest_of(identity)[:32]}-{digest_of(sorted(names))[:8]}"


def shard_size(n: int, batch: int, row_bytes: int) -> int:
    """Samples per shard: a multiple of ``batch``, bounded in bytes, and small enough that a kill costs a hundredth."""
    wanted = min(max(SHARD_LEAST, n // SHARD_SHARE), max(1, SHARD_BYTES // max(row_bytes, 1)))
    return max(1, round(wanted / batch)) * batch


class FeatureStore:
    """One store. Opening it marks it as in use until it is collected, closed, or the process ends."""

    def __init__(self, folder: Path, manifest: Manifest, locks: LockFile) -> None:
        self.folder = folder
        self.manifest = manifest
        self._locks = locks
        self._headers: dict[int, Header] = {}
        self._finalizer = weakref.finalize(self, locks.close)

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def n(self) -> int:
        return self.manifest.n

    @property
    def batch(self) -> int:
        return self.manifest.batch

    @property
    def shards(self) -> int:
        return -(-self.manifest.n // self.manifest.shard)

    def span(self, shard: int) -> tuple[int, int]:
        """[first, last) sample of a shard."""
        start = shard * self.manifest.shard
        return start, min(start + self.manifest.shard, self.manifest.n)

    def path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.safetensors"

    def missing(self) -> list[int]:
        """The shards that are not there yet."""
        there = {entry.name for entry in os.scandir(self.folder)}
        return [shard for shard in range(self.shards) if self.path(shard).name not in there]

    def claim(self, shard: int) -> bool:
        """Whether this process shall make the shard; False when another does or has."""
        if not self._locks.hold(1 + shard):
            return False
        if self.path(shard).exists():
            self._locks.drop(1 + shard)
            return False
        return True

    def release(self, shard: int) -> None:
        self._locks.drop(1 + shard)

    def write(
        self, shard: int, arrays: Mapping[str, np.ndarray], corrupt: Sequence[Corrupt], made: Mapping[str, Any]
    ) -> None:
        """Write one shard and release it."""
        write_shard(
            self.path(shard),
            arrays,
            store=self.key,
            span=self.span(shard),
            corrupt=corrupt,
            batch=self.manifest.batch,
            made=made,
        )
        self._headers.pop(shard, None)
        self.release(shard)

    def lower_batch(self, batch: int) -> None:
        """Fix a smaller batch for the shards that are still to be made (memory ran out)."""
        self.manifest = self.manifest.model_copy(update={"batch": batch})
        write_atomically(self.folder / MANIFEST, _text(self.manifest))

    def header(self, shard: int) -> Header:
        """The shard's header, read once. `DamagedShard` when it is not sound."""
        if shard not in self._headers:
            header = read_header(self.path(shard), store=self.key, span=self.span(shard))
            absent = set(self.manifest.names) - set(header.arrays)
            if absent and header.rows:
                raise DamagedShard(f"{self.path(shard)} lacks {', '.join(sorted(absent))}")
            self._headers[shard] = header
        return self._headers[shard]

    def read(self, shard: int, name: str, rows: slice = slice(None)) -> np.ndarray:
        """float32 [rows, D] of one shard."""
        return read_rows(self.path(shard), self.header(shard), name, rows)

    def verify(
        self,
        names: Sequence[str] | None = None,
        *,
        again: bool = False,
        advance: Callable[[int], object] | None = None,
    ) -> list[int]:
        """Check the checksums of ``names`` (None: all) in every shard that is there, once per process and file.

        Damaged shards are removed, so that they are made again, and returned.
        """
        wanted = list(names) if names is not None else self.manifest.names
        absent = set(self.missing())
        present = [shard for shard in range(self.shards) if shard not in absent]
        damaged = []
        if again:
            self._headers.clear()
            for known in [known for known in _verified if known[0].startswith(f"{self.folder}{os.sep}")]:
                del _verified[known]
        # Hashing and reading release the interpreter's lock.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for shard, sound in zip(present, pool.map(lambda s: self._is_sound(s, wanted), present), strict=True):
                if not sound and self._remove_damaged(shard, wanted):
                    damaged.append(shard)
                if advance is not None:
                    advance(1)
        return damaged

    def _is_sound(self, shard: int, names: Sequence[str]) -> bool:
        path = self.path(shard)
        try:
            status = path.stat()
            header = self.header(shard)
            stored = {header.stored_as(name) for name in names} if header.rows else set()
            seen = _verified.setdefault((str(path), status.st_ino, status.st_size, status.st_mtime_ns), set())
            verify_shard(path, header, stored - seen)
            seen |= stored
        except (DamagedShard, OSError):
            self._headers.pop(shard, None)
            return False
        return True

    def _remove_damaged(self, shard: int, names: Sequence[str]) -> bool:
        if not self._locks.hold(1 + shard):
            return False  # somebody is making it again
        try:
            if self.path(shard).exists() and not self._is_sound(shard, names):
                self.path(shard).unlink(missing_ok=True)
                return True
            return False
        except OSError as error:
            raise BenchError(
                f"{self.path(shard)} is damaged and cannot be removed ({error.strerror}): remove it by hand"
            ) from error
        finally:
            self._locks.drop(1 + shard)

    def touch(self) -> None:
        """Note that the store was used now, for the trimming of the least recently used."""
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(self.folder / LOCK)

    def bytes(self) -> int:
        """Size on disk."""
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(self.folder))

    def close(self) -> None:
        """Give up the locks; the store may then be removed by others."""
        self._finalizer()


_verified: dict[tuple[str, int, int, int], set[str]] = {}
"""Arrays of files that this process has verified: (path, inode, size, mtime) -> names."""


def open_store(folder: Path) -> FeatureStore | None:
    """The store in ``folder``, marked as in use; None when there is none of this format."""
    locks = LockFile(folder / LOCK) if folder.is_dir() and not folder.is_symlink() else None
    if locks is None:
        return None
    manifest = read_manifest(folder) if locks.hold(IN_USE, shared=True) else None
    if manifest is None or not locks.is_current():
        locks.close()
        return None
    return FeatureStore(folder, manifest, locks)


def read_manifest(folder: Path) -> Manifest | None:
    """``store.json`` when it is sound, of this format, and belongs to this folder."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None
    if manifest.format != FORMAT or key_of(manifest.identity, manifest.names) != folder.name:
        return None
    return manifest


def create_store(
    card: Card, dataset: Dataset, precision: Precision, names: Sequence[str], *, batch: int, shard: int
) -> FeatureStore:
    """The store for these features; when another process creates it first, its batch and shards hold."""
    what = identity(card, dataset, precision)
    folder = features_root() / key_of(what, names)
    manifest = Manifest(
        format=FORMAT,
        identity=what,
        names=sorted(names),
        model=card.name,
        dataset=dataset.name,
        split=dataset.split,
        n=len(dataset),
        batch=batch,
        shard=shard,
        created=now(),
    )
    for _ in range(100):
        if (folder / MANIFEST).exists() and read_manifest(folder) is None:
            # Its name says format and content, so a manifest that does not fit is damaged: the shards mean nothing.
            remove(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refusal(error, folder) from error
        locks = LockFile(folder / LOCK)
        if locks.hold(IN_USE, shared=True):
            write_atomically(folder / MANIFEST, _text(manifest), exclusive=True)
            store = open_store(folder)
            locks.close()
            if store is not None:
                return store
        locks.close()
        time.sleep(0.05)  # it is being removed
    raise BenchError(f"the feature store {folder} cannot be opened: remove that folder and run again")


def find_stores(card: Card, dataset: Dataset, precision: Precision) -> Iterator[FeatureStore]:
    """The stores that hold any features of this backbone and data set, marked as in use."""
    digest = digest_of(identity(card, dataset, precision))[:32]
    root = features_root()
    for folder in sorted(root.glob(f"{digest}-*")) if root.is_dir() else ():
        store = open_store(folder)
        if store is not None and store.n == len(dataset):
            yield store


def remove(folder: Path) -> bool:
    """Remove a store that no live process uses; False when one does. Symbolic links are not followed."""
    locks = LockFile(folder / LOCK)
    try:
        if not locks.hold(IN_USE):
            return False
        # Out of sight first: a process that opens the name from now on starts a new store.
        grave = folder.with_name(f"{TEMPORARY}{folder.name}.{os.getpid()}-removed")
        try:
            os.rename(folder, grave)
        except OSError as error:
            raise BenchError(f"the feature store {folder} cannot be removed: {error.strerror}") from error
        shutil.rmtree(grave, ignore_errors=True)
        return True
    finally:
        locks.close()


def _text(manifest: Manifest) -> bytes:
    return (json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()
