"""Where something is chosen: the published validation part of a training split, or a random one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from suites.linear import holdout

if TYPE_CHECKING:
    from bench.featureset import FeatureSet
    from bench.suite import Task


def validation_of(train: FeatureSet) -> np.ndarray | None:
    """bool [N]: the published validation part; None where there is none, or nothing would be left to learn from."""
    held = train.validation
    if held is None or not held.any() or held.all():
        return None
    if train.labels.ndim == 1 and len(np.unique(train.labels[~held])) < len(np.unique(train.labels)):
        return None
    return held


def held_of(task: Task, train: FeatureSet) -> np.ndarray:
    """bool [N]: where a penalty is chosen, the published validation part or a random one."""
    held = validation_of(train)
    if held is not None:
        return held
    labels = train.labels if train.labels.ndim == 1 else np.zeros(len(train), dtype=np.int64)
    return holdout(labels, task.settings["holdout"], task.seed, stratified=task.settings["split"] == "stratified")
