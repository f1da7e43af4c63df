"""Ridge probe: least squares on one-hot targets, every penalty from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.errors import BenchError
from bench.options import EXPONENT, SHARE, Allowed, count, positive
from bench.suite import Needs, engine_of
from suites.classification import Labels, accuracies, features_of, labels_of
from suites.linear import holdout

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

ROWS = 8192
"""Rows turned to float64 at once."""


class Ridge:
    """Top-1, top-5 and mean-per-class of the refitted probe; the swept path is in ``details``."""

    name = "ridge"
    default = "ridge/path@1"
    options: ClassVar[dict[str, Allowed]] = {
        "penalty": positive(),
        "low": EXPONENT,
        "high": EXPONENT,
        "points": count(most=10_000),
        "holdout": SHARE,
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        penalties_of(protocol.settings)
        return Needs()

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        settings = task.settings
        labels = labels_of(task)
        x = features_of(task.data["train"], "pooled")
        test = features_of(task.data["test"], "pooled")
        grid = penalties_of(settings)
        path: list[dict[str, Any]] = []
        chosen = grid[0]
        if settings["penalty"] is None:
            held = holdout(labels.train, settings["holdout"], task.seed, remedy="set ridge.penalty to a number")
            inner = Path(x[~held], labels.train[~held], labels.trained)
            with task.progress.stage("ridge path", len(grid), "penalties") as stage:
                for penalty, predicted in zip(grid, inner.sweep(x[held], grid), strict=True):
                    hits = predicted.argmax(axis=1) == labels.train[held]
                    path.append({"penalty": penalty, "holdout_top1": 100 * float(hits.mean())})
                    stage.advance()
            best = max(point["holdout_top1"] for point in path)
            # Of equals, the strongest: the simplest probe.
            chosen = max(point["penalty"] for point in path if point["holdout_top1"] == best)
        with task.progress.stage("ridge refit", 1, "fit") as stage:
            whole = Path(x, labels.train, labels.trained)
            predicted = next(whole.sweep(test, [chosen]))
            stage.advance()
        details: dict[str, Any] = {"path": path, "chosen": chosen, "alpha": chosen * whole.unit}
        if len(path) > 1 and chosen in (grid[0], grid[-1]):
            details["at_edge_of_grid"] = True
        m = min(5, labels.trained)
        yield from accuracies(
            task,
            labels,
            np.argsort(-predicted, axis=1, kind="stable")[:, :m],
            _of_true_class(predicted, labels),
            engine=engine_of("numpy", "bench-ridge+numpy"),
            outcome=f"penalty{chosen:g}",
            headline=True,
            selection="none" if settings["penalty"] is not None else "holdout",
            details=details,
            seeds=[task.seed],
        )


def penalties_of(settings: dict[str, Any]) -> list[float]:
    """The penalties of a card, ascending; one when ``penalty`` is given. Refuses ends in the wrong order."""
    if settings["penalty"] is not None:
        return [float(settings["penalty"])]
    if settings["low"] > settings["high"]:
        raise BenchError(
            f"ridge.low={settings['low']:g} (log10 of the penalty) lies above ridge.high={settings['high']:g}: "
            f"exchange them"
        )
    return [float(p) for p in 10 ** np.linspace(settings["low"], settings["high"], settings["points"])]


class Path:
    """The penalties' common ground: eigenvectors of the centred features and the targets in their coordinates.

    The objective is ||Y - XW||^2 + alpha ||W||^2 with X and the one-hot Y centred (the intercept is free); a penalty
    is alpha over ``unit``, the mean eigenvalue of X'X, so that it means the same at every N and scale of the features.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int) -> None:
        """``x`` float32 [N, D], ``y`` int64 [N] in 0..classes-1. Refuses features that do not vary."""
        n, d = x.shape
        self._mean = x.mean(axis=0, dtype=np.float64)
        self._frequency = np.bincount(y, minlength=classes) / n
        # X'Y needs no centring of Y: the rows of a centred X add up to zero.
        cross = np.zeros((d, classes))
        if n < d:
            centred = x - self._mean
            values, vectors = np.linalg.eigh(centred @ centred.T)
            keep = _positive(values, x)
            basis = centred.T @ (vectors[:, keep] / np.sqrt(values[keep]))
            cross += centred.T @ np.eye(classes)[y]
        else:
            scatter = np.zeros((d, d))
            for start in range(0, n, ROWS):
                block = x[start : start + ROWS] - self._mean
                scatter += block.T @ block
                cross += block.T @ np.eye(classes)[y[start : start + ROWS]]
            values, vectors = np.linalg.eigh(scatter)
            keep = _positive(values, x)
            basis = vectors[:, keep]
        self._values = values[keep]
        self._basis = basis
        self._cross = basis.T @ cross
        self.unit = float(self._values.sum() / d)

    def weight(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """(weights float64 [D, K], intercept float64 [K]) at ``penalty``."""
        weight = self._basis @ (self._cross / (self._values + penalty * self.unit)[:, None])
        return weight, self._frequency - self._mean @ weight

    def sweep(self, x: np.ndarray, penalties: Sequence[float]) -> Iterator[np.ndarray]:
        """The outputs float64 [N, K] for ``x`` float32 [N, D], penalty by penalty."""
        rotated = np.empty((len(x), len(self._values)))
        for start in range(0, len(x), ROWS):
            rotated[start : start + ROWS] = (x[start : start + ROWS] - self._mean) @ self._basis
        for penalty in penalties:
            yield rotated @ (self._cross / (self._values + penalty * self.unit)[:, None]) + self._frequency


def _positive(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """bool: the eigenvalues that stand above rounding; the targets have no part along the others."""
    floor = values[-1] * max(x.shape) * np.finfo(np.float64).eps
    if not values[-1] > 0:
        raise BenchError("the training features are the same for every sample: a ridge probe has nothing to fit")
    kept: np.ndarray = values > floor
    return kept


def _of_true_class(predicted: np.ndarray, labels: Labels) -> np.ndarray:
    score = np.zeros(len(predicted))
    seen = np.flatnonzero(labels.test < labels.trained)
    score[seen] = predicted[seen, labels.test[seen]]
    return score
