"""Many linear heads learnt by SGD at once: one batch of features, all heads advanced in batched products.

Heads see the same batches and never each other: each ends where it would have ended alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.cpu import kept_memory
from bench.errors import BenchError


@dataclass(frozen=True)
class Recipe:
    """How the heads learn; learning rates are those of the total batch (already scaled)."""

    rates: tuple[float, ...]
    iterations: int
    batch: int
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float | tuple[float, ...] = 0.0
    """One for all heads, or one a head."""
    optimiser: str = "sgd"
    """``sgd``, or ``adamw`` (betas 0.9 and 0.999, decoupled decay; ``momentum`` and ``nesterov`` then mean nothing)."""
    schedule: str = "cosine"
    """``cosine`` to 0 by iteration, ``cosine-epoch`` to 0 by whole epochs; ``steps``: times 0.1 at each share of
    ``milestones``; ``onecycle``: PyTorch's OneCycleLR, which turns the momentum (of AdamW the first beta) too."""
    epochs: float = 1.0
    """Epochs that the iterations make up: what ``cosine-epoch`` counts."""
    milestones: tuple[float, ...] = ()
    warmup: int = 0
    """Iterations of linear warm-up, before the cosine."""
    lars: bool = False
    """LARS as MAE and MoCo v3 have it: weights alone."""
    larc: bool = False
    """apex's LARC without clipping (SimSiam): weights and biases alike."""
    batchnorm: bool = False
    """Batch normalisation of the feature before the heads (MAE), its running statistics at test."""
    affine: str = ""
    """Empty: the normalisation learns nothing (epsilon 1e-6). ``free``, ``decayed``: each head learns a gain and a
    shift of it (epsilon 1e-5), without or with weight decay (VISSL)."""
    init: str = "normal"
    """Where heads begin: see `beginning`."""
    end: float | None = None
    """The share of the rate that the last step of a cosine by iteration has (lightly); None: 0, one step later."""

    def factor(self, step: int) -> float:
        """What the learning rates are multiplied with at ``step`` (from 0)."""
        if step < self.warmup:
            return step / self.warmup
        if self.schedule == "onecycle":
            # Up from a 25th in the first three tenths, then down to a 250 000th.
            return self._cycle(step, 1 / 25, 1.0, 1 / 25e4)
        if self.end is not None:
            done = min((step - self.warmup) / max(self.iterations - self.warmup - 1, 1), 1.0)
            return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * done))
        done = (step - self.warmup) / max(self.iterations - self.warmup, 1)
        if self.schedule == "steps":
            return float(0.1 ** sum(done >= share for share in self.milestones))
        if self.schedule == "cosine-epoch":
            # The published loops step their scheduler once an epoch: the rate stands still within one.
            done = math.floor(done * self.epochs + 1e-9) / self.epochs
        return 0.5 * (1 + math.cos(math.pi * done))

    def inertia(self, step: int, usual: float) -> float:
        """The momentum, or the first beta, at ``step``: ``usual`` unless the schedule turns it."""
        return self._cycle(step, 0.95, 0.85, 0.95) if self.schedule == "onecycle" else usual

    def _cycle(self, step: int, first: float, peak: float, last: float) -> float:
        """Half a cosine from ``first`` to ``peak`` at three tenths of the steps, another to ``last`` at the end."""
        top = 0.3 * self.iterations - 1
        if step <= top:
            done, begin, goal = step / top, first, peak
        else:
            done, begin, goal = (step - top) / max(self.iterations - 1 - top, 1), peak, last
        return goal + (begin - goal) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


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

    def one(self, head: int) -> Heads:
        """A copy of one of them alone."""
        at = slice(head, head + 1)
        return Heads(self.weight[at].clone(), self.bias[at].clone(), self.mean.clone(), self.scale.clone())


def lars_update(weight: Tensor, gradient: Tensor, weight_decay: Tensor | float, trust: float = 0.001) -> Tensor:
    """The gradient [H, K, D] after weight decay, each head times trust |w| / |g| (1 where either is 0): MAE's LARS."""
    gradient = gradient + weight_decay * weight
    w = weight.flatten(1).norm(dim=1)
    g = gradient.flatten(1).norm(dim=1)
    ratio = torch.where((w > 0) & (g > 0), trust * w / g.clamp_min(1e-38), torch.ones_like(w))
    return gradient * ratio[:, None, None]


def larc_update(value: Tensor, gradient: Tensor, weight_decay: Tensor, trust: float = 0.001) -> Tensor:
    """What apex's LARC makes of the gradient [H, ...]: decayed and times trust |v| / (|g| + decay |v| + 1e-8).

    Where a head's norm of either is 0 (a bias at its beginning) it is the gradient itself, not even decayed.
    """
    v, g = value.flatten(1).norm(dim=1), gradient.flatten(1).norm(dim=1)
    rate = trust * v / (g + v * weight_decay + 1e-8)
    decayed = gradient + _each(weight_decay, value) * value
    return torch.where(_each((v > 0) & (g > 0), value), decayed * _each(rate, value), gradient)


def beginning(init: str, classes: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(weight float32 [K, D], bias [K]) of heads that have learnt nothing.

    ``normal`` N(0, 0.01) and biases of 0 (MoCo and most after it); ``zero`` (SimCLR's README); ``uniform`` in
    1 / sqrt(D), biases too (PyTorch's linear layer: lightly, VISSL); ``lecun`` N(0, 1 / D) cut at two deviations
    (Haiku's linear layer: BYOL).
    """
    bias = torch.zeros(classes)
    if init == "normal":
        return torch.randn(classes, d, generator=generator) * 0.01, bias
    weight = torch.zeros(classes, d)
    if init == "uniform":
        reach = d**-0.5
        weight.uniform_(-reach, reach, generator=generator)
        bias.uniform_(-reach, reach, generator=generator)
    elif init == "lecun":
        deviation = d**-0.5
        torch.nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
    return weight, bias


class Group:
    """Heads that read one feature, float32 [H, K, D], and how they advance."""

    def __init__(self, weight: Tensor, recipe: Recipe, bias: Tensor | None = None) -> None:
        """``weight`` float32 [K, D], ``bias`` [K] (None: 0): where every head begins."""
        device, h = weight.device, len(recipe.rates)
        classes, d = weight.shape
        self.recipe = recipe
        self.rates = torch.tensor(recipe.rates, device=device)
        decay = recipe.weight_decay if isinstance(recipe.weight_decay, tuple) else (recipe.weight_decay,) * h
        self.decays = torch.tensor(decay, dtype=torch.float32, device=device)
        self.decaying = any(decay)
        self.weight = weight.repeat(h, 1, 1)
        self.bias = torch.zeros(h, classes, device=device) if bias is None else bias.repeat(h, 1)
        self.values = [self.weight, self.bias]
        if recipe.affine:
            # The normalisation's gain and shift, of every head its own.
            self.values += [torch.ones(h, d, device=device), torch.zeros(h, d, device=device)]
        orders = 2 if recipe.optimiser == "adamw" else 1
        self.moments: list[tuple[Tensor, ...]] = [
            tuple(torch.zeros_like(value) for value in self.values) for _ in range(orders)
        ]
        self.mean, self.variance = torch.zeros(d, device=device), torch.ones(d, device=device)
        self.epsilon = 1e-5 if recipe.affine else 1e-6
        self.columns = torch.arange(recipe.batch, device=device)
        self.step = 0

    def advance(self, z: Tensor, targets: Tensor) -> None:
        """One step of all heads on the features ``z`` float32 [B, D] of samples of classes ``targets`` int64 [B].

        With ``targets`` [B, K] of 1 (present), -1 (absent) and 0 (not judged) by binary cross-entropy, the mean over
        samples and classes.
        """
        recipe = self.recipe
        h, classes, d = self.weight.shape
        if recipe.batchnorm:
            var, mu = torch.var_mean(z, dim=0, correction=0)
            z = (z - mu) / torch.sqrt(var + self.epsilon)
            unbiased = var * (len(z) / max(len(z) - 1, 1))
            self.mean, self.variance = 0.9 * self.mean + 0.1 * mu, 0.9 * self.variance + 0.1 * unbiased
        # One product for all heads: [H K, D] x [D, B]. Samples innermost: softmax is then fast for few classes too.
        if recipe.affine:
            gain, shift = self.values[2:]
            seen = z * gain[:, None] + shift[:, None]
            logits = torch.baddbmm(self.bias[:, :, None], self.weight, seen.transpose(1, 2))
        else:
            logits = torch.addmm(self.bias.view(-1, 1), self.weight.flatten(0, 1), z.T).view(h, classes, len(z))
        if targets.ndim == 1:
            slope = torch.softmax(logits, dim=1)
            slope[:, targets, self.columns] -= 1
            slope /= len(z)
        else:
            slope = (torch.sigmoid(logits) - (targets.T > 0).to(logits.dtype)) * (targets.T != 0)
            slope /= targets.numel()
        if recipe.affine:
            back = slope.transpose(1, 2) @ self.weight
            grads = [slope @ seen, slope.sum(dim=2), (back * z).sum(dim=1), back.sum(dim=1)]
        else:
            grads = [(slope.flatten(0, 1) @ z).view(h, classes, d), slope.sum(dim=2)]
        now = self.rates * recipe.factor(self.step)
        adamw = recipe.optimiser == "adamw"
        momentum = recipe.inertia(self.step, 0.9 if adamw else recipe.momentum)
        self.step += 1
        if adamw:
            self._adamw(now, grads, momentum)
            return
        if recipe.lars:
            grads[0] = lars_update(self.weight, grads[0], self.decays[:, None, None])
        elif recipe.larc:
            grads = [larc_update(v, g, self.decays) for v, g in zip(self.values, grads, strict=True)]
        elif self.decaying:
            decayed = 4 if recipe.affine == "decayed" else 2
            for place, value in enumerate(self.values[:decayed]):
                grads[place] = grads[place] + _each(self.decays, value) * value
        for value, speed, grad in zip(self.values, self.moments[0], grads, strict=True):
            # One pass over memory each: for many classes they cost as much as the products.
            torch.add(grad, speed, alpha=momentum, out=speed)
            moved = torch.add(grad, speed, alpha=momentum) if recipe.nesterov else speed
            value.addcmul_(moved, _each(now, value), value=-1)

    def _adamw(self, now: Tensor, grads: Sequence[Tensor], beta: float) -> None:
        """Loshchilov & Hutter 2019, as torch.optim.AdamW has it (epsilon 1e-8)."""
        for value, first, second, grad in zip(self.values, *self.moments, grads, strict=True):
            value.mul_(1 - _each(now * self.decays, value))
            first.mul_(beta).add_(grad, alpha=1 - beta)
            second.mul_(0.999).addcmul_(grad, grad, value=0.001)
            spread = (second / (1 - 0.999**self.step)).sqrt_().add_(1e-8)
            value.sub_(_each(now / (1 - beta**self.step), value) * first / spread)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on from here."""
        tensors = [*self.values, *(t for moment in self.moments for t in moment), self.mean, self.variance]
        return {"tensors": tensors, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken. Raises ValueError for that of other heads, and changes nothing then."""
        mine = self.state()["tensors"]
        if [t.shape for t in mine] != [t.shape for t in state["tensors"]]:
            raise ValueError("the state of other heads")
        *tensors, self.mean, self.variance = (t.to(self.weight) for t in state["tensors"])
        count = len(self.values)
        self.values, *moments = (tensors[at : at + count] for at in range(0, len(tensors), count))
        self.moments = [tuple(moment) for moment in moments]
        self.weight, self.bias = self.values[:2]
        self.step = int(state["step"])

    def heads(self) -> Heads:
        """The heads as they are now. Refuses features whose variance float32 cannot hold."""
        seen = self.recipe.batchnorm
        if seen and not torch.isfinite(self.variance).all():
            raise BenchError("the features are too large for their variance to be a number: divide them by a constant")
        scale = 1 / torch.sqrt(self.variance + self.epsilon) if seen else torch.ones_like(self.variance)
        weight, bias = self.weight, self.bias
        if self.recipe.affine:
            # A gain and a shift of the feature are those of the linear layer behind them.
            gain, shift = self.values[2:]
            bias = bias + (weight * shift[:, None]).sum(dim=2)
            weight = weight * gain[:, None]
        return Heads(weight, bias, self.mean, scale)


def _each(by_head: Tensor, value: Tensor) -> Tensor:
    """One number a head, shaped to meet ``value`` [H, ...]."""
    return by_head.view(-1, *[1] * (value.dim() - 1))


def learn(
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    recipe: Recipe,
    seed: int,
    device: str = "cpu",
    advance: Callable[[], Any] | None = None,
) -> Heads:
    """All heads of ``recipe.rates`` on ``x`` float32 [N, D], ``y`` int64 [N] or, of samples with several labels, [N, K]
    of 1 (present), -1 (absent) and 0 (not judged); the same bits for the same seed on a CPU.

    All heads begin alike. Batches are drawn without replacement, epoch by epoch, the last one of an epoch filled from
    the next: every step sees ``recipe.batch`` samples.
    """
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        # Stored features are read-only, and only read here: no copy of them is made.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        features, targets = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    n, d = features.shape
    weight, bias = beginning(recipe.init, classes, d, generator)
    group = Group(weight.to(device), recipe, bias.to(device))
    order = torch.empty(0, dtype=torch.int64)
    batch = torch.empty(recipe.batch, d, device=device)
    # Batches and logits are as large as each other every time: their memory is not given back between steps.
    with kept_memory() if features.device.type == "cpu" else nullcontext():
        for _ in range(recipe.iterations):
            while len(order) < recipe.batch:
                order = torch.cat([order, torch.randperm(n, generator=generator)])
            rows, order = order[: recipe.batch].to(device), order[recipe.batch :]
            torch.index_select(features, 0, rows, out=batch)
            group.advance(batch, targets[rows])
            if advance is not None:
                advance()
    return group.heads()


def scaled(rates: Sequence[float], batch: int, absolute: bool) -> tuple[float, ...]:
    """Learning rates for the total ``batch``: times batch / 256 unless the card gives them as they are used."""
    return tuple(float(rate) * (1 if absolute else batch / 256) for rate in rates)
