"""SGD heads on samples with several labels: binary cross-entropy of every class (DINOv3's linear evaluation)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.suite import engine_of
from suites.average_precision import mean_average_precision
from suites.choices import built, described, resolved
from suites.heads import learn
from suites.sgd_grid import Head, grid_of, recipe_of
from suites.targets import precisions, targets_of
from suites.validation import holdout, validation_of

if TYPE_CHECKING:
    from bench.record import Measurement
    from bench.suite import Task


def evaluate(task: Task) -> Iterator[Measurement]:
    """Choose a head by mean average precision on a part of train, learn it again on all of it, report both mAPs."""
    settings = task.settings
    train = task.data["train"]
    if train.labels.ndim == 1:
        raise BenchError(
            f"{task.protocol.id} learns from samples with several labels, and {train.dataset} {train.split} gives one "
            f"each: use another recipe (linear=dinov3-cached)"
        )
    targets = targets_of(task)
    grid = grid_of(settings, resolved(settings["features"], task.card))
    path: list[dict[str, Any]] = []
    chosen = grid[0]
    if len(grid) > 1:
        held = validation_of(train)
        if held is None:
            # Nothing to stratify by: a sample may be of several classes.
            held = holdout(
                np.zeros(len(train), dtype=np.int64), settings["holdout"], task.seed, remedy="give rates one value"
            )
        for head, logits in _learnt(task, targets.train, grid, held):
            value = mean_average_precision(logits, targets.train[held], around=False)[0]
            finite = bool(np.isfinite(logits).all()) and value == value
            path.append({**head.described(), **({"holdout_map": 100 * value} if finite else {"diverged": True})})
        # The first of the best.
        chosen = grid[max(range(len(grid)), key=lambda i: path[i].get("holdout_map", -1.0))]
    ((_, logits),) = _learnt(task, targets.train, [chosen])
    if not np.isfinite(logits).all():
        raise BenchError(
            f"the linear probe diverged at a learning rate of {chosen.rate:g} on these features: set rates lower or "
            f"divide the features by a constant"
        )
    final = recipe_of(settings, len(train), [chosen])
    yield from precisions(
        task, targets, logits, engine=engine_of("torch", "bench-sgd+torch"), outcome=f"lr{chosen.rate:g}",
        headline="map", selection="holdout" if path else "last", seeds=[task.seed], settings={},
        feature=described(chosen.feature, task.card),
        details={"path": path, "chosen": chosen.rate, "head": chosen.described(), "iterations": final.iterations,
                 "batch": final.batch, "loss": "binary cross-entropy"},
    )  # fmt: skip


def _learnt(
    task: Task, y: np.ndarray, grid: Sequence[Head], held: np.ndarray | None = None
) -> Iterator[tuple[Head, np.ndarray]]:
    """(head, its logits float32 [N, C]) on test, or with ``held`` on that part of train, not learnt from."""
    kept = np.ones(len(y), dtype=bool) if held is None else ~held
    groups: dict[str, list[Head]] = {}
    for head in grid:
        groups.setdefault(head.feature, []).append(head)
    steps = recipe_of(task.settings, int(kept.sum()), grid).iterations * len(groups)
    with task.progress.stage("SGD heads", steps, "steps") as stage:
        for feature, members in groups.items():
            x = built(task.data["train"], feature)
            seen = built(task.data["test"], feature) if held is None else x[held]
            recipe = recipe_of(task.settings, int(kept.sum()), members)
            heads = learn(
                x if held is None else x[kept], y[kept], y.shape[1], recipe, task.seed, task.device, stage.advance
            )
            for index, head in enumerate(members):
                yield head, heads.logits(seen, index)
