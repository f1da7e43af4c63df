"""kNN from a few training samples of every class, over several tries (DINOv2's and DINOv3's few-shot evaluations)."""

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

    A size is a number of samples a class, or (``percent``) a share of each, rounded down and one at least. Of a number
    n the k are those asked for and n itself, as far as they do not exceed n (DINOv2's); with ``largest_k`` at ``bank``
    those asked for, none above the number of samples drawn (DINOv3's). The headline is the last size's, at the headline
    k, or at the largest where that is larger.
    """
    settings = task.settings
    labels = labels_of(task)
    x, queries = features_of(task.data["train"], "pooled"), normalised(features_of(task.data["test"], "pooled"))
    counts = np.bincount(labels.train, minlength=labels.trained)
    sizes = [({"n_per_class": n}, np.full(labels.trained, n)) for n in settings["n_per_class"]]
    for share in settings.get("percent", []):
        sizes.append(({"percent": share}, np.maximum(np.floor(share / 100 * counts).astype(int), 1)))
    seeds = [task.seed + number for number in range(settings["tries"])]
    with task.progress.stage("few-shot kNN", len(sizes) * len(seeds), "tries") as stage:
        for size, quota in sizes:
            asked, most = _ks(settings, size, int(np.minimum(quota, counts).sum()))
            headline = min(headline_of(settings, "k"), most), headline_of(settings, "temperature")
            details: dict[str, Any] = {}
            if short := int((counts < quota).sum()):
                details["classes_with_fewer_samples"] = short
            runs = []
            for seed in seeds:
                rows = drawn(labels.train, quota, seed)
                known = replace(labels, train=labels.train[rows])
                found = search(Rows(normalised(x[rows])), queries, min(asked[-1], len(rows)), device=task.device)
                alone = replace(task, outcomes={}, seed=seed)
                run: list[Measurement] = []
                for k in asked:
                    for temperature in settings["temperature"]:
                        votes = decide(found, known, min(k, len(rows)), settings["weight"], temperature)
                        run += accuracies(
                            alone, known, votes.top, votes.share, engine=ENGINE, outcome="", metrics=("top1", "top5"),
                            headline=size == sizes[-1][0] and (k, temperature) == headline, details=details,
                            settings={**size, "k": k, "temperature": temperature},
                        )  # fmt: skip
                runs.append(run)
                stage.advance()
            yield from runs[0] if len(runs) == 1 else over_runs(runs, seeds, "tries")


def _ks(settings: dict[str, Any], size: dict[str, Any], samples: int) -> tuple[list[int], int]:
    """(the k of a size, the largest that it allows) of so many samples in all."""
    if settings.get("largest_k") == "bank" or "n_per_class" not in size:
        return sorted({min(k, samples) for k in settings["k"]}), samples
    n = size["n_per_class"]
    return sorted(k for k in {*settings["k"], n} if k <= n), n
