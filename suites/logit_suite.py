"""Logits: does the student's classifier relate the classes to each other as its teacher's does?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.bootstrap import percentile
from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, Outcomes, engine_of
from suites import embedding_map, figures
from suites.logit_structure import (
    LogitDifference,
    class_difference,
    class_means,
    correlation_difference,
    correlations,
)
from suites.pairing import described, logits_of, networks_of

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

MOST = 3.0
"""Where the colours of the class-logit difference end, as in DCD's figure 2: figures of several students compare."""
SUMMARIES = ("mean", "max", "frobenius")


class LogitStructure:
    """DCD's class-logit difference (the headline is its mean) and the difference of logit correlations.

    The matrices themselves are artifacts: both networks' and the difference.
    """

    name = "logits"
    default = "logits/dcd@1"
    options: ClassVar[dict[str, Allowed]] = {
        "logits": words("auto", "own", "probe"),
        "split": words("train", "test"),
        "C": positive(),
        "replicates": count(100, 10_000_000),
        "figures": figures.FORMATS,
        "embedding": words("tsne", "umap", "none"),
        "points": count(5, 10_000),
        "perplexity": positive(1000),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        settings = protocol.settings
        embedding_map.check(settings["embedding"])
        own = settings["logits"] == "own"
        features = ("pooled", "logits") if "logits" in card.dims or own else ("pooled",)
        return Needs(features, (settings["split"],) if own else ("train", "test"), teacher=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        networks = networks_of(task)
        split: str = task.settings["split"]
        logits = logits_of(task, networks, [split])
        target = logits.target[split]
        known = np.flatnonzero(target >= 0)
        target = target[known]
        teacher, student = (logits.by_role[role][split][known].astype(np.float64) for role in ("teacher", "student"))
        details: dict[str, Any] = {"networks": described(networks)}
        if len(known) < len(logits.target[split]):
            details["without_training_samples"] = len(logits.target[split]) - len(known)
        if logits.details:
            details["probes"] = logits.details
        kinds: dict[str, tuple[Callable[[np.ndarray], LogitDifference], Callable[[np.ndarray], np.ndarray]]] = {
            "class_logits": (
                lambda rows: class_difference(teacher[rows], student[rows], target[rows]),
                lambda values: class_means(values, target),
            ),
            "logit_correlation": (
                lambda rows: correlation_difference(teacher[rows], student[rows]),
                lambda values: correlations(values),
            ),
        }
        rng = np.random.default_rng(task.seed)
        draws = [rng.integers(0, len(known), len(known)) for _ in range(self._replicates(task, teacher.shape))]
        for kind, (of, matrix) in kinds.items():
            try:
                found = of(np.arange(len(known)))
            except BenchError as refusal:
                task.progress.warn(f"logits: {kind} is left out: {refusal}")
                continue
            if len(found.kept) < teacher.shape[1]:
                details = {**details, "classes_left_out": teacher.shape[1] - len(found.kept)}
            inside = np.ix_(found.kept, found.kept)
            arrays = {
                "classes": logits.values[found.kept],
                "teacher": matrix(teacher)[inside],
                "student": matrix(student)[inside],
                "difference": found.matrix,
            }
            table = Outcomes(f"{kind}-{split}", arrays)
            names = class_names(task, logits.values[found.kept])
            said = figures.captions(
                task,
                {
                    f"class_logits-{split}": "mean standardised logits by class, and their difference",
                    f"logit_correlation-{split}": "correlations of logits, and their difference",
                    f"map-{split}": "teacher and student in one map",
                },
            )
            figures.keep(task, f"{kind}-{split}", partial(_matrices, kind, arrays, names))
            with task.progress.stage(f"{kind} bootstrap", len(draws), "resamples") as stage:
                drawn = []
                for rows in draws:
                    drawn.append(_summaries(of, rows))
                    stage.advance()
            samples = np.array(drawn)
            for i, name in enumerate(SUMMARIES):
                value = float(getattr(found, name))
                interval = percentile(samples[:, i], value)
                yield task.measure(
                    f"{kind}_{name}",
                    value,
                    n=len(known),
                    engine=engine_of("numpy", "bench-logits+numpy"),
                    unit="",
                    higher_is_better=False,
                    interval=interval,
                    interval_method="bootstrap over samples" if interval else None,
                    interval_note=None if interval else "undefined in more than one of twenty resamples",
                    split=split,
                    selection="holdout" if logits.source == "probe" and task.settings["C"] is None else "none",
                    seeds=[task.seed],
                    headline=kind == "class_logits" and name == "mean",
                    settings={"logits": logits.source, "teacher": networks["teacher"].label},
                    details={**details, "replicates": len(draws), **(said if i == 0 else {})},
                    outcomes=table,
                )

        names = class_names(task, logits.values)
        if task.settings["embedding"] != "none":
            figures.keep(task, f"map-{split}", partial(_plane, task, teacher, student, target, names))

    @staticmethod
    def _replicates(task: Task, shape: tuple[int, ...]) -> int:
        """As many as the card says, fewer where each costs much: at most some 2e10 numbers are read, 200 at least."""
        return int(min(task.settings["replicates"], max(200, 2e10 // (shape[0] * shape[1] * 20))))


def class_names(task: Task, values: np.ndarray) -> list[str]:
    """Names of the data set's classes ``values``."""
    known = task.data[next(iter(task.data))].classes
    return [known.get(int(value), str(int(value))) for value in values]


def _matrices(kind: str, arrays: dict[str, np.ndarray], names: list[str]) -> figures.Spec:
    panels = {"Teacher": arrays["teacher"], "Student": arrays["student"], "Absolute difference": arrays["difference"]}
    if kind == "class_logits":
        return figures.matrices(
            "Mean standardised logits by class", panels, names, ("True class", "Logit of class"),
            signed=("Teacher", "Student"), ends={"Absolute difference": MOST},
        )  # fmt: skip
    return figures.matrices(
        "Correlation of logits", panels, names, ("Logit of class", "Logit of class"), signed=("Teacher", "Student")
    )


def _plane(
    task: Task, teacher: np.ndarray, student: np.ndarray, target: np.ndarray, names: list[str]
) -> figures.Spec:  # fmt: skip
    settings = task.settings
    with task.progress.stage(settings["embedding"], 1, "map") as stage:
        found = embedding_map.plane(
            teacher, student, target, method=settings["embedding"], samples=settings["points"],
            perplexity=settings["perplexity"], seed=task.seed,
        )  # fmt: skip
        stage.advance()
    m = len(found.target)
    labels = [names[c] for c in found.target] * 2
    called = {"tsne": "t-SNE", "umap": "UMAP"}[settings["embedding"]]
    return figures.embedding(
        f"{called} of teacher and student", f"standardised logits of {m} samples, each drawn once a network",
        np.concatenate([found.teacher, found.student]), ["Teacher"] * m + ["Student"] * m, labels,
    )  # fmt: skip


def _summaries(of: Callable[[np.ndarray], LogitDifference], rows: np.ndarray) -> tuple[float, ...]:
    try:
        found = of(rows)
    except BenchError:
        return (np.nan,) * len(SUMMARIES)
    return tuple(float(getattr(found, name)) for name in SUMMARIES)
