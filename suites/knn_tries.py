"""kNN from a few training samples of every class, over several tries (DINOv2's few-shot evaluation)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from suites.classification import accuracies, features_of, labels_of
from suites.fewshot import drawn
from suites.neighbours import ENGINE, Rows, normalised, search
from suites.repeats import over_runs
from suites.vote import decide, headline_of

if TYPE_CHECKING:
    from bench.record import Measurement
    from bench.suite import Task


def evaluate(task: Task) -> Iterator[Measurement]:
    """Top-1 and top-5 at every size, k and temperature: the mean over tries, each with samples drawn by its own seed.

    Of a size n the k are those asked for and n itself, as far as they do not exceed n. The headline is the largest
    size's, at the headline k, or at n where that is larger.
    """
    settings = task.settings
    labels = labels_of(task)
    x, queries = features_of(task.data["train"], "pooled"), normalised(features_of(task.data["test"], "pooled"))
    counts = np.bincount(labels.train, minlength=labels.trained)
    sizes = settings["n_per_class"]
    seeds = [task.seed + number for number in range(settings["tries"])]
    with task.progress.stage("few-shot kNN", len(sizes) * len(seeds), "tries") as stage:
        for n in sizes:
            asked = sorted(k for k in {*settings["k"], n} if k <= n)
            headline = n, min(headline_of(settings, "k"), n), headline_of(settings, "temperature")
            details: dict[str, Any] = {}
            if short := int((counts < n).sum()):
                details["classes_with_fewer_samples"] = short
            runs = []
            for seed in seeds:
                rows = drawn(labels.train, np.full(labels.trained, n), seed)
                known = replace(labels, train=labels.train[rows])
                found = search(Rows(normalised(x[rows])), queries, min(asked[-1], len(rows)), device=task.device)
                alone = replace(task, outcomes={}, seed=seed)
                run: list[Measurement] = []
                for k in asked:
                    for temperature in settings["temperature"]:
                        votes = decide(found, known, min(k, len(rows)), settings["weight"], temperature)
                        run += accuracies(
                            alone, known, votes.top, votes.share, engine=ENGINE, outcome="", metrics=("top1", "top5"),
                            headline=(n, k, temperature) == (sizes[-1], *headline[1:]), details=details,
                            settings={"n_per_class": n, "k": k, "temperature": temperature},
                        )  # fmt: skip
                runs.append(run)
                stage.advance()
            yield from runs[0] if len(runs) == 1 else over_runs(runs, seeds, "tries")
