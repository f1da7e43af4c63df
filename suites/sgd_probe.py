"""The published SGD linear probes on stored features: a grid of rates, decays and features, all heads of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.suite import engine_of
from suites.choices import built, described, resolved
from suites.classification import Labels, accuracies, confidence_of, labels_of, rank
from suites.heads import learn
from suites.sgd_grid import Head, grid_of, in_loop, recipe_of
from suites.validation import holdout

if TYPE_CHECKING:
    from bench.record import Measurement
    from bench.suite import Task

ON_TEST = "the best of {heads} by the very test split that it reports: no interval covers that choice"


def evaluate(task: Task) -> Iterator[Measurement]:
    """Choose among the heads (one: nothing to choose), report the chosen one learnt on all of train."""
    settings = task.settings
    if settings.get("loss") == "bce":
        from suites import sgd_multilabel

        yield from sgd_multilabel.evaluate(task)
        return
    labels = labels_of(task)
    features = resolved(settings["features"], task.card)
    grid = grid_of(settings, features)
    path: list[dict[str, Any]] = []
    epochs = bool(settings.get("every_epoch")) and settings["select"] == "best_on_test"
    selection = settings["select"] if len(grid) > 1 or epochs else "last"
    chosen, logits = grid[0], None
    if selection == "holdout":
        held = holdout(labels.train, settings["holdout"], task.seed, remedy="give the option rates one value")
        for head, found in learnt(task, labels, grid, task.seed, held):
            path.append(_point(head, found, labels.train[held], "holdout_top1"))
        chosen = grid[_best(path, "holdout_top1")]
    elif epochs:
        from suites import loop_probe

        path, best = loop_probe.best_of_epochs(task, labels, grid)
        if best is None:
            raise _diverged(chosen)
        chosen, logits = best
    elif selection == "best_on_test":
        for head, found in learnt(task, labels, grid, task.seed):
            path.append(_point(head, found, labels.test, "test_top1"))
            # Of all the heads' answers only the best one's are kept.
            if _best(path, "test_top1") == len(path) - 1:
                chosen, logits = head, found
    if logits is None:
        logits = next(learnt(task, labels, [chosen], task.seed))[1]
    if not np.isfinite(logits).all():
        raise _diverged(chosen)
    top, score = rank(logits, labels)
    iterations, batch = _length(settings, len(labels.train), chosen)
    details: dict[str, Any] = {
        "path": path, "chosen": chosen.rate, "head": chosen.described(), "iterations": iterations, "batch": batch,
    }  # fmt: skip
    if asked := [choice for choice in settings["features"] if choice not in features]:
        details["not_of_this_model"] = {"features": asked, "instead": "its pooled feature"}
    for measurement in accuracies(
        task, labels, top, score, engine=engine_of("torch", "bench-sgd+torch"), outcome=f"lr{chosen.rate:g}",
        confidence=confidence_of(logits), headline=True,
        selection=selection, seeds=[task.seed], feature=described(chosen.feature, task.card),
        details=details,
    ):  # fmt: skip
        if selection == "best_on_test":
            note = ON_TEST.format(heads=f"{len(grid)} heads{' and all epochs' if epochs else ''}")
            yield measurement.model_copy(update={"interval": None, "interval_method": None, "interval_note": note})
        else:
            yield measurement


def _length(settings: dict[str, Any], n: int, head: Head) -> tuple[int, int]:
    """(iterations, total batch) by which ``head`` was learnt on ``n`` samples."""
    if in_loop(settings):
        from suites import loop_probe

        length = loop_probe.length_of(settings, n)
        return length.iterations, length.batch
    recipe = recipe_of(settings, n, [head])
    return recipe.iterations, recipe.batch


def _diverged(head: Head) -> BenchError:
    return BenchError(
        f"the linear probe diverged at a learning rate of {head.rate:g} on these features: set rates "
        f"lower or divide the features by a constant"
    )


def learnt(
    task: Task, labels: Labels, grid: Sequence[Head], seed: int, held: np.ndarray | None = None
) -> Iterator[tuple[Head, np.ndarray]]:
    """(head, its logits float32 [N, K]) of heads learnt together on train; N are the test samples.

    With ``held`` (bool [N_train]) they are learnt on the other samples of train and answer on these.
    """
    if in_loop(task.settings):
        from suites import loop_probe

        yield from loop_probe.learnt(task, labels, grid, held)
        return
    y = labels.train if held is None else labels.train[~held]
    groups: dict[str, list[Head]] = {}
    for head in grid:
        groups.setdefault(head.feature, []).append(head)
    steps = recipe_of(task.settings, len(y), grid).iterations * len(groups)
    with task.progress.stage("SGD heads", steps, "steps") as stage:
        for feature, members in groups.items():
            x = built(task.data["train"], feature)
            seen = x[held] if held is not None else built(task.data["test"], feature)
            recipe = recipe_of(task.settings, len(y), members)
            heads = learn(
                x if held is None else x[~held], y, labels.trained, recipe, seed, task.device, stage.advance
            )  # fmt: skip
            for index, head in enumerate(members):
                yield head, heads.logits(seen, index)


def _point(head: Head, logits: np.ndarray, y: np.ndarray, name: str) -> dict[str, Any]:
    """A head's place in the swept path. One that diverged has no accuracy and cannot be chosen."""
    if not np.isfinite(logits).all():
        return {**head.described(), "diverged": True}
    return {**head.described(), name: 100 * float((logits.argmax(axis=1) == y).mean())}


def _best(path: Sequence[dict[str, Any]], name: str) -> int:
    """The first of the most accurate."""
    return max(range(len(path)), key=lambda i: path[i].get(name, -1.0))
