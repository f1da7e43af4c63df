"""Where each file lies inside a tar shard: read once from the headers, remembered, and then any sample is one seek."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from bench.cache import cache_root
from bench.errors import BenchError
from bench.files import regular, write_atomically

_BLOCK = 512
_FORMAT = 1


class Member(NamedTuple):
    """A file inside a tar: ``size`` bytes at ``offset``."""

    name: str
    offset: int
    size: int


def members(shard: Path) -> list[Member]:
    """The regular files of an uncompressed tar, in order; folders, links and hidden files (``._x``) are left out.

    Remembered under ``<cache>/webdataset`` by path, size and time of change. Raises `BenchError` for a shard that is
    compressed, no tar, damaged, or cut off (also at the border of a file, where the end mark is missing).
    """
    try:
        stat = regular(shard)
    except OSError as error:
        raise _unreadable(shard, error) from None
    stamp = [_FORMAT, stat.st_size, stat.st_mtime_ns]
    key = hashlib.sha256(os.fsencode(shard.resolve())).hexdigest()[:32]
    memory = cache_root() / "webdataset" / f"{key}.json"
    known = _remembered(memory, stamp)
    if known is not None:
        return known
    found = _read(shard)
    content = json.dumps([[member.name, member.offset, member.size] for member in found])
    check = hashlib.sha256(content.encode()).hexdigest()
    # A memory that cannot be kept is only slower next time.
    with contextlib.suppress(BenchError):
        write_atomically(memory, json.dumps({"stamp": stamp, "check": check, "members": content}).encode())
    return found


def _remembered(memory: Path, stamp: list[int]) -> list[Member] | None:
    try:
        kept: dict[str, Any] = json.loads(memory.read_bytes())
        if kept["stamp"] != stamp or hashlib.sha256(kept["members"].encode()).hexdigest() != kept["check"]:
            return None
        return [Member(*row) for row in json.loads(kept["members"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Not there yet, or damaged: made again.
        return None


def _read(shard: Path) -> list[Member]:
    try:
        with open(shard, "rb") as stream:
            head = stream.read(4)
            if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head == b"\xfd7zX" or head == b"\x28\xb5\x2f\xfd":
                raise BenchError(
                    f"webdataset: {shard} is compressed, so no sample can be found by itself: unpack it to .tar"
                )
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                found = [
                    Member(info.name, info.offset_data, info.size)
                    for info in archive
                    if info.isreg() and not info.issparse() and not info.name.rpartition("/")[2].startswith(".")
                ]
                end = archive.offset
            # tarfile takes a damaged head, or the end of a shard that was cut off, for the end of the archive.
            stream.seek(end)
            mark = stream.read(_BLOCK)
    except tarfile.TarError as error:
        raise BenchError(
            f"webdataset: {shard} is no tar file, or is damaged or cut off ({error}): provide it again"
        ) from None
    except OSError as error:
        raise _unreadable(shard, error) from None
    if len(mark) < _BLOCK:
        raise BenchError(
            f"webdataset: {shard} is cut off after {end:,} bytes (the end mark is missing): provide it again"
        )
    if any(mark):
        raise BenchError(f"webdataset: {shard} is damaged at byte {end:,} (no file's head there): provide it again")
    return found


def _unreadable(shard: Path, error: OSError) -> BenchError:
    return BenchError(f"webdataset: {shard} cannot be read: {error.strerror or error}")
