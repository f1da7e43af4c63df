"""The best epoch of heads on test: what the published linear probes of DINO and iBOT print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from suites.choices import built
from suites.heads import Group, Heads

if TYPE_CHECKING:
    from bench.featureset import FeatureSet
    from suites.sgd_grid import Head

Groups = Mapping[str, tuple[Sequence["Head"], Group]]


class BestEpoch:
    """Looks at all heads after every epoch; keeps each one's best top-1, and the weights of the best of all.

    Of equals the earlier epoch, and in it the earlier head.
    """

    def __init__(self, test: FeatureSet, features: Sequence[str], y: np.ndarray) -> None:
        """``y`` int64 [N_test]: the classes of the test samples, as the heads number them."""
        self._seen = {feature: built(test, feature) for feature in features}
        self._y = y
        self._found: dict[Head, tuple[float, int]] = {}
        self._best: tuple[Head, Heads] | None = None

    def look(self, groups: Groups, epoch: int) -> None:
        """Test the heads as they are at the end of ``epoch`` (from 1). One that diverged has no accuracy."""
        for feature, (members, group) in groups.items():
            heads = group.heads()
            for index, head in enumerate(members):
                logits = heads.logits(self._seen[feature], index)
                if not np.isfinite(logits).all():
                    continue
                top1 = 100 * float((logits.argmax(axis=1) == self._y).mean())
                if top1 > max((best for best, _ in self._found.values()), default=-1.0):
                    self._best = head, heads.one(index)
                if top1 > self._found.get(head, (-1.0, 0))[0]:
                    self._found[head] = top1, epoch

    def path(self, grid: Sequence[Head]) -> list[dict[str, Any]]:
        """Every head with its best top-1 and that one's epoch."""
        return [
            {**head.described(), "test_top1": self._found[head][0], "epoch": self._found[head][1]}
            if head in self._found
            else {**head.described(), "diverged": True}
            for head in grid
        ]

    def chosen(self) -> tuple[Head, np.ndarray] | None:
        """The best head, and its logits float32 [N_test, K] at its best epoch; None where all diverged."""
        if self._best is None:
            return None
        head, heads = self._best
        return head, heads.logits(self._seen[head.feature], 0)

    def state(self, groups: Groups) -> dict[str, Any]:
        """All that `restore` needs to go on from here, heads by their place."""
        order = [head for members, _ in groups.values() for head in members]
        state: dict[str, Any] = {"found": {order.index(head): list(found) for head, found in self._found.items()}}
        if self._best is not None:
            head, heads = self._best
            state |= {"best": order.index(head), "heads": [heads.weight, heads.bias, heads.mean, heads.scale]}
        return state

    def restore(self, state: dict[str, Any], groups: Groups) -> None:
        """Go on where ``state`` was taken."""
        order = [head for members, _ in groups.values() for head in members]
        self._found = {order[place]: (float(top1), int(epoch)) for place, (top1, epoch) in state["found"].items()}
        self._best = (order[state["best"]], Heads(*state["heads"])) if "best" in state else None
