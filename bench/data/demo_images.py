"""``demo``: a balanced part of Fashion-MNIST that comes with the package (MIT, Zalando SE; see ``demo/LICENSE``)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

from bench.data.arrays import ArrayDataset
from bench.data.idx import CLASSES
from bench.dataset import Splits
from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np


def open_demo(rest: str) -> Splits:
    """2 000 train and 1 000 test images of 28 x 28, 10 classes; made by ``scripts/make_demo_data.py``."""
    if rest:
        raise BenchError(f"the data set 'demo' takes no path: 'demo:{rest}'")
    train, test = (ArrayDataset("demo", split, pixels, labels, CLASSES) for split, pixels, labels in _arrays())
    return Splits(train, test)


def _arrays() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(split, pixels uint8 [N, 28, 28], labels int64 [N]), copies that every reader may change."""
    stored = _unpacked()
    for split in ("train", "test"):
        yield split, stored[f"{split}_x"].copy(), stored[f"{split}_y"].copy()


@functools.cache
def _unpacked() -> dict[str, np.ndarray]:
    """Once in a process: a sweep opens them for every run."""
    import io

    import numpy as np

    content = files("bench.data").joinpath("demo", "images.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)
