"""kNN and the ridge path on a training set that stays on disk: time and peak memory of each, in a process of its own.

    python benchmarks/outofcore.py [--bank 1000000] [--queries 2000] [--width 384] [--classes 1000] [--folder DIR]

The features are generated into a feature store under DIR (a temporary folder without it), shard by shard, as an
extraction would leave them; the suites then read that store exactly as a run does.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from bench import protocol as protocols
from bench.card import Card
from bench.progress import Progress
from bench.registry import resolve
from bench.store import FeatureStore, create_store
from bench.storedset import StoredFeatureSet
from bench.suite import Task

CARD = Card(
    name="generated", spec="features:generated", architecture="features", family="features", dims={"pooled": 0},
    feature="x", weight_digest="sha256:0",
)  # fmt: skip
SHARD = 1 << 14


class Generated:
    """Samples without images: clusters about one centre a class."""

    name = "generated"

    def __init__(self, split: str, n: int, classes: int) -> None:
        self.split = split
        self.class_ids = tuple(range(classes))
        self.classes = tuple(map(str, self.class_ids))
        self.labels = np.random.default_rng([n, classes, split == "test"]).integers(0, classes, n)
        self.ids: Sequence[str] = [f"{split}/{i}" for i in range(n)]
        self.fingerprint = f"sha256:{split}{n}"

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> object:
        raise NotImplementedError


def main() -> None:
    """Make the store, then run each suite in a fresh process."""
    parser = argparse.ArgumentParser(description="benchmark of suites on features that stay on disk")
    parser.add_argument("--bank", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--folder")
    parser.add_argument("--suite", help="run this one on features that are there already")
    args = parser.parse_args()
    sets = [Generated("train", args.bank, args.classes), Generated("test", args.queries, args.classes)]
    if args.suite:
        evaluate(args.suite, [StoredFeatureSet(data, {"pooled": stored(data, args.width)}) for data in sets])
        return
    with tempfile.TemporaryDirectory() as made:
        os.environ["BENCH_CACHE"] = args.folder or made
        for data in sets:
            stored(data, args.width)
        for suite in ("knn", "ridge"):
            subprocess.run([sys.executable, *sys.argv, "--suite", suite], check=True)


def stored(data: Generated, width: int) -> FeatureStore:
    """The store of ``data``, its missing shards made."""
    store = create_store(
        CARD.model_copy(update={"dims": {"pooled": width}}), data, "fp32", ["pooled"], batch=256, shard=SHARD
    )  # fmt: skip
    centres = np.random.default_rng(0).standard_normal((len(data.classes), width), dtype=np.float32)
    for shard in store.missing():
        start, stop = store.span(shard)
        x = np.random.default_rng([shard, len(data)]).standard_normal((stop - start, width), dtype=np.float32)
        x = np.maximum(3 * x + centres[data.labels[start:stop]], 0)
        if store.claim(shard):
            store.write(shard, {"pooled": x}, [], {})
            store.release(shard)
    return store


def evaluate(suite: str, sets: list[StoredFeatureSet]) -> None:
    """Run one suite and print its headline, its time and this process' peak memory."""
    before = peak()
    wall, cpu = time.perf_counter(), time.process_time()
    card = protocols.get(suite)
    task = Task(card, CARD, dict(zip(("train", "test"), sets, strict=True)), 0, "cpu", Progress(quiet=True))
    (headline,) = [m for m in resolve("suites", suite)().evaluate(task) if m.headline]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    train = sets[0]
    print(
        f"{suite}: {len(train)} x {train.widths['pooled']}, {len(sets[1])} queries: {headline.metric} "
        f"{headline.value:.2f}, {wall:.1f} s wall, {cpu:.1f} s processor, peak {peak():.2f} GB "
        f"({before:.2f} GB before it began)",
        flush=True,
    )


def peak() -> float:
    """GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
