"""Ridge probe: least squares on one-hot targets, every penalty from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.errors import BenchError
from bench.options import EXPONENT, SHARE, Allowed, count, positive
from bench.suite import Needs, engine_of
from suites.classification import Labels, accuracies, features_of, finite_blocks, labels_of
from suites.validation import holdout

if TYPE_CHECKING:
    from bench.card import Card
    from bench.featureset import FeatureSet
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

ROWS = 8192
"""Rows turned to float64 at once."""


class Ridge:
    """Top-1, top-5 and mean-per-class of the refitted probe; the swept path is in ``details``."""

    name = "ridge"
    default = "ridge/path@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
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
        train = task.data["train"]
        test = features_of(task.data["test"], "pooled")
        grid = penalties_of(settings)
        path: list[dict[str, Any]] = []
        chosen = grid[0]
        held = np.zeros(len(train), dtype=bool)
        if settings["penalty"] is None:
            held = holdout(labels.train, settings["holdout"], task.seed, remedy="set ridge.penalty to a number")
        with task.progress.stage("ridge moments", len(train), "samples") as stage:
            inner, whole = paths_of(train, "pooled", labels, held, stage.advance)
        if inner is not None:
            hits = np.zeros(len(grid), dtype=int)
            with task.progress.stage("ridge path", len(train), "samples") as stage:
                for start, block in train.blocks("pooled", ROWS):
                    rows = held[start : start + len(block)]
                    y = labels.train[start : start + len(block)][rows]
                    for i, predicted in enumerate(inner.sweep(block[rows], grid) if len(y) else ()):
                        hits[i] += (predicted.argmax(axis=1) == y).sum()
                    stage.advance(len(block))
            for penalty, right in zip(grid, hits, strict=True):
                path.append({"penalty": penalty, "holdout_top1": 100 * float(right / held.sum())})
            best = max(point["holdout_top1"] for point in path)
            # Of equals, the strongest: the simplest probe.
            chosen = max(point["penalty"] for point in path if point["holdout_top1"] == best)
        predicted = next(whole.sweep(test, [chosen]))
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


@dataclass
class Moments:
    """What least squares needs of some samples, added up about a common point near their mean; sets of samples add."""

    about: np.ndarray
    """float64 [D]."""
    counts: np.ndarray
    """float64 [C], samples of every class."""
    sums: np.ndarray
    """float64 [D, C], of x - about over the samples of every class."""
    scatter: np.ndarray
    """float64 [D, D], of the outer products of x - about."""

    @classmethod
    def none(cls, about: np.ndarray, classes: int) -> Moments:
        d = len(about)
        return cls(about, np.zeros(classes), np.zeros((d, classes)), np.zeros((d, d)))

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """``x`` float32 [n, D], ``y`` int64 [n]."""
        shifted = x - self.about
        targets = np.eye(len(self.counts))[y]
        self.counts += targets.sum(axis=0)
        self.sums += shifted.T @ targets
        self.scatter += shifted.T @ shifted

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.about, self.counts + other.counts, self.sums + other.sums, self.scatter + other.scatter
        )  # fmt: skip


class Path:
    """The penalties' common ground: eigenvectors of the centred features and the targets in their coordinates.

    The objective is ||Y - XW||^2 + alpha ||W||^2 with X and the one-hot Y centred (the intercept is free); a penalty
    is alpha over ``unit``, the mean eigenvalue of X'X, so that it means the same at every N and scale of the features.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int) -> None:
        """``x`` float32 [N, D], ``y`` int64 [N] in 0..classes-1. Refuses features that do not vary."""
        n, d = x.shape
        mean = x.mean(axis=0, dtype=np.float64)
        if n >= d:
            moments = Moments.none(mean, classes)
            for start in range(0, n, ROWS):
                moments.add(x[start : start + ROWS], y[start : start + ROWS])
            self._from(moments)
            return
        # Fewer samples than features: the eigenvectors of XX', a smaller matrix, give those of X'X.
        centred = x - mean
        targets = np.eye(classes)[y]
        values, vectors = np.linalg.eigh(centred @ centred.T)
        _refuse_constant((centred * centred).sum(axis=0), mean, n)
        keep = _positive(values, n, d)
        basis = centred.T @ (vectors[:, keep] / np.sqrt(values[keep]))
        # X'Y needs no centring of Y: the rows of a centred X add up to zero.
        self._keep(mean, targets.mean(axis=0), values[keep], basis, centred.T @ targets)

    @classmethod
    def of(cls, moments: Moments) -> Path:
        """From at least as many samples as features. Refuses features that do not vary."""
        path = cls.__new__(cls)
        path._from(moments)
        return path

    def _from(self, moments: Moments) -> None:
        n, d = moments.counts.sum(), len(moments.about)
        offset = moments.sums.sum(axis=1) / n
        scatter = moments.scatter - n * np.outer(offset, offset)
        _refuse_constant(scatter.diagonal(), moments.about, n)
        values, vectors = np.linalg.eigh(scatter)
        keep = _positive(values, int(n), d)
        cross = moments.sums - np.outer(offset, moments.counts)
        self._keep(moments.about + offset, moments.counts / n, values[keep], vectors[:, keep], cross)

    def _keep(
        self, mean: np.ndarray, frequency: np.ndarray, values: np.ndarray, basis: np.ndarray, cross: np.ndarray
    ) -> None:
        self._mean, self._frequency, self._values, self._basis = mean, frequency, values, basis
        self._cross = basis.T @ cross
        self.unit = float(values.sum() / len(mean))

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


def paths_of(
    train: FeatureSet, name: str, labels: Labels, held: np.ndarray, advance: Callable[[int], Any]
) -> tuple[Path | None, Path]:
    """(the path of the samples not ``held``, None when none are held; the path of all samples).

    ``train`` is read in blocks, and need not fit into memory. Refused when a value is not finite.
    """
    kept, d = int((~held).sum()), train.widths[name]
    if kept < d:
        x = features_of(train, name)
        advance(len(train))
        inner = Path(x[~held], labels.train[~held], labels.trained) if held.any() else None
        return inner, Path(x, labels.train, labels.trained)
    total = np.zeros(d)
    for _, block in finite_blocks(train, name, ROWS):
        total += block.sum(axis=0, dtype=np.float64)
    parts = [Moments.none(total / len(train), labels.trained) for _ in range(2)]
    for start, block in train.blocks(name, ROWS):
        y, out = labels.train[start : start + len(block)], held[start : start + len(block)]
        for moments, rows in zip(parts, (~out, out), strict=True):
            if rows.any():
                moments.add(block if rows.all() else block[rows], y[rows])
        advance(len(block))
    return Path.of(parts[0]) if held.any() else None, Path.of(parts[0] + parts[1])


def _refuse_constant(squares: np.ndarray, mean: np.ndarray, n: float) -> None:
    """``squares`` [D]: what each feature varies about its mean, of which float64 may make a little by rounding."""
    if not (squares > n * (2.0**-40 * mean) ** 2).any():
        raise BenchError("the training features are the same for every sample: a ridge probe has nothing to fit")


def _positive(values: np.ndarray, n: int, d: int) -> np.ndarray:
    """bool: the eigenvalues that stand above rounding; the targets have no part along the others."""
    floor = values[-1] * max(n, d) * np.finfo(np.float64).eps
    kept: np.ndarray = values > floor
    return kept


def _of_true_class(predicted: np.ndarray, labels: Labels) -> np.ndarray:
    score = np.zeros(len(predicted))
    seen = np.flatnonzero(labels.test < labels.trained)
    score[seen] = predicted[seen, labels.test[seen]]
    return score
