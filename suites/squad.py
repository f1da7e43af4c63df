"""SQuAD 1.1: a text encoder fine-tuned to mark answers, by exact match and F1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.bootstrap import percentile, resampled_sums
from bench.errors import BenchError
from bench.options import Allowed, count
from bench.suite import Needs, Outcomes, engine_of
from suites.squad_metrics import best, exact_match, f1

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

REPLICATES = 1000


class SQuAD:
    """``f1`` (the headline) and ``em``; predictions and n-best lists are kept in the official JSON forms."""

    name = "squad"
    default = "squad/bert@1"
    options: ClassVar[dict[str, Allowed]] = {
        "epochs": Allowed(above=0, most=100_000),
        "batch": count(),
        "lr": Allowed(above=0, most=1e3),
        "weight_decay": Allowed(least=0, most=1e3),
        # Share of the training.
        "warmup": Allowed(least=0, below=1),
        "clip": Allowed(least=0, most=1e6),
        "dropout": Allowed(least=0, below=1),
        "head_sd": Allowed(above=0, most=10),
        # Tokens: of a window, between windows, of a question, of an answer.
        "length": count(8, 100_000),
        "stride": count(),
        "query": count(),
        "answer": count(),
        "n_best": count(1, 1000),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if card.family != "text":
            raise BenchError(
                f"suite 'squad' fine-tunes a text encoder, and '{card.name}' ({card.architecture}) is none: give a "
                f"Hugging Face folder of one as --model"
            )
        return Needs(features=(), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        from suites.reading_comprehension import answers, learned

        images = task.images
        for split in ("train", "test"):
            if not callable(getattr(images[split], "question", None)) or images[split].classes != ("span",):
                raise BenchError(f"suite 'squad' reads questions with answers, and {images[split].name} has none")
        trained, windows = learned(task)
        found = answers(task, trained)
        questions = [images["test"].question(i) for i in range(len(images["test"]))]  # type: ignore[attr-defined]
        predictions = {asked.id: texts[0]["text"] for asked, texts in zip(questions, found, strict=True)}
        task.files["predictions.json"] = json.dumps(predictions).encode()
        task.files["nbest_predictions.json"] = json.dumps(
            {asked.id: texts for asked, texts in zip(questions, found, strict=True)}
        ).encode()
        values = {
            name: np.array(
                [best(metric, texts[0]["text"], q.answers) for q, texts in zip(questions, found, strict=True)]
            )
            for name, metric in (("f1", f1), ("em", exact_match))
        }
        (drawn,) = resampled_sums([np.stack(list(values.values()), axis=1)], replicates=REPLICATES, seed=task.seed)
        n = len(questions)
        table = Outcomes("dev", {"f1": values["f1"], "em": values["em"], "correct": values["em"] == 1})
        details: dict[str, Any] = {
            **trained.details(), "windows": windows, "predictions": ["predictions.json", "nbest_predictions.json"]
        }  # fmt: skip
        for column, (name, each) in enumerate(values.items()):
            value = float(each.mean())
            interval = percentile(drawn[:, column] / n, value)
            assert interval is not None
            yield task.measure(
                name, 100 * value, n=n, engine=engine_of("torch", "bench-train+torch"), headline=name == "f1",
                interval=(100 * interval[0], 100 * interval[1]), interval_method="bootstrap over questions",
                outcomes=table, seeds=[task.seed], settings={}, details=details,
                feature={**task.feature(), "tokens": "all", "trained": "end to end"},
            )  # fmt: skip
