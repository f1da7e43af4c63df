"""Many linear heads learnt by SGD at once: one batch of features, all heads advanced in batched products.

Heads see the same batches and never each other: each ends where it would have ended alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """How the heads learn; learning rates are those of the total batch (already scaled)."""

    rates: tuple[float, ...]
    iterations: int
    batch: int
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "cosine"
    """``cosine`` to 0 by iteration; ``steps``: times 0.1 at each share of ``milestones``."""
    milestones: tuple[float, ...] = ()
    warmup: int = 0
    """Iterations of linear warm-up, before the cosine."""
    lars: bool = False
    batchnorm: bool = False
    """Affine-free batch normalisation of the feature before the heads (MAE), its running statistics at test."""

    def factor(self, step: int) -> float:
        """What the learning rates are multiplied with at ``step`` (from 0)."""
        if step < self.warmup:
            return step / self.warmup
        done = (step - self.warmup) / max(self.iterations - self.warmup, 1)
        if self.schedule == "steps":
            return float(0.1 ** sum(done >= share for share in self.milestones))
        return 0.5 * (1 + math.cos(math.pi * done))


@dataclass
class Heads:
    """The learnt heads: weight float32 [H, K, D], bias [H, K], and what is done to the feature before them."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def logits(self, x: np.ndarray, head: int) -> np.ndarray:
        """float32 [N, K] of features float32 [N, D]."""
        with torch.no_grad():
            seen = (torch.tensor(x, device=self.weight.device) - self.mean) * self.scale
            out: np.ndarray = (seen @ self.weight[head].T + self.bias[head]).cpu().numpy()
        return out


def lars_update(weight: Tensor, gradient: Tensor, weight_decay: float, trust: float = 0.001) -> Tensor:
    """The gradient [H, K, D] after weight decay, each head times trust |w| / |g| (1 where either is 0): MAE's LARS."""
    gradient = gradient + weight_decay * weight
    w = weight.flatten(1).norm(dim=1)
    g = gradient.flatten(1).norm(dim=1)
    ratio = torch.where((w > 0) & (g > 0), trust * w / g.clamp_min(1e-38), torch.ones_like(w))
    return gradient * ratio[:, None, None]


def learn(
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    recipe: Recipe,
    seed: int,
    device: str = "cpu",
    advance: Callable[[], Any] | None = None,
) -> Heads:
    """All heads of ``recipe.rates`` on ``x`` float32 [N, D], ``y`` int64 [N]; the same bits for the same seed on a CPU.

    Weights begin as N(0, 0.01), alike in every head, biases at 0. Batches are drawn without replacement, epoch by
    epoch, the last one of an epoch filled from the next: every step sees ``recipe.batch`` samples.
    """
    generator = torch.Generator().manual_seed(seed)
    features, targets = torch.tensor(x, device=device), torch.from_numpy(y).to(device)
    n, d = features.shape
    h = len(recipe.rates)
    rates = torch.tensor(recipe.rates, device=device)
    weight = (torch.randn(classes, d, generator=generator) * 0.01).to(device).repeat(h, 1, 1)
    bias = torch.zeros(h, classes, device=device)
    speed_w, speed_b = torch.zeros_like(weight), torch.zeros_like(bias)
    mean, variance = torch.zeros(d, device=device), torch.ones(d, device=device)
    order = torch.empty(0, dtype=torch.int64)
    columns = torch.arange(recipe.batch, device=device)
    for step in range(recipe.iterations):
        while len(order) < recipe.batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        rows, order = order[: recipe.batch].to(device), order[recipe.batch :]
        z = features[rows]
        if recipe.batchnorm:
            var, mu = torch.var_mean(z, dim=0, correction=0)
            z = (z - mu) / torch.sqrt(var + 1e-6)
            unbiased = var * (len(rows) / max(len(rows) - 1, 1))
            mean, variance = 0.9 * mean + 0.1 * mu, 0.9 * variance + 0.1 * unbiased
        # One product for all heads: [H K, D] x [D, B]. Samples innermost: softmax is then fast for few classes too.
        logits = torch.addmm(bias.view(-1, 1), weight.flatten(0, 1), z.T).view(h, classes, len(rows))
        slope = torch.softmax(logits, dim=1)
        slope[:, targets[rows], columns] -= 1
        slope /= len(rows)
        grad_w = (slope.flatten(0, 1) @ z).view(h, classes, d)
        grad_b = slope.sum(dim=2)
        if recipe.lars:
            grad_w = lars_update(weight, grad_w, recipe.weight_decay)
        elif recipe.weight_decay:
            grad_w = grad_w + recipe.weight_decay * weight
            grad_b = grad_b + recipe.weight_decay * bias
        now = rates * recipe.factor(step)
        for value, speed, grad in ((weight, speed_w, grad_w), (bias, speed_b, grad_b)):
            speed.mul_(recipe.momentum).add_(grad)
            moved = grad + recipe.momentum * speed if recipe.nesterov else speed
            value.sub_(now.view(-1, *[1] * (value.dim() - 1)) * moved)
        if advance is not None:
            advance()
    scale = 1 / torch.sqrt(variance + 1e-6) if recipe.batchnorm else torch.ones(d, device=device)
    return Heads(weight, bias, mean, scale)


def scaled(rates: Sequence[float], batch: int, absolute: bool) -> tuple[float, ...]:
    """Learning rates for the total ``batch``: times batch / 256 unless the card gives them as they are used."""
    return tuple(float(rate) * (1 if absolute else batch / 256) for rate in rates)
