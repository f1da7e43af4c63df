"""A record of a zip archive, bounded in what it may unpack to."""

from __future__ import annotations

import io
import zipfile
from typing import cast

from adapters.unpickling import Refused

# PyTorch stores its records unpacked; a packed one may hold this many times the bytes that it takes.
_PACKED = 20


def record(archive: zipfile.ZipFile, name: str) -> bytearray:
    """A record of a zip archive, whole. Raises `Refused` for one that would unpack without measure."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"its record {name[:80]!r} is packed in a way that PyTorch never uses")
    if info.file_size > _PACKED * info.compress_size + (1 << 16):
        raise Refused(f"its record {name[:80]!r} unpacks to {info.file_size:,} bytes from {info.compress_size:,}")
    data = bytearray(info.file_size)
    with cast(io.BufferedIOBase, archive.open(info)) as stream:
        filled = stream.readinto(data)
        while filled < len(data):
            more = stream.readinto(memoryview(data)[filled:])
            if not more:
                raise EOFError(f"record {name[:80]!r} ends early")
            filled += more
        stream.read(1)  # the end of the record is where its check sum is compared
    return data
