"""The training curve: the mean of every loss between two of its points, at most 200 of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suites.training import ranks
from suites.training.length import Length

POINTS = 200


class Curve:
    """Sums stay on the device, so that no iteration waits for it; a point is the mean over its iterations and ranks."""

    def __init__(self, length: Length, device: torch.device) -> None:
        self.points: list[dict[str, float]] = []
        self.share = 1.0
        """The part of every batch that is this rank's."""
        self._length = length
        self._device = device
        self._bucket = -(-length.iterations // POINTS)
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._latest: Tensor | None = None

    def add(self, iteration: int, rate: float, losses: dict[str, Tensor]) -> None:
        """The losses of one iteration: this rank's part of their mean over the batch."""
        self._latest = torch.stack(list(losses.values())).sum()
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        done = iteration + 1
        if self._count < self._bucket and done < self._length.iterations:
            return
        names = sorted(self._sums)
        means = ranks.total(torch.stack([self._sums[name] for name in names])) / self._count
        self.points.append(
            {
                "iteration": done,
                "epoch": done / self._length.per_epoch,
                "lr": rate,
                **dict(zip(names, means.tolist(), strict=True)),
            }
        )
        self._sums, self._count = {}, 0

    def latest(self) -> float:
        """The sum of the losses of the last iteration, a mean over the images that are this rank's."""
        return float(self._latest) / self.share if self._latest is not None else 0.0

    def state(self) -> dict[str, Any]:
        """For a checkpoint, which rank 0 writes without asking the others: its mean stands for theirs."""
        sums = {name: value / self.share for name, value in self._sums.items()}
        return {"points": self.points, "sums": sums, "count": self._count}

    def restore(self, state: dict[str, Any]) -> None:
        self.points = list(state["points"])
        self._sums = {name: value.to(self._device) for name, value in state["sums"].items()}
        if ranks.rank() != 0:
            self._sums = {name: torch.zeros_like(value) for name, value in self._sums.items()}
        self._count = int(state["count"])
