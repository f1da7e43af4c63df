"""Small sets in every original format, made on the spot; and how to change one image or one label of each."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"train": 12, "test": 6}


def pixels(seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(seed: int, kind: str = "PNG", size: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(stream, kind)
    return stream.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, sizes: dict[str, int] | None = None, *, packed: bool = True) -> None:
    """Fashion-MNIST's four files, with few images."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, n in zip(("train", "t10k"), (sizes or SIZES).values(), strict=True):
        rng = np.random.default_rng(n)
        for name, array in (
            (f"{stem}-images-idx3-ubyte", rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)),
            (f"{stem}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8)),
        ):
            content = idx(array)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / name).write_bytes(content)


def write_imagefolder(folder: Path, classes: tuple[str, ...] = ("cat", "dog", "éléphant 象")) -> None:
    """12 + 6 images, in three classes."""
    for base, (split, n) in zip((0, 100), SIZES.items(), strict=True):
        for i in range(n):
            put(folder / split / classes[i % len(classes)] / f"{split}{i:02d}.png", encoded(base + i))
