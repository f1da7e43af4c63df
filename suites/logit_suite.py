"""Logits: does the student's classifier relate the classes to each other as its teacher's does?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.bootstrap import percentile
from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, Outcomes, engine_of
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
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        settings = protocol.settings
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
            table = Outcomes(
                f"{kind}-{split}",
                {
                    "classes": logits.values[found.kept],
                    "teacher": matrix(teacher)[np.ix_(found.kept, found.kept)],
                    "student": matrix(student)[np.ix_(found.kept, found.kept)],
                    "difference": found.matrix,
                },
            )
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
                    details={**details, "replicates": len(draws)},
                    outcomes=table,
                )

    @staticmethod
    def _replicates(task: Task, shape: tuple[int, ...]) -> int:
        """As many as the card says, fewer where each costs much: at most some 2e10 numbers are read, 200 at least."""
        return int(min(task.settings["replicates"], max(200, 2e10 // (shape[0] * shape[1] * 20))))


def _summaries(of: Callable[[np.ndarray], LogitDifference], rows: np.ndarray) -> tuple[float, ...]:
    try:
        found = of(rows)
    except BenchError:
        return (np.nan,) * len(SUMMARIES)
    return tuple(float(getattr(found, name)) for name in SUMMARIES)
