"""Looking after the feature store: what is there, checking it, trimming it, removing it.

Nothing outside `bench.cache.cache_root` is touched, symbolic links are not followed, and a store that a live process
uses is left alone.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.files import TEMPORARY
from bench.locks import LockFile
from bench.store import FORMAT, IN_USE, LOCK, MANIFEST, features_root, open_store, read_manifest, remove

STALE = 24 * 3600.0
"""Seconds after which an unfinished file is taken for abandoned although somebody uses its store."""

_FOLDER = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}")


class StoreInfo(NamedTuple):
    """One row of ``bench list features``."""

    key: str
    model: str
    dataset: str
    split: str
    precision: str
    features: str
    n: int
    bytes: int
    complete: bool
    last_used: str
    """UTC, ISO 8601."""
    note: str = ""
    """Why the store is not used, where it is not."""


@dataclass
class Report:
    """What `clean` did; its text is a few lines for people."""

    folder: Path
    removed: list[str] = field(default_factory=list)
    freed: int = 0
    kept: int = 0
    in_use: list[str] = field(default_factory=list)
    checked: int = 0
    damaged: dict[str, list[int]] = field(default_factory=dict)
    """Key -> shards that failed their checksum and were removed."""
    leftovers: int = 0
    """Unfinished files of dead processes that were removed."""
    left: int = 0
    """Bytes that remain."""

    def __str__(self) -> str:
        lines = []
        if self.checked:
            bad = sum(len(shards) for shards in self.damaged.values())
            lines.append(f"{self.checked} stores checked: {bad} damaged shards{' removed' if bad else ''}")
            lines += [f"  {key}: shards {', '.join(map(str, shards))}" for key, shards in self.damaged.items()]
        if self.removed or not self.checked:
            lines.append(f"{len(self.removed)} stores removed, {_size(self.freed)} freed")
        if self.leftovers:
            lines.append(f"{self.leftovers} unfinished files of ended processes removed")
        if self.in_use:
            lines.append(f"{len(self.in_use)} stores are in use by running processes and were left alone")
        lines.append(f"{self.folder}: {self.kept} stores, {_size(self.left)}")
        return "\n".join(lines)


def stores() -> list[StoreInfo]:
    """Every store there is, most recently used first; one of another format is named as such and never read."""
    return sorted((_info(folder) for folder in _folders()), key=lambda info: info.last_used, reverse=True)


def clean(verify: bool = False, keep_gb: float | None = None) -> Report:
    """Remove the whole feature store; or ``verify`` every checksum, and trim to ``keep_gb`` (10^9 bytes).

    ``verify`` removes damaged shards alone: the next run makes them again. Trimming removes whole stores, the least
    recently used first. Unfinished files of dead processes go in every case.
    """
    if keep_gb is not None and not 0 <= keep_gb < math.inf:
        raise BenchError(f"--keep-gb takes a number of gigabytes of at least 0, not {keep_gb}")
    root = features_root()
    report = Report(root)
    report.leftovers = sum(sweep(folder) for folder in [root, *_folders()])
    if verify:
        _verify(report)
    if keep_gb is not None:
        trim(keep_gb * 1e9, report)
    elif not verify:
        trim(0, report)
    left = stores()
    report.kept, report.left = len(left), sum(info.bytes for info in left)
    return report


def trim(limit: float, report: Report | None = None) -> Report:
    """Remove stores, the least recently used first, until at most ``limit`` bytes remain or the rest is in use."""
    report = report if report is not None else Report(features_root())
    infos = sorted(stores(), key=lambda info: info.last_used)
    total = sum(info.bytes for info in infos)
    for info in infos:
        # A limit of zero takes the empty ones too.
        if total <= limit and limit > 0:
            break
        if remove(features_root() / info.key):
            total -= info.bytes
            report.removed.append(info.key)
            report.freed += info.bytes
        else:
            report.in_use.append(info.key)
    return report


def sweep(folder: Path) -> int:
    """Remove what writers that no longer live left unfinished in ``folder``; returns how many.

    The lock on a store tells the living from the dead on every machine that shares it; process numbers would not.
    """
    leftovers = [entry for entry in _entries(folder) if entry.name.startswith(TEMPORARY)]
    if not leftovers:
        return 0
    locks = LockFile(folder / LOCK) if folder != features_root() else None
    idle = locks is None or locks.hold(IN_USE)
    count = 0
    for entry in leftovers:
        if not idle and not _is_old(entry):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
            count += 1
        except OSError:
            continue  # another sweep was first
    if locks is not None:
        locks.close()
    return count


def _verify(report: Report) -> None:
    for folder in _folders():
        store = open_store(folder)
        if store is None:
            continue
        try:
            report.checked += 1
            damaged = store.verify(again=True)
        finally:
            store.close()
        if damaged:
            report.damaged[store.key] = damaged


def _info(folder: Path) -> StoreInfo:
    size, shards, used = 0, 0, 0.0
    for entry in _entries(folder):
        status = entry.stat(follow_symlinks=False)
        size += status.st_size if stat.S_ISREG(status.st_mode) else 0
        shards += entry.name.endswith(".safetensors") and not entry.name.startswith(TEMPORARY)
        if entry.name in {LOCK, MANIFEST}:
            used = max(used, status.st_mtime)
    when = datetime.fromtimestamp(used, UTC).isoformat(timespec="milliseconds")
    manifest = read_manifest(folder)
    if manifest is None:
        return StoreInfo(folder.name, "?", "?", "?", "?", "?", 0, size, False, when, _foreign(folder))
    return StoreInfo(
        key=folder.name,
        model=manifest.model,
        dataset=manifest.dataset,
        split=manifest.split,
        precision=str(manifest.identity.get("precision")),
        features=",".join(manifest.names),
        n=manifest.n,
        bytes=size,
        complete=shards >= -(-manifest.n // manifest.shard),
        last_used=when,
    )


def _foreign(folder: Path) -> str:
    """Why a store cannot be used."""
    try:
        document: Any = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return "no sound store.json: `bench clean` removes it"
    found = document.get("format") if isinstance(document, dict) else None
    if isinstance(found, int) and found != FORMAT:
        age = "an older" if found < FORMAT else "a newer"
        return f"format {found} of {age} bench (this one writes {FORMAT}): not used"
    return "store.json is damaged: the next run starts it afresh"


def _folders() -> list[Path]:
    root = features_root()
    if root.is_symlink():
        raise BenchError(f"{root} is a symbolic link, which is not followed: set BENCH_CACHE to the folder it names")
    return sorted(
        Path(entry.path)
        for entry in _entries(root)
        if entry.is_dir(follow_symlinks=False) and (_FOLDER.fullmatch(entry.name) or _has_manifest(entry))
    )


def _has_manifest(entry: os.DirEntry[str]) -> bool:
    # Other formats may name their folders otherwise.
    return not entry.name.startswith(TEMPORARY) and os.path.isfile(os.path.join(entry.path, MANIFEST))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BenchError(f"{folder} cannot be read: {error.strerror}") from error


def _is_old(entry: os.DirEntry[str]) -> bool:
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE
    except OSError:
        return False


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
