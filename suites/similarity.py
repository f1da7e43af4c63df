"""Similarity: how alike two networks represent the same samples, by every measure that the card names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.bootstrap import percentile, resampled_sums
from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, engine_of
from suites import similarity_measures
from suites.classification import features_of
from suites.pairing import described, networks_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.similarity_measures.measure import Measure, Value

MEASURED_ON_PARTS = "delete-group jackknife"
NO_INTERVAL = {
    "cca": "rises as samples get fewer: parts of them say nothing of the whole",
    "cca_r2": "rises as samples get fewer: parts of them say nothing of the whole",
    "svcca": "rises as samples get fewer: parts of them say nothing of the whole",
    "pwcca": "rises as samples get fewer: parts of them say nothing of the whole",
    "cknna": "a subset of the samples has other neighbours: parts say nothing of the whole",
    "cluster_nmi": "k-means on parts of the samples is another clustering",
    "cluster_ari": "k-means on parts of the samples is another clustering",
    "cluster_acc": "k-means on parts of the samples is another clustering",
    "cluster_fmi": "k-means on parts of the samples is another clustering",
    "rkd_angle": "computed on a few samples; the triples of parts of them overlap too much",
    "rkd_angle_corr": "computed on a few samples; the triples of parts of them overlap too much",
}


class Similarity:
    """One measurement per measure; the headline is the first measure of the card (linear CKA)."""

    name = "similarity"
    default = "similarity/pooled@1"
    options: ClassVar[dict[str, Allowed]] = {
        "measures": Allowed(once=True),
        "split": words("train", "test"),
        "samples": count(10),
        "cca_samples": count(10),
        "k": count(),
        # 0: as many as there are classes.
        "clusters": count(0),
        "restarts": count(most=10_000),
        "batch": count(4),
        "threshold": positive(1e6),
        "variance": positive(1),
        "angle_samples": count(3),
        "groups": count(5),
        "replicates": count(100, 10_000_000),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        settings = protocol.settings
        for name in settings["measures"]:
            similarity_measures.get(name)
        return Needs(splits=(settings["split"],), teacher=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        networks = networks_of(task)
        split: str = task.settings["split"]
        data = task.data[split]
        # The teacher first: PWCCA weighs by the network whose representation is to be accounted for.
        x = features_of(networks["teacher"].data[split], "pooled")
        y = features_of(networks["student"].data[split], "pooled")
        classes = len(np.unique(data.labels)) if data.labels.ndim == 1 else data.labels.shape[1]
        names = task.settings["measures"]
        with task.progress.stage("similarity", len(names), "measures") as stage:
            for i, name in enumerate(names):
                measure = similarity_measures.get(name)
                options = _options(task, measure, classes)
                most = task.settings[measure.cap] if measure.cap else len(data)
                rows = chosen_rows(len(data), most, task.seed)
                a, b = (x, y) if len(rows) == len(data) else (x[rows], y[rows])
                try:
                    value = measure.compute(a, b, **options)
                except BenchError as refusal:
                    task.progress.warn(f"similarity: {name} is left out: {refusal}")
                    stage.advance()
                    continue
                interval, method, note = self._interval(task, measure, value, a, b, options)
                yield task.measure(
                    name,
                    value.value,
                    n=len(rows),
                    engine=engine_of("numpy", "bench-similarity+numpy"),
                    unit="",
                    higher_is_better=measure.higher_is_better,
                    interval=interval,
                    interval_method=method,
                    interval_note=note,
                    split=split,
                    seeds=[task.seed],
                    headline=i == 0,
                    settings={"teacher": networks["teacher"].label, **_settings(options)},
                    details={
                        "networks": described(networks),
                        "title": measure.title,
                        "source": measure.source,
                        "invariances": {"teacher": sorted(measure.first), "student": sorted(measure.second)},
                        "widths": {"teacher": x.shape[1], "student": y.shape[1]},
                        **_caution(name, len(rows), x.shape[1], y.shape[1], options),
                    },
                )
                stage.advance()

    def _interval(
        self, task: Task, measure: Measure, value: Value, x: np.ndarray, y: np.ndarray, options: dict[str, Any]
    ) -> tuple[tuple[float, float] | None, str | None, str | None]:
        """(interval, method, why there is none)."""
        if value.per_sample is not None:
            (sums,) = resampled_sums(
                [value.per_sample[:, None]], replicates=task.settings["replicates"], seed=task.seed
            )
            return percentile(sums[:, 0] / len(x), value.value), "bootstrap over samples", None
        if value.influence is not None:
            se = float(np.sqrt(np.square(value.influence).sum()))
            return _around(measure, value.value, 1.959963984540054 * se), "infinitesimal jackknife", None
        if measure.name in NO_INTERVAL:
            return None, None, NO_INTERVAL[measure.name]
        groups = task.settings["groups"]
        half = jackknife(lambda rows: measure.compute(x[rows], y[rows], **options).value, len(x), groups, task.seed)
        if half is None:
            return None, None, "too few samples for a jackknife"
        return _around(measure, value.value, half), MEASURED_ON_PARTS, None


def chosen_rows(n: int, most: int, seed: int) -> np.ndarray:
    """int64, ascending: all rows, or ``most`` of them at random; measures of all pairs read no more."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def jackknife(of: Callable[[np.ndarray], float], n: int, groups: int, seed: int) -> float | None:
    """Half width of a 95 % interval from the values without each of ``groups`` random groups (Student's t).

    ``of``: value on the rows given. None where a part has no value.
    """
    from scipy.stats import t

    if n < 2 * groups:
        return None
    parts = np.array_split(np.random.default_rng(seed).permutation(n), groups)
    values = np.empty(groups)
    for g, part in enumerate(parts):
        try:
            values[g] = of(np.setdiff1d(np.arange(n), part, assume_unique=True))
        except BenchError:
            return None
    spread = math.sqrt((groups - 1) / groups * float(np.square(values - values.mean()).sum()))
    return float(t.ppf(0.975, groups - 1)) * spread


def _around(measure: Measure, value: float, half: float) -> tuple[float, float]:
    low, high = measure.bounds
    return max(low, value - half), min(high, value + half)


def _options(task: Task, measure: Measure, classes: int) -> dict[str, Any]:
    """The measure's options from the card: its own names are the card's, but for these."""
    settings = task.settings
    card = {
        "k": (settings["clusters"] or classes) if measure.name.startswith("cluster") else settings["k"],
        "samples": settings["angle_samples"],
        "seed": task.seed,
    }
    return {name: card.get(name, settings.get(name, default)) for name, default in measure.options.items()}


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "seed"}


def _caution(name: str, n: int, p: int, q: int, options: dict[str, Any]) -> dict[str, Any]:
    from suites.similarity_measures.cca import MARGIN

    if name in ("cca", "cca_r2", "svcca", "pwcca") and n < MARGIN * max(p, q):
        return {"caution": f"{n} samples are fewer than {MARGIN} times the features ({max(p, q)}): inflated"}
    if name == "cka" and n < max(p, q):
        return {"caution": f"{n} samples are fewer than the features ({max(p, q)}): biased upwards, see cka_debiased"}
    if name == "mutual_knn":
        return {"by_chance": options["k"] / (n - 1)}
    return {}
