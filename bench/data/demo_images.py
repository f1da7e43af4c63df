"""``demo``: a balanced part of Fashion-MNIST that comes with the package (MIT, Zalando SE; see ``demo/LICENSE``)."""

from __future__ import annotations

from importlib.resources import files

from bench.data.arrays import ArrayDataset
from bench.data.idx import CLASSES
from bench.dataset import Splits
from bench.errors import BenchError


def open_demo(rest: str) -> Splits:
    """2 000 train and 1 000 test images of 28 x 28, 10 classes; made by ``scripts/make_demo_data.py``."""
    if rest:
        raise BenchError(f"the data set 'demo' takes no path: 'demo:{rest}'")
    import io

    import numpy as np

    content = files("bench.data").joinpath("demo", "images.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        train, test = (
            ArrayDataset("demo", split, stored[f"{split}_x"], stored[f"{split}_y"], CLASSES)
            for split in ("train", "test")
        )
    return Splits(train, test)
