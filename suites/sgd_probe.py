"""The published SGD linear probes on stored features: a grid of learning rates, one run of all heads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.suite import engine_of
from suites.classification import accuracies, features_of, labels_of
from suites.heads import Recipe, learn, scaled
from suites.linear import holdout, rank

if TYPE_CHECKING:
    from bench.record import Measurement
    from bench.suite import Task


def recipe_of(settings: dict[str, Any], n: int, rates: tuple[float, ...] | None = None) -> Recipe:
    """The recipe for ``n`` training samples: total batch and samples seen are the card's. Refuses what cannot run."""
    if settings["select"] == "last" and len(settings["rates"]) > 1:
        raise BenchError("linear.select=last chooses nothing: give one learning rate with it (linear.rates)")
    per_epoch = n / settings["batch"]
    iterations = settings["iterations"] or math.ceil(settings["epochs"] * per_epoch)
    return Recipe(
        rates=rates or scaled(settings["rates"], settings["batch"], settings["absolute"]),
        iterations=iterations, batch=settings["batch"], momentum=settings["momentum"], nesterov=settings["nesterov"],
        weight_decay=settings["weight_decay"], schedule=settings["schedule"], milestones=(0.6, 0.8),
        warmup=round(settings["warmup"] * per_epoch), lars=settings["lars"], batchnorm=settings["batchnorm"],
    )  # fmt: skip


def evaluate(task: Task) -> Iterator[Measurement]:
    """Choose the learning rate on a hold-out (one rate: nothing to choose), learn again on all of train, report."""
    settings = task.settings
    labels = labels_of(task)
    x = features_of(task.data["train"], "pooled")
    recipe = recipe_of(settings, len(x))
    path: list[dict[str, Any]] = []
    chosen = 0
    if len(recipe.rates) > 1:
        held = holdout(labels.train, settings["holdout"], task.seed, remedy="give linear.rates one value")
        inner = recipe_of(settings, int((~held).sum()))
        with task.progress.stage("SGD heads", inner.iterations, "steps") as stage:
            heads = learn(x[~held], labels.train[~held], labels.trained, inner, task.seed, task.device, stage.advance)
        for head, rate in enumerate(recipe.rates):
            logits = heads.logits(x[held], head)
            if not np.isfinite(logits).all():
                # Its weights grew beyond float32: it has no accuracy, and cannot be chosen.
                path.append({"rate": rate, "diverged": True})
                continue
            hits = logits.argmax(axis=1) == labels.train[held]
            path.append({"rate": rate, "holdout_top1": 100 * float(hits.mean())})
        chosen = max(range(len(path)), key=lambda head: path[head].get("holdout_top1", -1.0))
    final = recipe_of(settings, len(x), (recipe.rates[chosen],))
    with task.progress.stage("SGD refit", final.iterations, "steps") as stage:
        heads = learn(x, labels.train, labels.trained, final, task.seed, task.device, stage.advance)
    logits = heads.logits(features_of(task.data["test"], "pooled"), 0)
    if not np.isfinite(logits).all():
        raise BenchError(
            f"the linear probe diverged at a learning rate of {final.rates[0]:g} on these features: set linear.rates "
            f"lower or divide the features by a constant"
        )
    top, score = rank(logits, labels)
    yield from accuracies(
        task, labels, top, score, engine=engine_of("torch", "bench-sgd+torch"), outcome=f"lr{final.rates[0]:g}",
        headline=True, selection="holdout" if path else "last", seeds=[task.seed],
        details={"path": path, "chosen": final.rates[0], "iterations": final.iterations, "batch": final.batch},
    )  # fmt: skip
