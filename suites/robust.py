"""Robustness: ImageNet's classifier on shifted test sets - accuracy over the right classes, calibration, and mCE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from bench.axes import FROZEN
from bench.bootstrap import percentile, resampled_sums
from bench.card import digest_of
from bench.data.robustness import SEVERITIES
from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.stats import wilson
from bench.suite import Needs, Outcomes, engine_of
from suites import fidelity
from suites.classification import Labels, features_of, finite_blocks
from suites.pairing import knows
from suites.robust_sets import ALEXNET, MADE, SETS, set_of, specs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

ROWS = 4096


class Classifier(NamedTuple):
    """Answers over the classes that it learned."""

    source: str
    """``own`` or ``probe``."""
    reads: str
    """The stored array that it answers from."""
    values: np.ndarray
    """int64 [K]: the label of every column."""
    logits: Callable[[np.ndarray], np.ndarray]
    """float [n, K] of rows float32 [n, D] of that array."""
    details: dict[str, Any]


class Robust:
    """Top-1 (top-5, calibration error) on every set by one classifier, and on ImageNet-C the mean corruption error.

    A set of 200 classes is answered among those 200 alone (Hendrycks et al. 2021); ReaL counts any of an image's labels
    as right (Beyer et al. 2020).
    """

    name = "robust"
    default = "robust/standard@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        "sets": words(*SETS, once=True),
        "classifier": words("auto", "own", "probe"),
        "C": positive(),
        "bins": count(most=1000),
        "replicates": count(100, 100_000),
    }

    def __init__(self) -> None:
        self._probe: tuple[str, Classifier] | None = None
        """The one probe of a run with what it was trained on: the sets share their training split."""

    def data_sets(self, protocol: Protocol) -> tuple[str, ...]:
        return specs_of(protocol.settings["sets"], _of(protocol))

    def makes(self, spec: str) -> bool:
        """Whether it is corrupted here; see `bench.items.is_made`."""
        return spec.partition(":")[0] in MADE

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        return Needs(("logits",), ("test",)) if _by_own(protocol, card) else Needs()

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        row, test = set_of(task.source, _of(task.protocol)), task.data["test"]
        if _by_own(task.protocol, task.card):
            # Other suites of the run may have asked for the training split: nothing was learned from it here.
            task = replace(task, data={"test": test})
        classifier = self._classifier(task)
        # The mask is the set's own classes, those of a part of it (--limit) included.
        asked = np.isin(classifier.values, list(test.classes)) if row.masked else np.ones(len(classifier.values), bool)
        if asked.sum() < 2:
            raise BenchError(
                f"{test.dataset} has fewer than two classes that the classifier knows: nothing to tell apart"
            )
        values = classifier.values[asked]
        found = _answers(task, classifier, asked, values)
        facts: dict[str, Any] = {
            "whole": row.generated or (len(test) == row.images and len(test.classes) == row.classes),
            "classes": len(values),
            **classifier.details,
        }
        if not facts["whole"]:
            facts["published"] = {"images": row.images, "classes": row.classes}
            facts["here"] = {"images": len(test), "classes": len(test.classes)}
        if row.corruption:
            facts |= {"corruption": row.corruption, "severity": row.severity}
        if any(name in MADE for name in task.settings["sets"]):
            facts["generated"] = bool(row.generated and row.corruption)
            if facts["generated"]:
                facts["made_by"] = task.source.partition(":")[0]
            facts["clean"] = task.source == _of(task.protocol)
        lost = int((~found["known"]).sum())
        if lost:
            facts["without_training_samples"] = {"test_samples": lost}
        arrays = {name: found[name] for name in ("prediction", "correct", "correct5", "confidence")}
        if test.labels.ndim == 1:
            arrays["label"] = test.labels.astype(np.int64)
        table = Outcomes(classifier.source, arrays)
        n = len(test)
        more: dict[str, Any] = {
            "n": n, "settings": {"logits": classifier.source}, "details": facts, "outcomes": table,
            "seeds": [task.seed],
            "selection": "holdout" if classifier.source == "probe" and task.settings["C"] is None else "none",
        }  # fmt: skip
        if classifier.source == "own":
            more["feature"] = {"tokens": "logits", "layers": 1, "norm": "none"}
        # Of ReaL there is only the first answer: the fifth best would nearly always hold one of the labels.
        for metric, column in (("top1", "correct"), ("top5", "correct5"))[: 2 if test.labels.ndim == 1 else 1]:
            hits = int(found[column].sum())
            low, high = wilson(hits, n)
            yield task.measure(
                metric, 100 * hits / n, engine=engine_of("numpy"), interval=(100 * low, 100 * high),
                interval_method="wilson", headline=metric == "top1" and not row.corruption, **more,
            )  # fmt: skip
        bins = task.settings["bins"]
        where = fidelity.confidence_bins(found["confidence"], bins)
        columns = np.zeros((n, 3 * bins))
        for part, weight in enumerate((np.ones(n), found["correct"], found["confidence"])):
            columns[np.arange(n), part * bins + where] = weight
        value = float(_ece(columns.sum(axis=0), bins))
        (drawn,) = resampled_sums([columns], replicates=task.settings["replicates"], seed=task.seed)
        interval = percentile(_ece(drawn, bins), value)
        yield task.measure(
            "ece", value, engine=engine_of("numpy"), unit="", higher_is_better=False, interval=interval,
            interval_method="bootstrap over samples" if interval else None,
            interval_note=None if interval else "undefined in more than one of twenty resamples", **more,
        )  # fmt: skip

    def summary(
        self, protocol: Protocol, measurements: list[Measurement], missing: Mapping[str, str]
    ) -> Iterator[Measurement]:
        """CE of every corruption whose five severities are here and whole, and their mean over all fifteen: mCE.

        Of corruptions made here the mean error by severity and the relative drop instead: AlexNet's errors are those
        of the published images alone.
        """
        yield from _made(measurements)
        errors: dict[str, list[Measurement]] = {}
        for m in measurements:
            if m.details.get("generated"):
                continue
            if m.metric == "top1" and m.details.get("corruption") in ALEXNET and m.details["whole"]:
                errors.setdefault(m.details["corruption"], []).append(m)
        whole = {c: errors[c] for c in ALEXNET if len(errors.get(c, ())) == len(SEVERITIES)}
        for corruption, heads in whole.items():
            yield _error(
                heads, "ce", corruption_error(corruption, [m.value for m in heads]), {"corruption": corruption}
            )
        if len(whole) == len(ALEXNET):
            each = {c: corruption_error(c, [m.value for m in heads]) for c, heads in whole.items()}
            every = [m for heads in whole.values() for m in heads]
            yield _error(every, "mce", float(np.mean(list(each.values()))), {}, headline=True, ce=each)

    def _classifier(self, task: Task) -> Classifier:
        test = task.data["test"]
        if "train" not in task.data:
            known = len(task.images["train"].class_ids)
            if test.widths["logits"] != known:
                raise BenchError(
                    f"the classifier of '{task.card.name}' has {test.widths['logits']} classes and "
                    f"{task.images['train'].name} {known}: set robust.classifier=probe"
                )
            return Classifier("own", "logits", np.array(sorted(task.images["train"].class_ids)), lambda x: x, {})
        key = digest_of([task.data["train"].fingerprint, task.card.weight_digest, task.seed, task.protocol.id])
        if self._probe is None or self._probe[0] != key:
            self._probe = key, _probe(task)
        return self._probe[1]


def _of(protocol: Protocol) -> str:
    """The data set whose classes all sets share, and that is corrupted where corruptions are made here."""
    return str(protocol.settings.get("of", "imagenet"))


def _by_own(protocol: Protocol, card: Card) -> bool:
    """Whether the network's own classifier answers, by the option ``classifier`` and what the card says of it."""
    wish = protocol.settings["classifier"]
    own = "logits" in card.dims and (wish == "own" or knows(card.classes, _of(protocol)))
    if wish == "own" and not own:
        raise BenchError(f"robust.classifier=own cannot be: '{card.name}' has no classifier of its own; use probe")
    return own and wish != "probe"


def _probe(task: Task) -> Classifier:
    """`linear/logreg@1` on the pooled feature of the training split."""
    from bench.protocol import get
    from suites.logreg_probe import probe, remarks

    card = get("linear", "linear/logreg@1").variant({"C": task.settings["C"]})
    train = task.data["train"]
    values, y = np.unique(train.labels, return_inverse=True)
    if len(values) < 2:
        raise BenchError(f"{train.dataset} {train.split} has a single class: a probe needs two or more")
    labels = Labels(values, len(values), y, np.zeros(0, dtype=np.int64))
    chosen, path, fit = probe(replace(task, protocol=card), labels, features_of(train, "pooled"))
    details = {"chosen": chosen, **remarks(card.settings, path, chosen, fit)}
    return Classifier("probe", "pooled", values, fit.logits, {"probe": details})


def _answers(task: Task, classifier: Classifier, asked: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    """By sample: ``prediction`` (a label), ``confidence``, ``correct``, ``correct5``, ``known`` (one is right)."""
    test = task.data["test"]
    parts: dict[str, list[np.ndarray]] = {}
    with task.progress.stage("answers", len(test), "samples") as stage:
        for start, block in finite_blocks(test, classifier.reads, ROWS):
            p = fidelity.log_probabilities(classifier.logits(block)[:, asked], who=f"'{task.card.name}'")
            labels = test.labels[start : start + len(block)]
            right = labels[:, values] == 1 if labels.ndim == 2 else labels[:, None] == values
            best = np.argsort(-p, axis=1, kind="stable")[:, :5]
            hit = np.take_along_axis(right, best, axis=1)
            for name, column in (
                ("prediction", values[best[:, 0]]), ("confidence", np.exp(p.max(axis=1))), ("correct", hit[:, 0]),
                ("correct5", hit.any(axis=1)), ("known", right.any(axis=1)),
            ):  # fmt: skip
                parts.setdefault(name, []).append(np.asarray(column))
            stage.advance(len(block))
    return {name: np.concatenate(columns) for name, columns in parts.items()}


def corruption_error(corruption: str, accuracies: list[float]) -> float:
    """CE in percent (Hendrycks & Dietterich 2019): the mean error over severities by AlexNet's, of percent right."""
    return float(np.mean([100 - a for a in accuracies]) / ALEXNET[corruption])


def _made(measurements: list[Measurement]) -> Iterator[Measurement]:
    """Of corruptions made here: ``error`` in percent, the mean over kinds at each severity and over all, and
    ``relative_drop``, the share of the clean accuracy that is lost (left out where that is 0)."""
    tops = [m for m in measurements if m.metric == "top1"]
    clean = next((m for m in tops if m.details.get("clean")), None)
    if clean is None:
        return
    for way in MADE:
        made = [m for m in tops if m.details.get("generated") and m.details.get("made_by") == way]
        if not made:
            continue
        name = f"{clean.dataset}-{way}"
        for severity in SEVERITIES:
            some = [m for m in made if m.details["severity"] == severity]
            value = float(np.mean([100 - m.value for m in some]))
            yield _error(some, "error", value, {"severity": severity}, dataset=name)
        value = float(np.mean([100 - m.value for m in made]))
        yield _error(made, "error", value, {"severity": "mean"}, dataset=name)
        if clean.value > 0:
            drop = 100 * (1 - (100 - value) / clean.value)
            yield _error(made, "relative_drop", drop, {}, headline=True, dataset=name, clean=clean.value)


def _ece(sums: np.ndarray, bins: int) -> np.ndarray:
    counts, right, confidence = (sums[..., part * bins : (part + 1) * bins] for part in range(3))
    return fidelity.calibration(counts, right, confidence).ece


def _error(
    heads: list[Measurement],
    metric: str,
    value: float,
    settings: dict[str, Any],
    headline: bool = False,
    dataset: str = "imagenet-c",
    **details: Any,
) -> Measurement:
    return heads[0].model_copy(
        update={
            "dataset": dataset,
            "fingerprint": f"sha256:{digest_of([m.fingerprint for m in heads])}",
            "metric": metric,
            "value": value,
            "higher_is_better": False,
            "n": sum(m.n for m in heads),
            "interval": None,
            "interval_method": None,
            "interval_note": "every severity shows the same images: their errors are not independent",
            "settings": {**heads[0].settings, **settings},
            "headline": headline,
            "outcomes": None,
            "details": {"error": {m.dataset: 100 - m.value for m in heads}, **details},
            "seconds": 0.0,
        }
    )
