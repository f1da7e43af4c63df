"""Time and memory of comparing two networks on 50 000 samples: CKA, mutual kNN, agreement with its intervals.

    python benchmarks/similarity.py [--samples 50000] [--widths 2048 768] [--classes 1000]

Set OMP_NUM_THREADS for the number of cores. Features are random with a common part, rectified like a pooled map.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from bench.bootstrap import resampled_sums
from suites import similarity_measures
from suites.predictions import answers, pair


def main() -> None:
    """Print seconds and peak memory after each stage."""
    parser = argparse.ArgumentParser(description="benchmark of similarity and agreement")
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--widths", type=int, nargs=2, default=[2048, 768])
    parser.add_argument("--classes", type=int, default=1000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    common = rng.standard_normal((args.samples, 32), dtype=np.float32)
    x, y = (rectified(common, width, rng) for width in args.widths)
    teacher = common @ rng.standard_normal((32, args.classes), dtype=np.float32)
    student = teacher + rng.standard_normal(teacher.shape, dtype=np.float32)
    target = teacher.argmax(axis=1)
    report("data", Clock())
    whole = Clock()
    for name in ("cka", "cka_debiased", "mutual_knn"):
        begun = Clock()
        value = similarity_measures.get(name).compute(x, y).value
        report(f"{name} {value:.6f}", begun)
    begun = Clock()
    found = pair([teacher], student, 4.0)
    right = answers([student], target, "the student").correct
    resampled_sums([np.stack([found.agree, found.kl, found.js, found.tv, right], axis=1)])
    report(f"agreement {100 * found.agree.mean():.2f} %, 10 000 resamples", begun)
    report("all", whole)


def rectified(common: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [N, width]."""
    x = common @ rng.standard_normal((common.shape[1], width), dtype=np.float32)
    x += 2 * rng.standard_normal(x.shape, dtype=np.float32)
    return np.maximum(x, 0, out=x)


class Clock:
    """Seconds since it was made: of the wall, and of the processor in all threads."""

    def __init__(self) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        """(wall, processor)."""
        return time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]


def report(what: str, begun: Clock) -> None:
    wall, processor = begun.seconds()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:50s} {wall:7.1f} s   processor {processor:7.1f} s   peak {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
