"""From predictions to the three accuracies: top-1, top-5, mean per class. Shared by every classifier suite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.stats import mean_per_class, mean_per_class_interval, wilson
from bench.suite import Outcomes

if TYPE_CHECKING:
    from bench.featureset import FeatureSet
    from bench.record import Engine, Measurement
    from bench.suite import Task


@dataclass
class Labels:
    """Labels as 0..C-1, whatever integers the data use, and the way back."""

    values: np.ndarray
    """int64 [C]: the labels of the training split, ascending, then those that only the test split has."""
    trained: int
    """How many of them the training split has: no other can be predicted."""
    train: np.ndarray
    """int64 [N_train] in 0..trained-1."""
    test: np.ndarray
    """int64 [N_test] in 0..C-1."""


def labels_of(task: Task) -> Labels:
    """The contiguous labels of both splits. Refuses a split without samples, and a single class."""
    train, test = task.data["train"], task.data["test"]
    for split in (train, test):
        if split.labels.ndim > 1:
            raise BenchError(
                f"{split.dataset} {split.split} gives a sample several labels, and {task.protocol.id} expects one: run "
                f"knn or linear (logistic regression), which take several"
            )
        if len(split) == 0:
            raise BenchError(f"{split.dataset} {split.split} holds no samples")
    known = np.unique(train.labels)
    if len(known) < 2:
        name = train.classes.get(int(known[0]), known[0])
        raise BenchError(
            f"{train.dataset} {train.split} has a single class ({name}): an accuracy would say nothing; "
            f"give data with two or more"
        )
    only_test = np.setdiff1d(test.labels, known)
    values = np.concatenate([known, only_test])
    where = {int(v): i for i, v in enumerate(values)}
    return Labels(
        values=values,
        trained=len(known),
        train=np.searchsorted(known, train.labels),
        test=np.array([where[int(v)] for v in test.labels], dtype=np.int64),
    )


def features_of(data: FeatureSet, name: str) -> np.ndarray:
    """The array, float32 [N, D]; refused when a value is not finite (how many samples, the first of them)."""
    array = data.array(name)
    _refuse_unless_finite(data, [(0, array)])
    return array


def finite_blocks(data: FeatureSet, name: str, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """`FeatureSet.blocks`; refused, once all of them were looked at, when a value is not finite."""
    _refuse_unless_finite(data, data.blocks(name, rows))
    yield from data.blocks(name, rows)


def _refuse_unless_finite(data: FeatureSet, blocks: Iterable[tuple[int, np.ndarray]]) -> None:
    count, first = 0, -1
    for start, block in blocks:
        # A sum is finite only when every term is: one pass over the data, and no mask of its size when all is well.
        if not np.isfinite(block.sum(dtype=np.float64)):
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if len(bad) and not count:
                first = start + int(bad[0])
            count += len(bad)
    if count:
        raise BenchError(
            f"{count} of {len(data)} samples of {data.dataset} {data.split} have features that are not finite "
            f"(NaN or Inf), first {data.ids[first]}: mend the features"
        )


def confidence_of(logits: np.ndarray) -> np.ndarray:
    """float64 [N]: the largest softmax probability of ``logits`` [N, C]."""
    below = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    largest: np.ndarray = 1 / np.exp(below).sum(axis=1)
    return largest


def rank(logits: np.ndarray, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """(the best classes [N, m] in order, equal logits by lowest class; the true class' probability [N])."""
    m = min(5, logits.shape[1])
    top = np.argsort(-logits, axis=1, kind="stable")[:, :m]
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    probability = np.zeros(len(logits))
    seen = np.flatnonzero(labels.test < labels.trained)
    probability[seen] = shifted[seen, labels.test[seen]] / shifted[seen].sum(axis=1)
    return top, probability


def accuracies(
    task: Task,
    labels: Labels,
    top: np.ndarray,
    score: np.ndarray,
    *,
    engine: Engine,
    outcome: str,
    metrics: tuple[str, ...] = ("top1", "top5", "mean_per_class"),
    headline: bool = False,
    details: dict[str, Any] | None = None,
    confidence: np.ndarray | None = None,
    **more: Any,
) -> Iterator[Measurement]:
    """The measurements of one classifier on the test split.

    ``top`` int64 [N, m]: classes (0..C-1), best first; ``score`` float [N]: what the classifier gave the true class
    (0 for a class that it never saw), ``confidence`` [N] what it gave the predicted one, where that is a probability:
    a page draws its calibration. ``more`` goes to `Task.measure` (settings, selection...). Top-1 carries the
    headline.
    """
    test = task.data["test"]
    n = len(test)
    hit = top[:, 0] == labels.test
    hit5 = (top[:, :5] == labels.test[:, None]).any(axis=1)
    table = Outcomes(
        outcome,
        {
            "label": test.labels.astype(np.int64),
            "prediction": labels.values[top[:, 0]],
            "score": score.astype(np.float32),
            "correct": hit,
            "correct5": hit5,
            **({"confidence": confidence.astype(np.float32)} if confidence is not None else {}),
        },
    )
    details = dict(details or {})
    unseen = int((labels.test >= labels.trained).sum())
    if unseen:
        names = [test.classes.get(int(v), str(v)) for v in labels.values[labels.trained :]]
        details["without_training_samples"] = {"classes": names[:20], "test_samples": unseen}
    for metric, correct in (("top1", hit), ("top5", hit5)):
        if metric not in metrics:
            continue
        k = int(correct.sum())
        low, high = wilson(k, n)
        yield task.measure(
            metric, 100 * k / n, n=n, engine=engine, interval=(100 * low, 100 * high), interval_method="wilson",
            outcomes=table, headline=headline and metric == "top1", details=details, **more,
        )  # fmt: skip
    if "mean_per_class" in metrics:
        counts = np.bincount(labels.test, minlength=len(labels.values))
        right = np.bincount(labels.test, weights=hit, minlength=len(labels.values))
        low, high = mean_per_class_interval(right, counts)
        yield task.measure(
            "mean_per_class", 100 * mean_per_class(right, counts), n=n, engine=engine,
            interval=(100 * low, 100 * high), interval_method="wilson-stratified", outcomes=table, details=details,
            **more,
        )  # fmt: skip
