"""Samples that carry several labels: 1, 0 or -1 for every class, and the mean average precisions that judge them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.suite import Outcomes
from suites.average_precision import mean_average_precision
from suites.jackknife import METHOD

if TYPE_CHECKING:
    from bench.record import Engine, Measurement
    from bench.suite import Task


@dataclass
class Targets:
    """int8 [N, C] of both splits: 1 present, -1 absent, 0 not judged (difficult): it counts for that class nowhere."""

    train: np.ndarray
    test: np.ndarray
    names: list[str]


def is_multilabel(task: Task) -> bool:
    """Whether the samples carry several labels each."""
    return task.data["train"].labels.ndim > 1


def targets_of(task: Task) -> Targets:
    """Both splits' targets. Refuses splits of different classes, and values other than -1, 0 and 1.

    Where the card's ``difficult`` is ``absent``, what is not judged is absent, as in ssl-transfer.
    """
    train, test = task.data["train"], task.data["test"]
    for split in (train, test):
        if len(split) == 0:
            raise BenchError(f"{split.dataset} {split.split} holds no samples")
        if split.labels.ndim != 2 or not np.isin(split.labels, (-1, 0, 1)).all():
            raise BenchError(
                f"{split.dataset} {split.split} must give every sample -1, 0 or 1 for each class: the other split "
                f"carries several labels a sample"
            )
    if train.labels.shape[1] != test.labels.shape[1]:
        raise BenchError(
            f"{train.dataset} has {train.labels.shape[1]} classes in {train.split} and {test.labels.shape[1]} in "
            f"{test.split}: they must be the same"
        )
    if not (test.labels > 0).any():
        raise BenchError(f"{test.dataset} {test.split} has no present label at all: a precision would say nothing")
    names = [test.classes.get(c, str(c)) for c in range(test.labels.shape[1])]
    unjudged = -1 if task.settings.get("difficult") == "absent" else 0
    learned, tested = (np.where(x.labels == 0, unjudged, x.labels).astype(np.int8) for x in (train, test))
    return Targets(learned, tested, names)


def precisions(
    task: Task,
    targets: Targets,
    scores: np.ndarray,
    *,
    engine: Engine,
    outcome: str,
    headline: str | None = None,
    details: dict[str, Any] | None = None,
    **more: Any,
) -> Iterator[Measurement]:
    """``map`` (all points) and ``map11`` (VOC 2007) on the test split from ``scores`` float [N, C].

    ``headline``: the metric that carries it, if any.
    """
    table = Outcomes(outcome, {"targets": targets.test, "scores": scores.astype(np.float32)})
    details = dict(details or {})
    if missing := [name for name, any_ in zip(targets.names, (targets.test > 0).sum(axis=0), strict=True) if not any_]:
        details["without_test_samples"] = missing
    learnt = (targets.train > 0).sum(axis=0)
    if unlearnt := [name for name, count in zip(targets.names, learnt, strict=True) if not count]:
        details["without_training_samples"] = {"classes": unlearnt}
    for metric, points in (("map", 0), ("map11", 11)):
        value, each, around = mean_average_precision(scores, targets.test, points, seed=task.seed)
        yield task.measure(
            metric, 100 * value, n=len(scores), engine=engine,
            interval=None if around is None else (100 * around[0], 100 * around[1]),
            interval_method=None if around is None else METHOD,
            interval_note="a single sample" if around is None else None, outcomes=table,
            headline=metric == headline,
            details={
                **details,
                "per_class": {name: 100 * ap for name, ap in zip(targets.names, each, strict=True) if ap is not None},
            },
            **more,
        )  # fmt: skip
