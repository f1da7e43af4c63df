"""L2 multinomial logistic regression over a path of penalties, each fit starting where the last one ended.

The objective is scikit-learn's: C * sum of cross-entropies + 1/2 ||W||^2, the intercept free (in mean-loss form the
penalty is 1 / (C N)); of two classes the one weight vector that tells them apart is penalised, as there. Features are
used as they are. Speed comes from a change of variables that leaves the problem what it is: features are centred (the
intercept takes it up) and turned into the eigenvectors of their covariance (a rotation, which an L2 penalty does not
see), and each rotated weight is measured in units of the inverse root of its curvature bound, so that L-BFGS meets a
well-conditioned problem at every penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError

Array = TypeVar("Array", np.ndarray, Tensor)

ROWS = 1024
"""Rows of a block on a CPU."""
HISTORY = 10
"""Pairs that L-BFGS keeps."""


@dataclass
class Fit:
    """One penalty's solution, in the coordinates of the features as they came."""

    C: float
    weight: np.ndarray
    """float64 [D, K]."""
    bias: np.ndarray
    """float64 [K]."""
    iterations: int
    converged: bool
    loss: float
    """The objective in mean-loss form."""
    unit: float = 1.0
    """A power of two: the size of the features that it was learnt on."""

    def logits(self, x: np.ndarray) -> np.ndarray:
        """float32 [N, K] of float32 features [N, D]; refused where features of another scale than train's overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            seen = in_units(x, self.unit)
            out: np.ndarray = seen @ (self.weight * self.unit).astype(np.float32) + self.bias.astype(np.float32)
        if not np.isfinite(out).all():
            raise BenchError(
                f"the logistic regression's answers to features of up to {np.abs(x).max():.3g} overflow: it was learnt "
                f"on features of at most {2 * self.unit:.3g}, give both splits features of one scale"
            )
        return out


def in_units(x: Array, unit: float) -> Array:
    """``x`` divided by a power of two, which float32 itself may not hold: the same digits, another exponent."""
    exponent = -int(math.log2(unit))
    return x if exponent == 0 else x * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2)


class Path:
    """The penalties' common ground: the rotated features, computed once."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, classes: int, device: str = "cpu", *, intercept: bool = True
    ) -> None:
        """``x`` float32 [N, D], ``y`` int64 [N] in 0..classes-1; without ``intercept`` all logits of x = 0 are 0."""
        self.classes = classes
        self.n = len(x)
        raw = torch.tensor(x, device=device)
        # Squares of features beyond 1e19 overflow float32, those below 1e-19 vanish: in units of their largest neither.
        exponent = math.floor(math.log2(float(raw.abs().max()) or 1.0))
        self._unit = 2.0**exponent if abs(exponent) > 30 else 1.0
        raw = in_units(raw, self._unit)
        self._mean = raw.mean(dim=0, dtype=torch.float64)
        if not intercept:
            # Nothing takes a shift up.
            self._mean.zero_()
        self._intercept = intercept
        centred = raw - self._mean.float()
        if 2 * self.n < centred.shape[1]:
            # The solution lies in the span of the samples, which is found without a covariance of all features.
            _, singular, rows = torch.linalg.svd(centred.double(), full_matrices=False)
            values, vectors = (singular**2 / self.n).flip(0), rows.T.flip(1)
        else:
            covariance = (centred.T @ centred).double() / self.n
            values, vectors = torch.linalg.eigh(covariance)
        # Ascending, in both.
        self._spread = values.clamp_min(0)
        self._rotation = vectors
        self._x = centred @ vectors.float()
        # An accelerator wants few large products; a processor wants rows that fit its cache.
        self._rows = ROWS if self._x.device.type == "cpu" else 1 << 17
        # scikit-learn's one weight vector for two classes is the difference of ours: |v|^2 = 2 (|w0|^2 + |w1|^2).
        self._strength = 2 if classes == 2 else 1
        self._start, self._curvature = self._learn_from(y)

    def _learn_from(self, y: np.ndarray) -> tuple[Tensor, float]:
        """(the best intercepts where W = 0, the mean curvature of the loss there)."""
        self._y = torch.from_numpy(y).to(self._x.device)
        counts = torch.bincount(self._y, minlength=self.classes).double()
        # The log frequencies. Boehning's bound on the softmax's curvature is 1/2; what is left of it at them is less.
        start = torch.log((counts + 1e-9) / self.n)
        p = torch.softmax(start, dim=0)
        return start, float((p * (1 - p)).mean().clamp_min(1e-4))

    def fit(
        self,
        penalties: Sequence[float],
        *,
        tol: float = 1e-6,
        max_iter: int = 1000,
        start: Fit | None = None,
        each: Callable[[Fit], None] | None = None,
    ) -> list[Fit]:
        """Fits for ``penalties`` (values of C), strongest penalty first, each begun at the last one's solution.

        ``start``: where the first begins, a fit on other samples of the same features; None: at zero weights.

        ``tol``: the largest entry of the gradient of the mean loss, in curvature units, at which a fit has converged.
        """
        w = torch.zeros(self._rotation.shape[1], self.classes, dtype=torch.float64, device=self._x.device)
        b = self._start.clone() if self._intercept else torch.zeros_like(self._start)
        if start is not None:
            weight = torch.from_numpy(start.weight * self._unit).to(w)
            w = self._rotation.T @ weight
            b = torch.from_numpy(start.bias).to(b) + self._mean @ weight
        fits = []
        for c in sorted(penalties):
            # Features smaller by the unit need weights larger by it: |W|^2 and with it C count in its square.
            penalty = self._strength / (c * self._unit**2 * self.n)
            w, b, iterations, converged, loss = self._solve(penalty, w, b, tol, max_iter)
            fit = self._back(c, w, b, iterations, converged, loss)
            if each is not None:
                each(fit)
            fits.append(fit)
        return fits

    def _solve(
        self, penalty: float, w: Tensor, b: Tensor, tol: float, max_iter: int
    ) -> tuple[Tensor, Tensor, int, bool, float]:
        curvature = self._curvature
        # Directions without spread, but for rounding, have no curvature: they must not run away at weak penalties.
        spread = self._spread.clamp_min(1e-14 * float(self._spread[-1]))
        scale = (curvature * spread + penalty).rsqrt()[:, None]
        bias_scale = curvature**-0.5
        d, k = w.shape

        def objective(theta: Tensor) -> tuple[float, Tensor]:
            u = theta[: d * k].view(d, k)
            weight = u * scale
            bias = theta[d * k :] * bias_scale
            loss, g, gb = self._mean_loss(weight.T.float().contiguous(), bias.float())
            g += penalty * weight
            value = loss + penalty / 2 * float((weight * weight).sum())
            if not self._intercept:
                gb.zero_()
            return value, torch.cat([(g * scale).reshape(-1), gb * bias_scale])

        theta = torch.cat([(w / scale).reshape(-1), b / bias_scale])
        theta, iterations, converged, value = lbfgs(objective, theta, tol=tol, max_iter=max_iter)
        return theta[: d * k].view(d, k) * scale, theta[d * k :] * bias_scale, iterations, converged, value

    def _mean_loss(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """Mean cross-entropy of ``weight`` [K, D], ``bias`` [K], and its gradients float64 [D, K], [K].

        By blocks of rows that stay in the processor's cache from the logits to the gradient, classes first: three and a
        half times as fast as two products over all rows for ten classes, and the sums over blocks are in float64.
        """
        k, d = weight.shape
        g = torch.zeros(k, d, dtype=torch.float64, device=weight.device)
        gb = torch.zeros(k, dtype=torch.float64, device=weight.device)
        loss = torch.zeros((), dtype=torch.float64, device=weight.device)
        for start in range(0, self.n, self._rows):
            x, y = self._x[start : start + self._rows], self._y[start : start + self._rows]
            logp = torch.log_softmax(torch.addmm(bias[:, None], weight, x.T), dim=0)
            columns = torch.arange(len(y), device=y.device)
            loss -= logp[y, columns].sum(dtype=torch.float64)
            residual = logp.exp_()
            residual[y, columns] -= 1
            g += residual @ x
            gb += residual.sum(dim=1, dtype=torch.float64)
        return float(loss) / self.n, g.T / self.n, gb / self.n

    def _back(self, c: float, w: Tensor, b: Tensor, iterations: int, converged: bool, loss: float) -> Fit:
        weight = self._rotation @ w
        bias = b - self._mean @ weight
        weight = weight / self._unit
        return Fit(c, weight.cpu().numpy(), bias.cpu().numpy(), iterations, converged, loss, self._unit)


def lbfgs(
    objective: Callable[[Tensor], tuple[float, Tensor]], theta: Tensor, *, tol: float, max_iter: int
) -> tuple[Tensor, int, bool, float]:
    """Minimise by limited-memory BFGS (Nocedal & Wright, algorithm 7.5) with a strong Wolfe line search.

    Returns (theta, iterations, converged, value). Converged: the gradient's largest entry is at most ``tol``, or no
    step lowers the value any more, which in float32 products is as far as anyone gets. Refuses an objective that is not
    finite where it begins or ends, or where no step gets anywhere that it is.
    """
    from torch.optim.lbfgs import _strong_wolfe

    value, gradient = objective(theta)
    _refuse_unless_finite(value, gradient)
    steps: list[Tensor] = []
    yields: list[Tensor] = []
    for iteration in range(max_iter):
        if float(gradient.abs().max()) <= tol:
            return theta, iteration, True, value
        direction = _two_loop(gradient, steps, yields)
        slope = float(gradient @ direction)
        if slope >= 0:
            steps.clear()
            yields.clear()
            direction, slope = -gradient, -float(gradient @ gradient)
        first = 1.0 if steps else min(1.0, 1.0 / float(gradient.norm()))
        tried: list[float] = []

        def along(x: Tensor, t: float, d: Tensor, tried: list[float] = tried) -> tuple[float, Tensor]:
            found = objective(x + t * d)
            tried.append(found[0])
            return found

        new_value, new_gradient, length, _ = _strong_wolfe(  # type: ignore[no-untyped-call]
            along, theta, first, direction, value, gradient, slope, max_ls=20
        )
        step = length * direction
        _refuse_unless_finite(float(new_value), new_gradient)
        if not new_value < value:
            _refuse_unless_finite(sum(tried), new_gradient)
            return theta, iteration, True, value
        change = new_gradient - gradient
        if float(step @ change) > 1e-10 * float(change @ change):
            steps.append(step)
            yields.append(change)
            del steps[:-HISTORY], yields[:-HISTORY]
        stalled = value - new_value <= 1e-9 * max(abs(value), 1e-12)
        theta, value, gradient = theta + step, float(new_value), new_gradient
        if stalled:
            return theta, iteration + 1, True, value
    return theta, max_iter, False, value


def _refuse_unless_finite(value: float, gradient: Tensor) -> None:
    if not (math.isfinite(value) and math.isfinite(float(gradient.abs().max()))):
        raise BenchError(
            "a logistic regression's objective is not finite: the penalty C is too weak or too strong for features of "
            "this size, set one nearer to 1 / (their variance)"
        )


def _two_loop(gradient: Tensor, steps: list[Tensor], yields: list[Tensor]) -> Tensor:
    q = -gradient.clone()
    if not steps:
        return q
    factors = []
    for s, y in zip(reversed(steps), reversed(yields), strict=True):
        rho = 1 / (y @ s)
        alpha = rho * (s @ q)
        q -= alpha * y
        factors.append((rho, alpha))
    q *= (steps[-1] @ yields[-1]) / (yields[-1] @ yields[-1])
    for (s, y), (rho, alpha) in zip(zip(steps, yields, strict=True), reversed(factors), strict=True):
        q += s * (alpha - rho * (y @ q))
    return q
