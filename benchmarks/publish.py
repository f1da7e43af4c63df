"""Time of `bench publish` by the number of records: how it grows, and the size of the board.

    python benchmarks/publish.py [--records 250 1000 2000] [--samples 500]

Records are made up: five kNN settings and a linear probe each, with outcomes, a model of its own for every record.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.card import Card
from bench.ledger import Ledger, artifact
from bench.record import Engine, Measurement, Record
from bench.stats import wilson
from reports.site import publish

SETTINGS = ("k10", "k20", "k50", "k100", "k200", "linear")


def main() -> None:
    """Print seconds, seconds per record by those of the smallest ledger, the board's size and the peak of memory."""
    parser = argparse.ArgumentParser(description="benchmark of publishing")
    parser.add_argument("--records", type=int, nargs="+", default=[250, 1000, 2000])
    parser.add_argument("--samples", type=int, default=500)
    args = parser.parse_args()
    first = None
    print("| records | seconds | per record, by the smallest | index.html | peak memory |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for number in sorted(args.records):
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder) / "runs", number, args.samples)
            begun = time.perf_counter()
            summary = publish(Path(folder) / "runs", Path(folder) / "site")
            seconds = time.perf_counter() - begun
            first = first or seconds / number
            size = summary.page.stat().st_size / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"| {number:,} | {seconds:.1f} | {seconds / number / first:.2f} | {size:.2f} MB | {peak:.2f} GB |",
            flush=True,
        )


def fill(runs: Path, number: int, samples: int) -> None:
    """``number`` records of as many networks on the same ``samples``."""
    labels = np.random.default_rng(0).integers(0, 10, samples)
    for index in range(number):
        rng = np.random.default_rng(index + 1)
        name = f"net-{index}"
        run = f"run-{index:05d}"
        tables = {}
        measurements = []
        for setting in SETTINGS:
            right = rng.random(samples) < rng.uniform(0.5, 0.9)
            prediction = np.where(right, labels, (labels + 1) % 10)
            tables[setting] = {"label": labels, "prediction": prediction, "correct": right, "correct5": right}
            measurements.append(measurement(run, setting, int(right.sum()), samples))
        card = Card(
            name=name, spec=name, method="dino", architecture="resnet50", family="cnn", dims={"pooled": 2048},
            feature="avg", parameters=23_508_032, weight_digest="sha256:" + hashlib.sha256(name.encode()).hexdigest(),
        )  # fmt: skip
        record = Record(
            run=run, name=name, seed=0, created="2026-01-01T00:00:00Z", model=card, measurements=measurements
        )  # fmt: skip
        Ledger(runs).add(record, tables)


def measurement(run: str, setting: str, right: int, n: int) -> Measurement:
    low, high = wilson(right, n)
    suite = "linear" if setting == "linear" else "knn"
    return Measurement(
        suite=suite, protocol=f"{suite}/benchmark@1", dataset="made-up", split="test", fingerprint="sha256:0",
        metric="top1", value=100 * right / n, unit="%", higher_is_better=True, n=n, interval=(100 * low, 100 * high),
        interval_method="wilson", settings={} if suite == "linear" else {"k": int(setting[1:])},
        headline=setting in ("k20", "linear"), engine=Engine(name="numpy", version="2"),
        outcomes=artifact(run, setting),
    )  # fmt: skip


if __name__ == "__main__":
    main()
