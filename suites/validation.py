"""Where something is chosen: the published validation part of a training split, or a random one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.featureset import FeatureSet
    from bench.suite import Task


def validation_of(train: FeatureSet) -> np.ndarray | None:
    """bool [N]: the published validation part; None where there is none, or nothing would be left to learn from.

    It is used as published where it shows a class that the rest does not (VTAB-1k's 800 images of SUN397's 397 classes
    lack many): what is chosen counts its samples as wrong, for every candidate alike.
    """
    held = train.validation
    if held is None or not held.any() or held.all():
        return None
    if train.labels.ndim == 1 and len(np.unique(train.labels[~held])) < 2:
        return None
    return held


def held_of(task: Task, train: FeatureSet) -> np.ndarray:
    """bool [N]: where a penalty is chosen, the published validation part or a random one."""
    held = validation_of(train)
    if held is not None:
        return held
    labels = train.labels if train.labels.ndim == 1 else np.zeros(len(train), dtype=np.int64)
    return drawn(labels, task.settings, task.seed)


def drawn(y: np.ndarray, settings: dict[str, Any], seed: int) -> np.ndarray:
    """bool [N]: the random hold-out of a card, by its ``holdout`` and ``split``."""
    split = settings["split"]
    every = split == "every-class"
    return holdout(y, settings["holdout"], seed, stratified=every or split == "stratified", every=every)


def holdout(
    y: np.ndarray,
    share: float,
    seed: int,
    remedy: str = "set the option C to a number",
    *,
    stratified: bool = True,
    every: bool = False,
) -> np.ndarray:
    """bool [N]: a random part of about ``share``, of every class alike when ``stratified``.

    A class keeps at least one sample to learn from. With ``every`` a class gives its share rounded down, and at least
    one sample (DINOv3's).
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), dtype=bool)
    order = rng.permutation(len(y))
    if not stratified:
        # The last sample of a class that would be held out whole stays.
        _, first = np.unique(y[order[::-1]], return_index=True)
        held[order[: round(share * len(y))]] = True
        held[order[::-1][first]] = False
        if held.any():
            return held
    shuffled = y[order]
    counts = np.bincount(y)
    # The n-th sample of each class in shuffled order: the first round(share * n_c) of a class are held out.
    by_class = np.argsort(shuffled, kind="stable")
    rank_in_class = np.arange(len(y)) - np.concatenate([[0], np.cumsum(counts)[:-1]])[shuffled[by_class]]
    quota = np.minimum(np.floor(share * counts + 0.5).astype(int), np.maximum(counts - 1, 0))
    if every:
        quota = np.where(counts > 1, np.maximum(np.floor(share * counts).astype(int), 1), 0)
    if quota.sum() == 0:
        # Tiny data: hold out one sample of the largest class rather than select on nothing.
        quota[int(np.argmax(counts))] = 1 if counts.max() > 1 else 0
    held[order[by_class[rank_in_class < quota[shuffled[by_class]]]]] = True
    if not held.any():
        raise BenchError(f"every class has a single training sample: nothing can be held out; {remedy}")
    return held
