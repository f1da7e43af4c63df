"""Out-of-distribution detection: scores from the frozen feature and from logits, judged by AUROC and FPR95."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.bootstrap import percentile
from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.stats import wilson
from bench.suite import Needs, Outcomes, engine_of
from suites import ood_scores
from suites.classification import Labels, features_of, finite_blocks
from suites.pairing import knows

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Engine, Measurement
    from bench.suite import Task

ROWS = 4096
Z95 = 1.959963984540054
LOGIT_SCORES = ("energy", "msp")


class OutOfDistribution:
    """AUROC and FPR95 of every score; test samples whose class the training split lacks are the outside.

    Data: ``ood:IN,OUT``, or any set whose test split has classes of its own.
    """

    name = "ood"
    default = "ood/standard@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        "scores": words("knn", "mahalanobis", *LOGIT_SCORES, once=True),
        "k": count(),
        "temperature": positive(1e6),
        "logits": words("auto", "own", "probe"),
        "C": positive(),
        "replicates": count(100, 100_000),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        own = "logits" in card.dims and protocol.settings["logits"] != "probe"
        if protocol.settings["logits"] == "own" and not own:
            raise BenchError(f"ood.logits=own cannot be: '{card.name}' has no classifier of its own; use probe")
        return Needs(("pooled", "logits") if own else ("pooled",))

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        train, test = task.data["train"], task.data["test"]
        for data in (train, test):
            if data.labels.ndim != 1:
                raise BenchError(f"{data.dataset} {data.split} gives a sample several labels: ood expects one")
        values, y = np.unique(train.labels, return_inverse=True)
        out = ~np.isin(test.labels, values)
        for side, there in (("outside", int(out.sum())), ("inside", int((~out).sum()))):
            if there < 2:
                raise BenchError(
                    f"{test.dataset} {test.split} has {there} samples {side} the classes of {train.dataset} "
                    f"{train.split}, and ood needs two or more: give --data ood:IN,OUT, "
                    f"or stored features with test labels that train lacks"
                )
        logits: tuple[str, np.ndarray, dict[str, Any]] | None = None
        facts = {"inside": int((~out).sum()), "outside": int(out.sum())}
        for name in task.settings["scores"]:
            if name in LOGIT_SCORES and logits is None:
                logits = _logits(task, values, y)
            score, engine, more = _score(task, name, values, y, logits)
            table = Outcomes(name, {"score": score, "out": out})
            settings = {"score": name, **more.pop("settings", {})}
            details = {**facts, **more.pop("details", {})}
            yield from _judged(
                task, score[~out], score[out], headline=name == task.settings["scores"][0], n=len(test), engine=engine,
                outcomes=table, seeds=[task.seed], settings=settings, details=details, **more,
            )  # fmt: skip


def _score(
    task: Task,
    name: str,
    values: np.ndarray,
    y: np.ndarray,
    logits: tuple[str, np.ndarray, dict[str, Any]] | None,
) -> tuple[np.ndarray, Engine, dict[str, Any]]:
    """(float64 [N], its engine, what goes to `Task.measure`)."""
    settings, train, test = task.settings, task.data["train"], task.data["test"]
    if name == "knn":
        from suites.neighbours import ENGINE, bank_of, normalised, passes, search

        k = settings["k"]
        if k > len(train):
            raise BenchError(f"ood.k={k} is more than the {len(train)} training samples: set it lower")
        bank, _ = bank_of(train, "pooled")
        queries = normalised(features_of(test, "pooled"))
        with task.progress.stage("kNN search", len(bank) * passes(len(queries), k), "rows") as stage:
            found = search(bank, queries, k, device=task.device, stage=stage)
        # Of rows of length 1 the k-th largest inner product and the k-th smallest distance order alike.
        more: dict[str, Any] = {"settings": {"k": k}, "feature": {**task.feature(), "norm": "l2"}}
        return found.similarity[:, k - 1], ENGINE, more
    if name == "mahalanobis":
        if len(values) == len(train):
            raise BenchError("every class has a single training sample: Mahalanobis needs the spread within classes")
        with task.progress.stage("class Gaussians", 1, "fit") as stage:
            fitted = ood_scores.Gaussians(
                lambda: finite_blocks(train, "pooled", ROWS), y, len(values), train.widths["pooled"]
            )
            stage.advance()
        if not fitted.rank:
            raise BenchError("the training features do not vary within any class: Mahalanobis is not defined")
        parts = [fitted.score(block) for _, block in finite_blocks(test, "pooled", ROWS)]
        return np.concatenate(parts), engine_of("numpy"), {"details": {"rank": fitted.rank}}
    assert logits is not None
    source, columns, more = logits
    if name == "msp":
        return ood_scores.largest_probability(columns), engine_of("numpy"), {**more, "settings": {"logits": source}}
    temperature = settings["temperature"]
    score = ood_scores.energy(columns, temperature)
    return score, engine_of("numpy"), {**more, "settings": {"logits": source, "temperature": temperature}}


def _logits(task: Task, values: np.ndarray, y: np.ndarray) -> tuple[str, np.ndarray, dict[str, Any]]:
    """(``own`` or ``probe``, logits [N, C] of the test split, what goes to `Task.measure`)."""
    wish, train, test = task.settings["logits"], task.data["train"], task.data["test"]
    width = test.widths.get("logits") if wish != "probe" else None
    known = task.card.family == "features" or knows(task.card.classes, train.dataset)
    if width is not None and (wish == "own" or (known and width == len(values))):
        return "own", features_of(test, "logits"), {"feature": {"tokens": "logits", "layers": 1, "norm": "none"}}
    from bench.protocol import get
    from suites.logreg_probe import probe, remarks

    if len(values) < 2:
        raise BenchError(f"{train.dataset} {train.split} has a single class: a probe needs two or more")
    card = get("linear", "linear/logreg@1").variant({"C": task.settings["C"]})
    labels = Labels(values, len(values), y, np.zeros(0, dtype=np.int64))
    chosen, path, fit = probe(replace(task, protocol=card), labels, features_of(train, "pooled"))
    found = fit.logits(features_of(test, "pooled"))
    details = {"chosen": chosen, **remarks(card.settings, path, chosen, fit)}
    selection = "none" if task.settings["C"] is not None else "holdout"
    return "probe", found, {"details": {"probe": details}, "selection": selection}


def _judged(
    task: Task, inside: np.ndarray, outside: np.ndarray, *, headline: bool, **more: Any
) -> Iterator[Measurement]:
    area, variance = ood_scores.auroc(inside, outside)
    span = ood_scores.auroc_interval(area, variance, Z95)
    yield task.measure(
        "auroc", 100 * area, headline=headline, interval=(100 * span[0], 100 * span[1]) if span else None,
        interval_method="delong-logit" if span else None,
        interval_note=None if span else "the score parts the two sides without a variance to go by", **more,
    )  # fmt: skip
    value = 100 * ood_scores.fpr95(inside, outside)
    yield task.measure(
        "fpr95", value, higher_is_better=False, interval=_fpr95_interval(task, inside, outside, value),
        interval_method="bootstrap over samples, at least wilson's", **more,
    )  # fmt: skip


def _fpr95_interval(task: Task, inside: np.ndarray, outside: np.ndarray, value: float) -> tuple[float, float]:
    """In percent. Resamples move the threshold too, but where all of the outside or none passes they are all alike:
    that many samples say no more than Wilson's interval, and no width at all would be false."""
    draws = ood_scores.fpr95_draws(inside, outside, task.settings["replicates"], task.seed)
    drawn = percentile(np.array([100 * draw for draw in draws]), value)
    assert drawn is not None, "every draw is a share"
    low, high = wilson(round(value / 100 * len(outside)), len(outside))
    return min(drawn[0], 100 * low), max(drawn[1], 100 * high)
