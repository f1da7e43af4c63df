"""Sets with many labels an image: one-vs-rest logistic regression, one penalty for all classes, mean AP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.suite import engine_of
from suites.average_precision import mean_average_precision
from suites.classification import features_of
from suites.linear import grid_of, prepared
from suites.validation import held_of

if TYPE_CHECKING:
    from bench.record import Measurement
    from bench.suite import Task

POINTS = 11


def evaluate(task: Task, facts: dict[str, Any]) -> Iterator[Measurement]:
    """The 11-point mean AP of the penalty that does best on the validation part, refitted on all of train.

    Samples that are difficult for a class (label 0) count for it neither in learning nor in the score.
    """
    settings = task.settings
    train, test = task.data["train"], task.data["test"]
    x, seen = (prepared(features_of(data, "pooled"), settings["normalise"]) for data in (train, test))
    grid = grid_of(settings)
    chosen, path = grid[0], []
    if len(grid) > 1:
        held = held_of(task, train)
        scores = one_vs_rest(task, x[~held], train.labels[~held], x[held], grid, settings["path_tol"])
        for c, found in zip(grid, scores, strict=True):
            value, _, _ = mean_average_precision(found, train.labels[held], POINTS, replicates=0)
            path.append({"C": c, "holdout_map11": 100 * value})
        if not all(np.isfinite(point["holdout_map11"]) for point in path):
            raise BenchError(
                f"the validation part of {train.dataset} shows no class at all: set {task.protocol.suite}.C"
            )
        chosen = max(path, key=lambda point: (point["holdout_map11"], -point["C"]))["C"]
    (final,) = one_vs_rest(task, x, train.labels, seen, [chosen], settings["tol"])
    value, each, interval = mean_average_precision(final, test.labels, POINTS, seed=task.seed)
    if interval is None:
        raise BenchError(f"{test.dataset} {test.split} shows no class at all: average precision says nothing")
    names = [test.classes.get(c, str(c)) for c in range(len(each))]
    yield task.measure(
        "map11", 100 * value, n=len(test), engine=engine_of("torch", "bench-lbfgs+torch"), headline=True,
        interval=(100 * interval[0], 100 * interval[1]), interval_method="bootstrap over images",
        selection="holdout" if path else "none", seeds=[task.seed],
        feature={**task.feature(), "norm": settings["normalise"]},
        details={
            "path": path, "chosen": chosen, **facts,
            "per_class": {name: 100 * ap for name, ap in zip(names, each, strict=True) if ap is not None},
        },
    )  # fmt: skip


def one_vs_rest(
    task: Task, x: np.ndarray, targets: np.ndarray, seen: np.ndarray, grid: list[float], tol: float
) -> list[np.ndarray]:
    """For every C of ``grid`` the classes' scores float32 [len(seen), C] of logistic regressions learnt on ``x``.

    ``targets`` [N, C] of 1, 0 (left out) and -1. A class that train shows never, or always, scores every sample alike.
    """
    from suites.logreg_path import Path

    classes = targets.shape[1]
    found = [np.zeros((len(seen), classes), dtype=np.float32) for _ in grid]
    with task.progress.stage("one-vs-rest", classes, "classes") as stage:
        for c in range(classes):
            rows = np.flatnonzero(targets[:, c] != 0)
            y = (targets[rows, c] == 1).astype(np.int64)
            if 0 < y.sum() < len(y):
                fits = Path(x[rows], y, 2, task.device).fit(grid, tol=tol, max_iter=task.settings["max_iter"])
                for out, fit in zip(found, fits, strict=True):
                    logits = fit.logits(seen)
                    out[:, c] = logits[:, 1] - logits[:, 0]
            stage.advance()
    return found
