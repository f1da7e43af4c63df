"""IDX files: Fashion-MNIST as published (``train-images-idx3-ubyte.gz`` and its kin, packed or not)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from bench.data.arrays import ArrayDataset
from bench.data.opening import data_folders, not_found
from bench.dataset import Splits
from bench.errors import BenchError
from bench.files import at_home, regular

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_SYSTEM = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""
_LARGEST = 2**31
"""Bytes after unpacking, against archives that grow without end."""


def open_fashion_mnist(rest: str) -> Splits:
    """Fashion-MNIST (Xiao et al. 2017): 60 000 train and 10 000 test images of 28 x 28, 10 classes.

    ``rest``: the folder with the four files; empty: ``$BENCH_DATA/fashion-mnist`` or the system's own.
    """
    looked = [at_home(rest)] if rest else [*data_folders("fashion-mnist"), _SYSTEM]
    for folder in looked:
        if _find(folder, "train-images-idx3-ubyte") is not None:
            return Splits(_split(folder, "train", "train"), _split(folder, "test", "t10k"))
    raise not_found(
        "fashion-mnist",
        looked,
        "put train-images-idx3-ubyte.gz and the other three files there, or install Debian's dataset-fashion-mnist",
    )


def _split(folder: Path, split: str, stem: str) -> ArrayDataset:
    images = read_idx(_need(folder, f"{stem}-images-idx3-ubyte"), ndim=3)
    labels = read_idx(_need(folder, f"{stem}-labels-idx1-ubyte"), ndim=1)
    if len(images) != len(labels):
        raise BenchError(f"{folder}: {stem} has {len(images)} images but {len(labels)} labels")
    if len(labels) and labels.max() >= len(CLASSES):
        raise BenchError(f"{folder}: {stem} has the label {labels.max()}, but there are {len(CLASSES)} classes")
    return ArrayDataset("fashion-mnist", split, images, labels, CLASSES)


def read_idx(path: Path, *, ndim: int) -> np.ndarray:
    """The uint8 array of an IDX file, gzip-packed or not (the content decides, not the name).

    Raises `BenchError` when it is no IDX file of unsigned bytes with ``ndim`` dimensions, or is not whole.
    """
    try:
        regular(path)
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if packed else file as stream:
                head = stream.read(4 + 4 * ndim)
                if len(head) < 4 + 4 * ndim or head[:4] != bytes([0, 0, 8, ndim]):
                    raise BenchError(f"{path} is not an IDX file of unsigned bytes in {ndim} dimensions")
                shape = tuple(int(n) for n in np.frombuffer(head, dtype=">u4", offset=4))
                expected = math.prod(shape)
                if expected > _LARGEST:
                    raise BenchError(f"{path} promises {shape}, more than {_LARGEST >> 30} GiB: provide it again")
                # One byte more than promised, to see that nothing follows.
                body = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        reason = str(error) or "it does not fit in memory"
        raise BenchError(f"{path} cannot be read ({reason}): provide the file again") from None
    if len(body) != expected:
        holds = f"only {len(body)}" if len(body) < expected else "more"
        raise BenchError(f"{path} promises {shape}, which is {expected} bytes, but holds {holds}: provide it again")
    if 0 in shape[1:]:
        raise BenchError(f"{path} holds images without pixels {shape}: provide it again")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _find(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _need(folder: Path, stem: str) -> Path:
    path = _find(folder, stem)
    if path is None:
        raise BenchError(f"{folder} lacks {stem}.gz (or {stem}), one of the four files of Fashion-MNIST")
    return path
