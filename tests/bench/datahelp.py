"""Small sets in every original format, made on the spot; and how to change one image or one label of each."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
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


def write_parquet(folder: Path) -> None:
    """12 + 6 rows as the ``datasets`` library writes them, with its types in the schema."""
    import datasets

    kinds = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog", "owl"]),
            "note": datasets.Value("string"),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    for base, (split, n) in zip((0, 100), SIZES.items(), strict=True):
        rows = {
            "image": [{"bytes": encoded(base + i), "path": f"{i}.png"} for i in range(n)],
            "label": [i % 3 for i in range(n)],
            "note": [f"n{i}" for i in range(n)],
        }
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


def tar(path: Path, files: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(base: int, start: int, stop: int, classes: int = 3) -> list[tuple[str, bytes]]:
    """Images and .cls of a webdataset shard."""
    return [
        file
        for i in range(start, stop)
        for file in ((f"s{i:04d}.png", encoded(base + i)), (f"s{i:04d}.cls", str(i % classes).encode()))
    ]


def write_shards(folder: Path) -> None:
    """12 + 6 samples in two shards and one."""
    tar(folder / "train-000.tar", samples(0, 0, 7))
    tar(folder / "train-001.tar", samples(0, 7, 12))
    tar(folder / "test-000.tar", samples(100, 0, 6))


def write_dtd(root: Path) -> None:
    """The Describable Textures as published: lists of ``class/file`` for ten partitions, train, val and test."""
    base = root / "dtd" / "dtd"
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for i in range(18):
        name = f"{('banded', 'dotted', 'woven')[i % 3]}/{i:04d}.jpg"
        put(base / "images" / name, encoded(i, "JPEG"))
        lists["test" if i >= 12 else ("train", "val")[i % 2]].append(name)
    for split, names in lists.items():
        put(base / "labels" / f"{split}1.txt", "\n".join(names).encode() + b"\n")
