"""Shards: the features of a fixed range of samples in one safetensors file, with a checksum for every array."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.files import write_atomically

PIECE = 1 << 20
"""Bytes that are read at a time."""
LONGEST_TABLE = 100_000_000
"""Bytes of a safetensors header, at most, as the format has it."""


class Corrupt(NamedTuple):
    """An image that cannot be decoded: its number in the data set, its path, and what the decoder said."""

    sample: int
    path: str
    reason: str


class Array(BaseModel):
    """One array of a shard. ``same_as``: it equals that array bit for bit and is stored once."""

    model_config = ConfigDict(extra="forbid")
    sha256: str
    shape: tuple[int, int]
    same_as: str | None = None


class Header(BaseModel):
    """What a shard says of itself; rows are the samples of [start, stop) without the corrupt ones."""

    model_config = ConfigDict(extra="forbid")
    store: str
    start: int
    stop: int
    corrupt: list[Corrupt]
    arrays: dict[str, Array]
    batch: int
    made: dict[str, Any]
    """Device, threads and torch's version: provenance only."""

    @property
    def rows(self) -> int:
        return self.stop - self.start - len(self.corrupt)

    def stored_as(self, name: str) -> str:
        return self.arrays[name].same_as or name


class DamagedShard(Exception):
    """A shard that is truncated, altered, or not the one that belongs at its place."""


def write_shard(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    store: str,
    span: tuple[int, int],
    corrupt: Sequence[Corrupt] = (),
    batch: int,
    made: Mapping[str, Any],
) -> None:
    """Write float32 [rows, D] ``arrays`` whole or not at all; equal arrays share their bytes.

    Raises `BenchError` for a full disk or an unwritable folder.
    """
    from safetensors.numpy import save

    described: dict[str, Array] = {}
    stored: dict[str, np.ndarray] = {}
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype=np.float32)
        digest = _sha256(array)
        twin = next((other for other in stored if described[other].sha256 == digest), None)
        twin = twin if twin is not None and stored[twin].shape == array.shape else None
        described[name] = Array(sha256=digest, shape=array.shape, same_as=twin)
        if twin is None:
            stored[name] = array
    header = Header(
        store=store,
        start=span[0],
        stop=span[1],
        corrupt=list(corrupt),
        arrays=described,
        batch=batch,
        made=dict(made),
    )
    text = header.model_dump_json()
    metadata = {"header": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    write_atomically(path, save(stored, metadata))


def read_header(path: Path, *, store: str, span: tuple[int, int]) -> Header:
    """The header of the shard at ``path``; `DamagedShard` when it is not sound or belongs elsewhere."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            text = metadata.get("header", "")
            if hashlib.sha256(text.encode()).hexdigest() != metadata.get("sha256"):
                raise DamagedShard(f"{path}: the header does not match its checksum")
            header = Header.model_validate_json(text)
            for name, array in header.arrays.items():
                if array.same_as is None and tuple(file.get_slice(name).get_shape()) != array.shape:
                    raise DamagedShard(f"{path}: '{name}' has another shape than its header says")
    except (SafetensorError, ValidationError, ValueError, OSError) as error:
        raise DamagedShard(f"{path}: {error}") from error
    if (header.store, header.start, header.stop) != (store, *span):
        raise DamagedShard(f"{path} is a shard of something else")
    if any(array.shape[0] != header.rows for array in header.arrays.values()):
        raise DamagedShard(f"{path}: the number of rows is not that of its samples")
    return header


def verify_shard(path: Path, header: Header, names: Iterable[str]) -> None:
    """Read ``names`` and compare their checksums; `DamagedShard` when one differs or cannot be read."""
    for name in sorted({header.stored_as(name) for name in names}):
        digest = hashlib.sha256()
        rows, width = header.arrays[name].shape
        # Piece by piece through memory that the processor keeps near: a fresh page costs more than its checksum.
        piece = memoryview(bytearray(PIECE))
        with _array(path, name) as stream:
            left = 4 * rows * width
            while left:
                got = stream.readinto(piece[: min(left, PIECE)])
                if not got:
                    raise DamagedShard(f"{path}: '{name}' ends too early")
                digest.update(piece[:got])
                left -= got
        if digest.hexdigest() != header.arrays[name].sha256:
            raise DamagedShard(f"{path}: '{name}' does not match its checksum")


def read_rows(path: Path, header: Header, name: str, rows: slice = slice(None)) -> np.ndarray:
    """float32 [rows, D]: consecutive rows of one array, read from the file. `DamagedShard` when they cannot be read."""
    name = header.stored_as(name)
    count, width = header.arrays[name].shape
    start, stop, _ = rows.indices(count)
    part = np.empty((max(0, stop - start), width), dtype=np.float32)
    with _array(path, name) as stream:
        stream.seek(4 * start * width, os.SEEK_CUR)
        if stream.readinto(part.reshape(-1).view(np.uint8).data) != part.nbytes:
            raise DamagedShard(f"{path}: '{name}' ends too early")
    return part


@contextmanager
def _array(path: Path, name: str) -> Iterator[BufferedReader]:
    """The file at the first byte of an array. `DamagedShard` for whatever goes wrong while it is open.

    The library maps files into memory, where every page of a large array is a fault of its own: reading them cost up to
    three times as much, and more the less memory the machine had to spare. Its format is a length, a table, the bytes.
    """
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > LONGEST_TABLE:
                raise DamagedShard(f"{path}: its table is damaged")
            described = json.loads(stream.read(length))[name]
            if described["dtype"] != "F32":
                raise DamagedShard(f"{path}: '{name}' is {described['dtype']}, not float32")
            stream.seek(8 + length + described["data_offsets"][0])
            yield stream
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DamagedShard(f"{path}: {error}") from error


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()
