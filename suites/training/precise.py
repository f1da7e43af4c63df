"""Batch norm's statistics over many batches after training, in place of moving averages (detectron2's PRECISE_BN)."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from suites.training.feed import feed, own_randomness, seed_all, to_device
from suites.training.length import Length
from suites.training.order import Order

if TYPE_CHECKING:
    from bench.suite import Task
    from suites.training.feed import Collate, Samples
    from suites.training.loop import Trained

BATCHES = 200
"""Batches that the statistics are of (TEST.PRECISE_BN.NUM_ITER)."""


class Mean:
    """The mean and variance of all values that a batch norm has seen, from those of its batches: each counts by its
    number of values, as in fvcore's ``update_bn_stats``."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        self.norm = norm
        self.count = 0
        self.values = 0
        self.mean: Tensor | float = 0.0
        self.square: Tensor | float = 0.0
        self.hook = norm.register_forward_pre_hook(self.see)

    def see(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.values = inputs[0].numel() // inputs[0].shape[1]

    def note(self) -> None:
        """Add the batch that has just passed, if it did."""
        mean, variance, values = self.norm.running_mean, self.norm.running_var, self.values
        assert mean is not None
        assert variance is not None
        self.values = 0
        self.count += values
        # PyTorch keeps the variance without bias, and normalises by the other.
        self.mean = self.mean + values * mean.double()
        self.square = self.square + max(0, values - 1) * variance.double() + values * mean.double() ** 2

    def settle(self) -> None:
        if not self.count:
            return
        assert isinstance(self.mean, Tensor)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        mean = self.mean / self.count
        self.norm.running_mean.copy_(mean)
        self.norm.running_var.copy_(self.square / self.count - mean**2)


def precise(trained: Trained, samples: Samples, batch: int, task: Task, *, collate: Collate | None = None) -> None:
    """Set the statistics of every batch norm in train mode by at most `BATCHES` batches of training samples.

    The network is in eval mode before and after. Those whose statistics are kept (`Reader.fixed`) are left alone.
    """
    network, device = trained.network, torch.device(task.device)
    network.train()
    norms = [
        Mean(part) for part in network.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training and part.track_running_stats
    ]  # fmt: skip
    length = Length.of(len(samples), batch, iterations=min(BATCHES, task.settings["iterations"]))
    pieces = length.pieces(int(trained.facts["images_at_once"] or length.batch))
    before: list[Any] = [mean.norm.momentum for mean in norms]
    # Another order than the training's: seeds beyond those that users count up.
    order = Order(length, task.seed + 2**31)
    try:
        for mean in norms:
            mean.norm.momentum = 1.0
        feeding = feed(samples, order, pieces, range(length.iterations), collate=collate, workers=task.workers or 0)
        with (
            own_randomness(),
            torch.no_grad(),
            closing(feeding) as batches,
            task.progress.stage("batch norm's statistics", length.iterations * len(pieces), "batches") as stage,
        ):
            seed_all(task.seed)
            for found in batches if norms else ():
                network(to_device(found, device))
                for mean in norms:
                    mean.note()
                stage.advance()
            for mean in norms:
                mean.settle()
    finally:
        for mean, momentum in zip(norms, before, strict=True):
            mean.norm.momentum = momentum
            mean.hook.remove()
        network.eval()
