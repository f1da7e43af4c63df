"""GLUE: a text encoder fine-tuned on each of the nine tasks, by the task's metrics, and the averages of papers."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from bench.card import digest_of
from bench.errors import BenchError
from bench.files import write_atomically
from bench.options import Allowed, words
from bench.suite import Needs, Outcomes, engine_of
from suites.classification import labels_of
from suites.finetune import predict, some_of, train_copy
from suites.finetuning import text
from suites.finetuning.recipe import OPTIONS, grid_of, table
from suites.glue_metrics import Score, binary, correlations, mean_of
from suites.transfer import mean_of as mean_over_sets

if TYPE_CHECKING:
    from bench.card import Card
    from bench.dataset import Dataset
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task


class Row(NamedTuple):
    """A task's metrics, whose mean is its score, and its published samples (train, development)."""

    metrics: tuple[str, ...]
    train: int
    dev: int


ROWS = {
    "cola": Row(("matthews",), 8551, 1043),
    "sst2": Row(("top1",), 67349, 872),
    "mrpc": Row(("f1", "top1"), 3668, 408),
    "stsb": Row(("pearson", "spearman"), 5749, 1500),
    "qqp": Row(("f1", "top1"), 363846, 40430),
    "mnli": Row(("matched", "mismatched"), 392702, 9815 + 9832),
    "qnli": Row(("top1",), 104743, 5463),
    "rte": Row(("top1",), 2490, 277),
    "wnli": Row(("top1",), 635, 71),
}
AVERAGES = {
    "avg": "mean of the scores of the eight tasks without WNLI, as BERT, TinyBERT, MobileBERT and MiniLM state it",
    "avg_wnli": "mean of the scores of all nine tasks, as GLUE's own site and DistilBERT state it",
}
SCORES = (
    "a task's score is the mean of its metrics (F1 and accuracy, two correlations, matched and mismatched), times 100"
)
_NEAR = 1e-3
"""Share of the published training samples that may be missing: versions of QQP differ by three lines."""


class GLUE:
    """One headline a task: its metric, or ``score``, the mean of its two; ``avg`` only over whole tasks."""

    name = "glue"
    default = "glue/bert@1"
    options: ClassVar[dict[str, Allowed]] = {
        **OPTIONS, "tasks": words(*ROWS, once=True), "select": words("test", "holdout"),
    }  # fmt: skip

    def data_sets(self, protocol: Protocol) -> tuple[str, ...]:
        return tuple(f"glue:{'mnli-both' if name == 'mnli' else name}" for name in protocol.settings["tasks"])

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if card.family != "text":
            raise BenchError(
                f"suite 'glue' fine-tunes a text encoder, and '{card.name}' ({card.architecture}) is none: give a "
                f"Hugging Face folder of one as --model"
            )
        text.check(protocol, card)
        return Needs(features=(), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        name = task_of(task.source)
        task = text.shortened(task)
        learning = _Learning(task, name)
        lr, decay, logits, kept, tried, facts = learning.carried_out()
        if len(kept) < len(task.data["test"]):
            task = dataclasses.replace(task, data={**task.data, "test": some_of(task.data["test"], kept)})
        selection = task.protocol.selection if tried else "last"
        row = ROWS[name]
        more: dict[str, Any] = {
            "engine": engine_of("torch", "bench-train+torch"), "seeds": [task.seed], "selection": selection,
            "feature": {**task.feature(), "tokens": task.settings["pool"], "trained": "end to end"},
            "details": {
                **facts, "recipe": table(task.settings), "lr": lr, "weight_decay": decay, "score": SCORES,
                "whole": len(task.data["test"]) == row.dev and len(task.data["train"]) >= (1 - _NEAR) * row.train,
                **({"tried": tried} if tried else {}),
            },
        }  # fmt: skip
        yield from measured(task, name, logits, learning.truth[kept], more)

    def summary(
        self, protocol: Protocol, measurements: list[Measurement], missing: Mapping[str, str]
    ) -> Iterator[Measurement]:
        """`AVERAGES`, each only when all of its tasks are here and whole."""
        heads = {task_of(m.dataset.replace("glue-", "glue:", 1)): m for m in measurements if m.headline}
        for metric, definition in AVERAGES.items():
            wanted = [name for name in ROWS if metric == "avg_wnli" or name != "wnli"]
            if not all(name in heads and heads[name].details["whole"] for name in wanted):
                continue
            average = mean_over_sets(protocol, [heads[name] for name in wanted], metric, headline=metric == "avg")
            details = {**average.details, "average": definition, "score": SCORES}
            best = average.selection == "best_on_test"
            note = "selected on the sets that are reported" if best else average.interval_note
            yield average.model_copy(
                update={"dataset": "glue", "split": "dev", "details": details, "interval_note": note}
            )


def measured(
    task: Task, name: str, logits: np.ndarray, truth: np.ndarray, more: dict[str, Any]
) -> Iterator[Measurement]:
    """The metrics of a task, times 100; ``score``, their mean, where there are two, is then the headline."""
    found, n = scores(task, name, logits, truth), len(truth)
    answer = logits[:, 0] if name == "stsb" else logits.argmax(axis=1)
    arrays = {"label": truth, "prediction": answer, "correct": answer == truth}
    if name == "stsb":
        arrays = {"target": truth, "prediction": answer}
    outcomes = Outcomes("dev", arrays)
    pair = len(found) > 1
    if pair:
        found = {**found, "score": mean_of(list(found.values()))}
    for metric, score in found.items():
        if metric in ("matched", "mismatched"):
            n_part, settings, called = int(_part(task, metric).sum()), {"set": metric}, "top1"
        else:
            n_part, settings, called = n, {}, metric
        best = more["selection"] == "best_on_test"
        interval = None if best else score.interval()
        yield task.measure(
            called, 100 * score.value, n=n_part, settings=settings, outcomes=outcomes,
            headline=metric == "score" or not pair,
            interval=None if interval is None else (100 * interval[0], 100 * interval[1]),
            interval_method="bootstrap over samples" if interval else None,
            interval_note="selected on the set that is reported" if best else
            None if interval else "undefined in more than one of twenty resamples", **more,
        )  # fmt: skip


def scores(task: Task, name: str, logits: np.ndarray, truth: np.ndarray) -> dict[str, Score]:
    """Every metric of the task, as shares or correlations."""
    if not np.isfinite(logits).all():
        raise BenchError(f"glue: the network fine-tuned on {name} gives numbers that are not finite: lower glue.lr")
    if name == "stsb":
        return correlations(truth, logits[:, 0].astype(np.float64), task.seed)
    answer = logits.argmax(axis=1)
    if name == "mnli":
        both: dict[str, Score] = {}
        for metric in ROWS[name].metrics:
            rows = _part(task, metric)
            if not rows.any():
                raise BenchError(f"glue: MNLI has no {metric} development set here: provide both")
            both[metric] = binary(("top1",), np.ones(int(rows.sum()), int), _right(answer, truth, rows), task.seed)[
                "top1"
            ]
        return both
    metrics = ROWS[name].metrics
    if metrics == ("top1",):
        everywhere = np.ones(len(truth), dtype=bool)
        return binary(metrics, np.ones(len(truth), int), _right(answer, truth, everywhere), task.seed)
    return binary(metrics, truth, answer, task.seed)


def task_of(source: str) -> str:
    """``glue:mnli-both`` -> ``mnli``."""
    return source.removeprefix("glue:").partition("@")[0].removesuffix("-both")


def _right(answer: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> np.ndarray:
    right: np.ndarray = (answer == truth)[rows].astype(int)
    return right


def _part(task: Task, metric: str) -> np.ndarray:
    return np.array([name.startswith(f"{metric}/") for name in task.data["test"].ids])


class _Learning:
    """The points of the grid, each trained once whatever interrupts; and the answers of the best."""

    def __init__(self, task: Task, name: str) -> None:
        self.task, self.name = task, name
        self.train: Dataset = task.images["train"]
        self.regression = name == "stsb"
        if self.regression:
            self.y, self.truth = (_targets(task.images[split]) for split in ("train", "test"))
            self.classes = 1
        else:
            labels = labels_of(task)
            if labels.values.tolist() != list(range(len(self.train.classes))):
                raise BenchError(f"{self.train.name}: some class has no training sample: the task cannot be learned")
            self.y, self.truth, self.classes = labels.train, labels.test, labels.trained

    def carried_out(self) -> tuple[float, float, np.ndarray, np.ndarray, list[dict[str, Any]], dict[str, Any]]:
        """(lr, weight decay, logits [M, C], rows [M], what was tried, facts of the training) of the best point."""
        task, grid = self.task, grid_of(self.task.settings)
        test, everything = task.images["test"], np.arange(len(self.train))
        say = "; ".join(f"{key} {value}" for key, value in table(task.settings).items())
        task.progress.say(f"{task.protocol.id}, {self.name}: {say}")
        tried: list[dict[str, Any]] = []
        if len(grid) == 1:
            (lr, decay), found = grid[0], self._point("glue", grid[0], everything, test)
        elif task.settings["select"] == "test":
            points = [self._point(f"glue {i}", point, everything, test) for i, point in enumerate(grid, 1)]
            tried = [self._tried(p, f, self.truth[f[1]], "dev_score", task) for p, f in zip(grid, points, strict=True)]
            best = max(range(len(grid)), key=lambda i: tried[i]["dev_score"])
            (lr, decay), found = grid[best], points[best]
        else:
            held = self._held()
            known, unknown = np.flatnonzero(~held), np.flatnonzero(held)
            part, view = self._held_task(unknown)
            for i, point in enumerate(grid, 1):
                made = self._point(f"glue {i}", point, known, part)
                tried.append(self._tried(point, made, self.y[unknown[made[1]]], "holdout_score", view))
            best = max(range(len(grid)), key=lambda i: tried[i]["holdout_score"])
            lr, decay = grid[best]
            found = self._point("glue", grid[best], everything, test)
        return lr, decay, found[0], found[1], tried, found[2]

    def _tried(self, point: tuple[float, float], found: Any, truth: np.ndarray, key: str, task: Task) -> dict[str, Any]:
        logits = found[0]
        if self.name == "mnli" and key == "holdout_score":
            # Train has neither matched nor mismatched samples: all of its genres are matched.
            score = float((logits.argmax(axis=1) == truth).mean())
        else:
            score = mean_of(list(scores(task, self.name, logits, truth).values())).value
        return {"lr": point[0], "weight_decay": point[1], key: 100 * score}

    def _held(self) -> np.ndarray:
        share, seed = self.task.settings["holdout"], self.task.seed
        if not self.regression:
            from suites.validation import holdout

            return holdout(self.y, share, seed, remedy="give one glue.lr and weight_decay")
        held = np.zeros(len(self.y), dtype=bool)
        held[np.random.default_rng(seed).permutation(len(held))[: max(2, round(share * len(held)))]] = True
        return held

    def _held_task(self, unknown: np.ndarray) -> tuple[Dataset, Task]:
        from bench.data.subset import Subset

        data = {**self.task.data, "test": some_of(self.task.data["train"], unknown)}
        return Subset(self.train, unknown), dataclasses.replace(self.task, data=data)

    def _point(
        self, name: str, point: tuple[float, float], rows: np.ndarray, test: Dataset
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """(logits, rows of ``test`` they are of, facts) of one training; kept, so that none is done twice."""
        folder = self.task.folder
        kept = (
            folder / f"{name.replace(' ', '-')}-{digest_of([list(point), len(rows), len(test)])[:12]}.npz"
            if folder
            else None
        )
        if kept is not None and kept.is_file():
            try:
                with np.load(io.BytesIO(kept.read_bytes()), allow_pickle=False) as stored:
                    return stored["logits"], stored["rows"], json.loads(str(stored["facts"]))
            except (OSError, ValueError, KeyError):
                kept.unlink(missing_ok=True)
        trained = train_copy(
            self.task, self.train, self.y, rows, self.classes, *point, f"{name} {self.name}", regression=self.regression
        )
        logits, found, left_out = predict(self.task, trained, test, f"{self.name} answers")
        facts = {**trained.details(), **({"left_out": {"test": left_out}} if left_out else {})}
        if kept is not None:
            content = io.BytesIO()
            np.savez(content, logits=logits, rows=found, facts=json.dumps(facts))
            write_atomically(kept, content.getvalue())
        return logits, found, facts


def _targets(dataset: Dataset) -> np.ndarray:
    found: np.ndarray | None = getattr(dataset, "targets", None)
    if found is None:
        raise BenchError(f"{dataset.name} gives samples no scores to learn")
    return found
