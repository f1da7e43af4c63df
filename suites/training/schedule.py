"""The learning rate of every iteration, as a pure function: resuming needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from bench.errors import BenchError

Kind = Literal["cosine", "steps", "poly", "onecycle", "constant"]


@dataclass(frozen=True)
class Schedule:
    """A linear warmup from ``start`` to ``peak``, then the decay; all learning rates are absolute.

    ``cosine``: from ``peak`` to ``floor`` over the iterations after the warmup (MAE's ``adjust_learning_rate``), or
    with ``whole`` over all of them, the warmup in place of its beginning (timm's ``CosineLRScheduler``: SimMIM, DeiT).
    ``steps``: times ``gamma`` at each of ``milestones`` (iterations). ``poly``: (1 - t)^``power`` from ``peak`` to
    ``floor`` over the iterations after the warmup (mmsegmentation's since its version 1; before, over all of them, as
    BEiT and iBOT trained: with 1,500 of 160,000 iterations of warmup at most 1 % less). ``onecycle``: a cosine over
    all iterations that the warmup multiplies by a line, then the cosine alone, one step behind the iterations (DINOv3's
    WarmupOneCycleLR as its segmentation sets and steps it). ``constant``: ``peak``.
    """

    kind: Kind
    peak: float
    iterations: int
    warmup: int = 0
    """Iterations."""
    start: float = 0.0
    floor: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    power: float = 1.0
    whole: bool = False
    every: int = 1
    """Iterations that a rate holds for: an epoch's, where a recipe counts in epochs (``CosineAnnealingLR``)."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise BenchError(f"a schedule is {', '.join(get_args(Kind)[:-1])} or constant, not '{self.kind}'")
        if not self.peak > 0 or self.warmup < 0 or self.iterations < 1 or self.every < 1:
            raise BenchError(
                f"a schedule needs a learning rate above 0 and no negative warmup, not {self.peak} and {self.warmup}"
            )

    def rate(self, iteration: int) -> float:
        """The learning rate while iteration ``iteration`` (from 0) runs."""
        iteration -= iteration % self.every
        if self.kind == "onecycle":
            return self._onecycle(max(0, iteration - 1))
        if iteration < self.warmup:
            return self.start + (self.peak - self.start) * iteration / self.warmup
        if self.kind == "constant":
            return self.peak
        if self.kind == "steps":
            return self.peak * self.gamma ** sum(iteration >= milestone for milestone in self.milestones)
        begin = 0 if self.whole else self.warmup
        done = min(1.0, (iteration - begin) / max(1, self.iterations - begin))
        left = (1 + math.cos(math.pi * done)) / 2 if self.kind == "cosine" else (1 - done) ** self.power
        return self.floor + (self.peak - self.floor) * left

    def _onecycle(self, step: int) -> float:
        if step < self.warmup:
            return (self.start + (self.peak - self.start) * step / self.warmup) * (1 - step / self.iterations)
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * (step + 1) / self.iterations)) / 2
