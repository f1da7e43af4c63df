"""The logistic path against scikit-learn fitted cold at every penalty: time, and test accuracy at each C.

    python benchmarks/logistic.py [--images 20000] [--points 45] [--data fashion-mnist] [--max-iter 1000]

The first images of the training split as pixels / 255, all of the test split; penalties C are the card's
(10^linspace(-6, 5)). Both run in this process, with the same threads (OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings

import numpy as np
import torch

from bench.data.opening import open_data
from bench.dataset import Dataset
from suites.logreg_path import Path


def main() -> None:
    """Print a line per penalty, then both times and their ratio."""
    parser = argparse.ArgumentParser(description="benchmark of the logistic path")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--points", type=int, default=45)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--max-iter", type=int, default=1000)
    parser.add_argument("--tol", type=float, default=1e-4, help="the card's path_tol; scikit-learn's own is 1e-4")
    args = parser.parse_args()
    train, held = open_data(args.data)
    x, y = pixels(train, args.images)
    test, target = pixels(held, None)
    grid = [float(c) for c in 10 ** np.linspace(-6, 5, args.points)]
    print(f"{len(x)} x {x.shape[1]} pixels, {len(grid)} penalties, {torch.get_num_threads()} threads", flush=True)

    begun = clock()
    fits = Path(x, y, int(y.max()) + 1).fit(grid, tol=args.tol, max_iter=args.max_iter)
    ours = elapsed(begun)
    print(f"ours: {ours[0]:.1f} s wall, {ours[1]:.1f} s processor", flush=True)
    cold = cold_fits(x, y, grid, args.tol, args.max_iter)
    peer = np.zeros(2)
    for fit in fits:
        begun = clock()
        right, iterations = scikit_learn(x, y, test, target, fit.C, args.max_iter)
        peer += elapsed(begun)
        mine = 100 * float((fit.logits(test).argmax(axis=1) == target).mean())
        late = "" if iterations < args.max_iter else "  (scikit-learn not converged)"
        print(
            f"C {fit.C:9.3g}  ours {mine:.2f} ({fit.iterations:4d} iterations)   scikit-learn {right:.2f} "
            f"({iterations:4d})  difference {mine - right:+.2f}{late}",
            flush=True,
        )
    print(f"scikit-learn: {peer[0]:.1f} s wall, {peer[1]:.1f} s processor")
    print(f"scikit-learn / ours: {peer[0] / ours[0]:.1f} wall, {peer[1] / ours[1]:.1f} processor")
    print(f"ours without warm starts: {cold:.1f} s processor ({cold / ours[1]:.1f} times the path)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def pixels(data: Dataset, first: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [N, H W] in 0..1, int64 [N])."""
    n = len(data) if first is None else min(first, len(data))
    x = np.stack([np.asarray(data.image(i).convert("L"), dtype=np.float32).ravel() / 255 for i in range(n)])
    return x, np.asarray(data.labels)[:n].astype(np.int64)


def scikit_learn(
    x: np.ndarray, y: np.ndarray, test: np.ndarray, target: np.ndarray, c: float, max_iter: int
) -> tuple[float, int]:
    """(test top-1 in percent, iterations) of one cold fit."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=max_iter).fit(x, y)
    return 100 * float((model.predict(test) == target).mean()), int(model.n_iter_.max())


def cold_fits(x: np.ndarray, y: np.ndarray, grid: list[float], tol: float, max_iter: int) -> float:
    """Processor seconds of our own fits, each begun at zero."""
    path = Path(x, y, int(y.max()) + 1)
    begun = clock()
    for c in grid:
        path.fit([c], tol=tol, max_iter=max_iter)
    return float(elapsed(begun)[1])


def clock() -> np.ndarray:
    """(wall, processor) seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def elapsed(begun: np.ndarray) -> np.ndarray:
    return clock() - begun


if __name__ == "__main__":
    main()
