"""VOC2007 classification by linear support vector machines on the frozen feature, all images or a few positives."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.errors import BenchError
from bench.options import Allowed, count, positive
from bench.suite import Needs, engine_of
from suites.average_precision import mean_average_precision
from suites.classification import features_of
from suites.jackknife import METHOD
from suites.repeats import mean_of_runs, method_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

FOLDS = 3


class VOC07Classification:
    """Mean AP (area under the monotone curve) over classes; low-shot: mean and deviation over draws, per size."""

    name = "voc07cls"
    default = "voc07cls/svm@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        "costs": positive(1e6, a_set=True),
        "tol": positive(1),
        "max_iter": count(),
        "shots": count(0, a_set=True),
        "draws": count(2, 1000),
        "negatives": count(),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if protocol.settings["shots"] != [0] and len(protocol.settings["costs"]) > 1:
            raise BenchError("voc07cls.shots leaves no images to choose a cost on: give voc07cls.costs one value")
        return Needs()

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        train, test = task.data["train"], task.data["test"]
        for data in (train, test):
            if data.labels.ndim != 2:
                raise BenchError(
                    f"suite 'voc07cls' reads many labels an image (-1, 0, 1), and {data.dataset} {data.split} has one: "
                    f"leave --data out, or use suite 'linear'"
                )
        x, seen = (scaled(features_of(data, "pooled")) for data in (train, test))
        # Difficult samples (0) are negatives in training; mean_average_precision drops them from the test.
        targets = np.where(train.labels == 1, 1, -1)
        if task.settings["shots"] != [0]:
            yield from self._low_shot(task, x, train.labels, seen)
            return
        names = [train.classes.get(c, str(c)) for c in range(targets.shape[1])]
        scores = np.zeros((len(seen), targets.shape[1]))
        costs: dict[str, float] = {}
        late: list[str] = []
        used = np.ones(targets.shape[1], dtype=bool)
        with task.progress.stage("SVMs", targets.shape[1], "classes") as stage:
            for c, name in enumerate(names):
                positives = int((targets[:, c] == 1).sum())
                if min(positives, len(targets) - positives) < FOLDS:
                    # A class that cannot be learnt is left out, and named.
                    used[c] = False
                else:
                    costs[name] = chosen_cost(task, x, targets[:, c])
                    machine, converged = fitted(task, x, targets[:, c], costs[name])
                    scores[:, c] = machine.decision_function(seen)
                    late += [] if converged else [name]
                stage.advance()
        if not used.any():
            raise BenchError(
                f"no class of {train.dataset} {train.split} has {FOLDS} images with it and {FOLDS} without"
            )
        details: dict[str, Any] = {"costs": costs}
        if not used.all():
            details["left_out"] = {"classes": [n for n, u in zip(names, used, strict=True) if not u]}
        if late:
            details["not_converged"] = late
        value, each, interval = mean_average_precision(scores[:, used], test.labels[:, used], seed=task.seed)
        if value != value:
            raise BenchError(f"{test.dataset} {test.split} shows none of the classes that could be learnt")
        kept = [name for name, u in zip(names, used, strict=True) if u]
        details["per_class"] = {n: 100 * ap for n, ap in zip(kept, each, strict=True) if ap is not None}
        yield task.measure(
            "map", 100 * value, n=len(test), engine=engine_of("scikit-learn", "liblinear"), headline=True,
            interval=None if interval is None else (100 * interval[0], 100 * interval[1]),
            interval_method=None if interval is None else METHOD,
            interval_note="a single sample" if interval is None else None, seeds=[task.seed],
            selection="holdout" if len(task.settings["costs"]) > 1 else "none", details=details,
        )  # fmt: skip

    def _low_shot(self, task: Task, x: np.ndarray, targets: np.ndarray, seen: np.ndarray) -> Iterator[Measurement]:
        settings = task.settings
        test = task.data["test"]
        seeds = [task.seed + i for i in range(settings["draws"])]
        sizes = [size for size in settings["shots"] if size > 0]
        with task.progress.stage("low-shot SVMs", len(sizes) * len(seeds), "draws") as stage:
            for size in sizes:
                runs: list[float] = []
                around = None
                short = int(((targets == 1).sum(axis=0) < size).sum())
                for seed in seeds:
                    rng = np.random.default_rng(seed)
                    scores = np.zeros((len(seen), targets.shape[1]))
                    for c in range(targets.shape[1]):
                        rows = drawn(targets[:, c], size, settings["negatives"], rng)
                        y = targets[rows, c]
                        if len(np.unique(y)) == 2:
                            machine, _ = fitted(task, x[rows], y, float(settings["costs"][0]))
                            scores[:, c] = machine.decision_function(seen)
                    # The test samples' share of the interval is that of the first draw: draws differ little in it.
                    value, _, of_first = mean_average_precision(scores, test.labels, around=not runs, seed=task.seed)
                    if of_first is not None:
                        around = 100 * (value - of_first[0]), 100 * (of_first[1] - value)
                    runs.append(100 * value)
                    stage.advance()
                if not np.isfinite(runs).all():
                    raise BenchError(
                        f"{test.dataset} {test.split} shows no class at all: average precision says nothing"
                    )
                mean, sd, interval = mean_of_runs(np.array(runs), *(around or ()))
                yield task.measure(
                    "map", mean, n=len(test), engine=engine_of("scikit-learn", "liblinear"), sd=sd, seeds=seeds,
                    interval=interval if around else None,
                    interval_method=method_of("draws", METHOD) if around else None,
                    interval_note=None if around else "a single sample",
                    settings={"shots": size},
                    headline=size == sizes[-1],
                    details={"runs": runs, **({"classes_with_fewer_positives": short} if short else {})},
                )  # fmt: skip


def scaled(x: np.ndarray) -> np.ndarray:
    """z / (|z| + 1e-5), float64 rows: VISSL's normalisation."""
    wide = x.astype(np.float64)
    return np.asarray(wide / (np.linalg.norm(wide, axis=1, keepdims=True) + 1e-5))


def machine_of(task: Task, cost: float) -> Any:
    """LIBLINEAR as VISSL sets it: L2 penalty, squared hinge, dual, positives counted twice."""
    from sklearn.svm import LinearSVC

    settings = task.settings
    return LinearSVC(
        C=cost, penalty="l2", loss="squared_hinge", dual=True, class_weight={1: 2, -1: 1}, tol=settings["tol"],
        max_iter=settings["max_iter"], intercept_scaling=1.0, random_state=task.seed,
    )  # fmt: skip


def fitted(task: Task, x: np.ndarray, y: np.ndarray, cost: float) -> tuple[Any, bool]:
    """(the machine, whether it converged)."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        machine = machine_of(task, cost).fit(x, y)
    return machine, not any(issubclass(w.category, ConvergenceWarning) for w in said)


def chosen_cost(task: Task, x: np.ndarray, y: np.ndarray) -> float:
    """The cost with the best mean AP over three folds (scikit-learn's), the lowest of equals."""
    from sklearn.model_selection import cross_val_score

    costs = [float(cost) for cost in task.settings["costs"]]
    if len(costs) == 1:
        return costs[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        means = [
            float(np.mean(cross_val_score(machine_of(task, cost), x, y, cv=FOLDS, scoring="average_precision")))
            for cost in costs
        ]
    return costs[int(np.argmax(means))]


def drawn(y: np.ndarray, size: int, negatives: int, rng: np.random.Generator) -> np.ndarray:
    """int64 rows: ``size`` positives at random (all where there are fewer) and ``negatives`` times as many without.

    ``y``: 1 present, -1 absent, 0 difficult; the difficult ones are neither.
    """
    with_it, without = np.flatnonzero(y == 1), np.flatnonzero(y == -1)
    ours = rng.permutation(with_it)[:size]
    return np.sort(np.concatenate([ours, rng.permutation(without)[: negatives * max(len(ours), 1)]]))
