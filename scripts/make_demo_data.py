"""Make ``bench/data/demo/images.npz``: 200 train and 100 test images a class, the first ones of Fashion-MNIST's files.

    python scripts/make_demo_data.py [FOLDER WITH THE IDX FILES]

The result is the same, byte for byte, wherever it is made.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

from bench.data.idx import open_fashion_mnist

TARGET = Path(__file__).resolve().parents[1] / "bench" / "data" / "demo" / "images.npz"
PER_CLASS = {"train": 200, "test": 100}


def main() -> None:
    """Write the file and say its size."""
    arrays = {}
    for dataset in open_fashion_mnist(sys.argv[1] if len(sys.argv) > 1 else ""):
        chosen = np.sort(
            np.concatenate([np.flatnonzero(dataset.labels == c)[: PER_CLASS[dataset.split]] for c in range(10)])
        )
        arrays[f"{dataset.split}_x"] = np.stack([np.asarray(dataset.image(int(i)).convert("L")) for i in chosen])
        arrays[f"{dataset.split}_y"] = dataset.labels[chosen].astype(np.uint8)
    with zipfile.ZipFile(TARGET, "w") as archive:
        for name, array in arrays.items():
            # A fixed date: numpy's own writer would put today's in.
            entry = zipfile.ZipInfo(f"{name}.npy", (2017, 8, 28, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
