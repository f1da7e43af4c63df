"""Few labels: a probe learnt from n images per class, from a share of train, or from published subset lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.errors import BenchError
from bench.files import regular
from bench.options import SHARE, Allowed, count, positive, words
from bench.suite import Needs, engine_of
from suites import logreg_probe
from suites.classification import Labels, features_of, labels_of
from suites.repeats import mean_of_runs, method_of, reach_of_samples

if TYPE_CHECKING:
    from bench.card import Card
    from bench.featureset import FeatureSet
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.logreg_path import Fit


@dataclass
class Subset:
    """One size: the rows of every draw, and what a record says of them."""

    settings: dict[str, Any]
    draws: list[np.ndarray]
    """int64 rows of train, one array a draw."""
    seeds: list[int] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


class FewShot:
    """Top-1 on the whole test split: mean over draws, their deviation, and each draw in ``details``."""

    name = "fewshot"
    default = "fewshot/standard@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        "shots": count(a_set=True),
        "percent": positive(100, a_set=True),
        "draws": count(most=10_000),
        "classifier": words("logreg", "knn"),
        "k": count(),
        "temperature": Allowed(least=1e-6, most=1e6),
        "lists": Allowed(a_set=True),
        **logreg_probe.OPTIONS,
        # That of protocols that choose the penalty.
        "validation": SHARE,
        # Of those that do something to the feature.
        "normalise": logreg_probe.CHOICE["normalise"],
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if "validation" in protocol.settings:
            logreg_probe.grid_of(protocol.settings)
        return Needs()

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        labels = labels_of(task)
        how = task.settings.get("normalise", "none")
        x, test = (logreg_probe.prepared(features_of(task.data[split], "pooled"), how) for split in ("train", "test"))
        held = validation_rows(task, labels)
        subsets = subsets_of(task, labels, held)
        # 1 % of train is what the field quotes; without it, the last size asked for.
        headline = next((s for s in subsets if s.settings.get("percent") == 1), subsets[-1])
        engine = engine_of("torch", "bench-lbfgs+torch")
        if task.settings["classifier"] == "knn":
            from suites.neighbours import ENGINE

            engine = ENGINE
        n = len(test)
        with task.progress.stage("few-shot probes", sum(len(s.draws) for s in subsets), "fits") as stage:
            for subset in subsets:
                hits = []
                late = 0
                chosen: list[float] = []
                for rows in subset.draws:
                    if task.settings["classifier"] == "knn":
                        predicted = _neighbours(task, labels, x[rows], labels.train[rows], test)
                    else:
                        fit = _fitted(task, labels, x, rows, held)
                        predicted = fit.logits(test).argmax(axis=1)
                        late += not fit.converged
                        chosen.append(fit.C)
                    hits.append(predicted == labels.test)
                    stage.advance()
                right = np.array(hits)
                runs = 100 * right.mean(axis=1)
                mean, sd, interval, method = _summary(right)
                yield task.measure(
                    "top1", mean, n=n, engine=engine, interval=interval, interval_method=method, sd=sd,
                    seeds=subset.seeds, settings=subset.settings, headline=subset is headline,
                    selection="holdout" if held is not None and task.settings["C"] is None else "none",
                    feature={**task.feature(), "norm": how},
                    details={
                        "runs": [float(run) for run in runs],
                        "training_samples": [len(rows) for rows in subset.draws],
                        **subset.details,
                        **({"not_converged": late} if late else {}),
                        **({"chosen": chosen, "validation_samples": int(held.sum())} if held is not None else {}),
                    },
                )  # fmt: skip


def validation_rows(task: Task, labels: Labels) -> np.ndarray | None:
    """bool [N_train]: what no draw learns from and the penalty is chosen on; None where the card fixes the penalty.

    DINOv3's: of every class a share, at least one sample, none of a class with a single one.
    """
    share = task.settings.get("validation")
    if share is None or task.settings["classifier"] == "knn" or task.settings["C"] is not None:
        return None
    counts = np.bincount(labels.train, minlength=labels.trained)
    quota = np.where(counts > 1, np.maximum(np.floor(share * counts).astype(int), 1), 0)
    if not quota.any():
        raise BenchError("every class has a single training sample: nothing can be held out; set fewshot.C to a number")
    held = np.zeros(len(labels.train), dtype=bool)
    held[drawn(labels.train, quota, task.seed)] = True
    return held


def subsets_of(task: Task, labels: Labels, held: np.ndarray | None = None) -> list[Subset]:
    """Every size that the card asks for; with ``lists``, those files alone, as the draws of one size.

    ``held`` bool [N_train]: the samples that no draw may have.
    """
    settings = task.settings
    if settings["lists"]:
        paths = [Path(str(name)) for name in settings["lists"]]
        rows = [listed(task.data["train"], path) for path in paths]
        return [Subset({"lists": len(rows)}, rows, details={"files": [path.name for path in paths]})]
    seeds = [task.seed + draw for draw in range(settings["draws"])]
    free = np.arange(len(labels.train)) if held is None else np.flatnonzero(~held)
    y = labels.train[free]
    counts = np.bincount(y, minlength=labels.trained)
    half = 0.5 if held is None else 0.0
    sizes: list[tuple[dict[str, Any], np.ndarray]] = []
    for shots in settings["shots"]:
        sizes.append(({"shots": shots}, np.full(labels.trained, shots)))
    for share in settings["percent"]:
        sizes.append(({"percent": share}, np.maximum(np.floor(share / 100 * counts + half).astype(int), 1)))
    found = []
    for described, quota in sizes:
        subset = Subset(described, [free[drawn(y, quota, seed)] for seed in seeds], seeds)
        if short := int((counts < quota).sum()):
            subset.details["classes_with_fewer_samples"] = short
        found.append(subset)
    return found


def drawn(y: np.ndarray, quota: np.ndarray, seed: int) -> np.ndarray:
    """int64 rows: of each class c, ``quota[c]`` at random (all where it has fewer); quotas nest."""
    order = np.random.default_rng(seed).permutation(len(y))
    by_class = order[np.argsort(y[order], kind="stable")]
    counts = np.bincount(y, minlength=len(quota))
    first = np.cumsum(counts) - counts
    place = np.arange(len(y)) - first[y[by_class]]
    return np.sort(by_class[place < quota[y[by_class]]])


def listed(train: FeatureSet, path: Path, option: str = "fewshot.lists") -> np.ndarray:
    """int64 rows of the ids in ``path``, one a line: a whole id, or its file name where that is unique.

    Raises `BenchError` for a file that cannot be read, is empty, or names a sample that train does not have.
    """
    try:
        regular(path)
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BenchError(f"{option}: {path} cannot be read ({why}): give a text file with an id a line") from error
    if not names:
        raise BenchError(f"{option}: {path} names no samples")
    where: dict[str, int] = {}
    for row, name in enumerate(train.ids):
        short = name.rpartition("/")[2]
        where[short] = -1 if short in where else row
    where.update({name: row for row, name in enumerate(train.ids)})
    rows = np.array([where.get(name, -1) for name in names])
    if (rows < 0).any():
        missing = names[int(np.flatnonzero(rows < 0)[0])]
        raise BenchError(
            f"{option}: {int((rows < 0).sum())} of {len(names)} names in {path} are not (or not uniquely) in "
            f"{train.dataset} {train.split}, first {missing}"
        )
    return np.unique(rows)


def _neighbours(task: Task, labels: Labels, x: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    from suites.neighbours import Rows, normalised, search
    from suites.vote import decide

    k = min(task.settings["k"], len(x))
    found = search(Rows(normalised(x)), normalised(test), k, device=task.device)
    top: np.ndarray = decide(found, replace(labels, train=y), k, "exp", task.settings["temperature"]).top[:, 0]
    return top


def _fitted(task: Task, labels: Labels, x: np.ndarray, rows: np.ndarray, held: np.ndarray | None) -> Fit:
    """The probe learnt on ``rows``: at the card's penalty, or at the one that does best on ``held``."""
    from suites.logreg_path import Path as Penalties

    settings = task.settings
    penalties = Penalties(
        x[rows], labels.train[rows], labels.trained, task.device, intercept=settings.get("intercept", True)
    )
    if held is None:
        return penalties.fit([settings["C"]])[0]
    seen, y = x[held], labels.train[held]
    limit = settings["max_iter"]
    tried = penalties.fit(logreg_probe.grid_of(settings), tol=settings["path_tol"], max_iter=limit)
    right = [int((fit.logits(seen).argmax(axis=1) == y).sum()) for fit in tried]
    # Of equals the strongest penalty.
    best = tried[int(np.argmax(right))]
    return penalties.fit([best.C], tol=settings["tol"], max_iter=limit, start=best)[0]


def _summary(right: np.ndarray) -> tuple[float, float | None, tuple[float, float], str]:
    """(mean, deviation, interval, its method) in percent of the draws' answers, bool [draws, n]."""
    below, above = reach_of_samples(right)
    runs = 100 * right.mean(axis=1)
    if len(runs) == 1:
        return float(runs[0]), None, (float(runs[0]) - below, float(runs[0]) + above), "wilson"
    mean, sd, interval = mean_of_runs(runs, below, above)
    return mean, sd, interval, method_of("draws", "wilson")
