"""Two outcome tables of the same samples: a metric's difference, the samples that flipped, the classes that moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, Field

from bench import paired
from bench.matched import PACKED, by_class, unpacked

Table = Mapping[str, np.ndarray]

LISTED = 200
"""Flipped samples listed each way; their number is always told."""
CLOSE = 1e-8
"""Fractions nearer than this are the same number: per-sample values are kept in single precision."""
RIGHT = {"top5": "correct5"}
"""The array of an outcome table that says which samples a metric counts as right, where it is not ``correct``."""
OTHER_SAMPLES = "the outcomes are of other samples: their numbers differ"
OTHER_METRIC = "the outcomes kept are those of another metric"
READ = {
    "label", "prediction", "correct", "correct5", "intersection", "union", "labelled", *PACKED,
}  # fmt: skip
"""The arrays by which networks are compared; a metric's own name is one more."""


class Mover(BaseModel):
    """One class: its accuracy, IoU or average precision in both, percent."""

    label: int
    name: str | None = None
    n: int
    """Samples of the class; of detection its objects, of segmentation the images that show it."""
    first: float
    second: float


class Flips(BaseModel):
    """Samples that one network alone has right, by index in the data set's order."""

    gained: int
    """Only the second has it right."""
    lost: int
    """Only the first has it right."""
    gained_samples: list[int] = Field(default_factory=list)
    lost_samples: list[int] = Field(default_factory=list)
    same_prediction: float
    """Percent of samples that both predict alike, right or wrong."""


def difference_of(
    metric: str,
    first: Table,
    second: Table,
    change: float,
    confidence: float,
    replicates: int = paired.REPLICATES,
) -> tuple[paired.Difference | None, str, str | None]:
    """(second minus first, method, why not) from outcome tables; accuracies as fractions.

    Tables of `bench.matched` give average precision; those with ``intersection``, ``union`` (and ``labelled``) [N, C]
    mean IoU (and the accuracies of pixels); those with ``label`` and ``correct`` [N] accuracy and mean-per-class
    accuracy; an array of the metric's own name its mean. ``change`` is what the records say: tables that say otherwise
    are those of another metric, and are not used. ``replicates``: resamples of a bootstrap.
    """
    if metric not in first and (is_summed(first) or is_summed(second)):
        found = summed_difference(metric, first, second, confidence, replicates)
        if isinstance(found, str):
            return None, "none", found
        # Another program added these up: its last digits may differ.
        if not math.isclose(found.value, change, rel_tol=1e-4, abs_tol=1e-6):
            return None, "none", OTHER_METRIC
        return found, "paired bootstrap", None
    right = metric if metric in first else RIGHT.get(metric, "correct")
    if right not in first or right not in second:
        return None, "none", "the outcomes hold nothing that can be paired for this metric"
    a, b = first[right], second[right]
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        return None, "none", OTHER_SAMPLES
    method = "paired"
    if right == metric:
        found = paired.mean_difference(a, b, confidence)
    elif metric == "mean_per_class" and "label" in first:
        found = paired.mean_per_class_difference(
            first["label"], a, b, confidence=confidence, replicates=replicates
        )  # fmt: skip
        method = "paired bootstrap"
    else:
        found = paired.accuracy_difference(a, b, confidence)
    if not math.isclose(found.value, change, rel_tol=1e-4, abs_tol=CLOSE):
        return None, "none", OTHER_METRIC
    return found, method, None


def is_summed(table: Table) -> bool:
    """Whether the table holds what a metric of a whole set is added up from: matches, or pixels by image and class."""
    return set(table) >= PACKED or {"intersection", "union"} <= set(table)


def summed_difference(
    metric: str, first: Table, second: Table, confidence: float = 0.95, replicates: int = paired.REPLICATES
) -> paired.Difference | str:
    """The paired bootstrap over images of a metric that is added up over the set; or why there is none."""
    both = set(first) & set(second)
    try:
        if both >= PACKED:
            figure = f"ap{metric.rpartition('_ap')[2]}"
            return paired.precision_difference(
                first, second, figure if figure in ("ap50", "ap75") else "ap", confidence=confidence,
                replicates=replicates,
            )  # fmt: skip
        if not {"intersection", "union"} <= both:
            return OTHER_SAMPLES
        below = {"miou": "union", "macc": "labelled", "pixel_acc": "labelled"}.get(metric)
        if below is None or below not in both:
            return "the outcomes hold nothing that can be paired for this metric"
        sides = [(table["intersection"].astype(float), table[below].astype(float)) for table in (first, second)]
        if sides[0][0].shape != sides[1][0].shape or any(a.shape != b.shape or a.ndim != 2 for a, b in sides):
            return OTHER_SAMPLES
        if "labelled" in both and not np.array_equal(first["labelled"], second["labelled"]):
            return "the outcomes are of other samples: their labels differ"
        if metric == "pixel_acc":
            sides = [(a.sum(axis=1, keepdims=True), b.sum(axis=1, keepdims=True)) for a, b in sides]
        return paired.ratio_difference(sides[0], sides[1], confidence=confidence, replicates=replicates)
    except (ValueError, IndexError, TypeError) as error:
        return f"the outcomes cannot be paired: {error}"


def flips(first: Table, second: Table) -> Flips | None:
    """Which samples one of the two alone has right; None where the tables do not say."""
    if not {"label", "prediction", "correct"} <= set(first) & set(second):
        return None
    a, b = first["correct"].astype(bool), second["correct"].astype(bool)
    gained, lost = np.flatnonzero(~a & b), np.flatnonzero(a & ~b)
    return Flips(
        gained=len(gained), lost=len(lost), gained_samples=gained[:LISTED].tolist(),
        lost_samples=lost[:LISTED].tolist(),
        same_prediction=100 * float((first["prediction"] == second["prediction"]).mean()),
    )  # fmt: skip


def movers(metric: str, first: Table, second: Table, names: Sequence[str] | Mapping[str, str] = ()) -> list[Mover]:
    """Every class in both tables, most lost first; ``names`` of the classes, in order where the tables number them
    from 0, or by label.
    """
    both = set(first) & set(second)
    if both >= PACKED:
        classes = [unpacked(table) for table in (first, second)]
        figure = f"ap{metric.rpartition('_ap')[2]}"
        scores = [by_class(own, recalls, figure if figure in ("ap50", "ap75") else "ap") for own, recalls in classes]
        counts = [int(own.objects.sum()) for own in classes[0][0]]
        found = _moved(scores[0], scores[1], counts, names)
    elif {"intersection", "union"} <= both and metric == "miou":
        sums = [(t["intersection"].sum(axis=0), t["union"].sum(axis=0)) for t in (first, second)]
        ious = [[float(i / u) if u > 0 else None for i, u in zip(*pair, strict=True)] for pair in sums]
        shown = first["labelled"] if "labelled" in both else first["union"]
        found = _moved(ious[0], ious[1], (shown > 0).sum(axis=0).tolist(), names)
    elif {"label", "correct"} <= both:
        classes_, index = np.unique(first["label"], return_inverse=True)
        counts_ = np.bincount(index)
        right = [100 * np.bincount(index, weights=t["correct"].astype(float)) / counts_ for t in (first, second)]
        called = names if isinstance(names, Mapping) else {}
        found = [
            Mover(label=int(c), name=called.get(str(int(c))), n=int(n), first=float(a), second=float(b))
            for c, n, a, b in zip(classes_, counts_, *right, strict=True)
        ]
    else:
        return []
    return sorted(found, key=lambda mover: mover.second - mover.first)


def _moved(
    first: Sequence[float | None],
    second: Sequence[float | None],
    counts: Sequence[int],
    names: Sequence[str] | Mapping[str, str],
) -> list[Mover]:
    in_order = not isinstance(names, Mapping) and len(names) == len(counts)
    called = list(names) if in_order else [None] * len(counts)
    return [
        Mover(label=number, name=called[number], n=n, first=100 * a, second=100 * b)
        for number, (a, b, n) in enumerate(zip(first, second, counts, strict=True))
        if a is not None and b is not None
    ]
