"""One-vs-rest L2 logistic regression for samples with several labels: all classes' problems solved as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.suite import engine_of
from suites.average_precision import mean_average_precision
from suites.classification import features_of
from suites.logreg_path import Fit, Path
from suites.logreg_probe import grid_of, prepared
from suites.targets import precisions, targets_of
from suites.validation import held_of, validation_of

if TYPE_CHECKING:
    from bench.record import Measurement
    from bench.suite import Task


class OneVsRest(Path):
    """scikit-learn's binary problem of every class at the same C: C * sum of logistic losses + 1/2 |w|^2 each.

    Their sum falls apart into the classes, so its solution is theirs. A sample counts nothing for a class for which it
    is not judged (0).
    """

    def __init__(self, x: np.ndarray, targets: np.ndarray, device: str = "cpu", *, intercept: bool = True) -> None:
        """``x`` float32 [N, D], ``targets`` int [N, C] of 1 (present), -1 (absent), 0 (not judged)."""
        super().__init__(x, targets, targets.shape[1], device, intercept=intercept)
        self._strength = 1

    def _learn_from(self, y: np.ndarray) -> tuple[Tensor, float]:
        targets = torch.from_numpy(np.ascontiguousarray(y.T)).to(self._x.device)
        self._judged = (targets != 0).float()
        self._present = (targets > 0).float()
        counts, present = (x.sum(dim=1, dtype=torch.float64) for x in (self._judged, self._present))
        # A class that is always, or never, present has nothing to tell apart: it keeps weights of 0.
        self._judged[(present == 0) | (present == counts)] = 0
        share = (present + 0.5) / (counts + 1)
        return torch.logit(share), float((share * (1 - share)).mean().clamp_min(1e-4))

    def _mean_loss(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        k, d = weight.shape
        g = torch.zeros(k, d, dtype=torch.float64, device=weight.device)
        gb = torch.zeros(k, dtype=torch.float64, device=weight.device)
        loss = torch.zeros((), dtype=torch.float64, device=weight.device)
        for start in range(0, self.n, self._rows):
            part = slice(start, start + self._rows)
            x, present, judged = self._x[part], self._present[:, part], self._judged[:, part]
            logits = torch.addmm(bias[:, None], weight, x.T)
            losses = torch.nn.functional.softplus(logits) - present * logits
            loss += (losses * judged).sum(dtype=torch.float64)
            residual = (torch.sigmoid(logits) - present) * judged
            g += residual @ x
            gb += residual.sum(dim=1, dtype=torch.float64)
        return float(loss) / self.n, g.T / self.n, gb / self.n


def evaluate(task: Task, facts: Mapping[str, Any] | None = None, *, headline: str = "map") -> Iterator[Measurement]:
    """Choose C by 11-point mAP on a hold-out, fit again on all of train, report both mean average precisions.

    ``headline``: ``map`` or ``map11``; ``facts`` go to the details.
    """
    settings = task.settings
    targets = targets_of(task)
    how = settings["normalise"]
    x, test = (prepared(features_of(task.data[split], "pooled"), how) for split in ("train", "test"))
    grid = grid_of(settings)
    path: list[dict[str, Any]] = []
    fits: dict[float, Fit] = {}
    if settings["C"] is None:
        held = held_of(task, task.data["train"])
        inner = OneVsRest(x[~held], targets.train[~held], task.device, intercept=settings["intercept"])
        with task.progress.stage("logistic path", len(grid), "penalties") as stage:

            def note(fit: Fit) -> None:
                value, _, _ = mean_average_precision(fit.logits(x[held]), targets.train[held], 11, around=False)
                if value != value:
                    raise BenchError(
                        f"the part of {task.data['train'].dataset} held out shows no class at all: set the option C "
                        f"to a number"
                    )
                path.append(
                    {"C": fit.C, "holdout_map11": 100 * value, "iterations": fit.iterations,
                     "converged": fit.converged}
                )  # fmt: skip
                fits[fit.C] = fit
                stage.advance()

            inner.fit(grid, each=note, tol=settings["path_tol"], max_iter=settings["max_iter"])
    # Of equals the strongest penalty, unless the card's source meets the weakest first.
    sign = 1 if settings.get("ties") == "weakest" else -1
    chosen = max(path, key=lambda point: (point["holdout_map11"], sign * point["C"]))["C"] if path else grid[0]
    with task.progress.stage("logistic refit", 1, "fit") as stage:
        whole = OneVsRest(x, targets.train, task.device, intercept=settings["intercept"])
        (fit,) = whole.fit([chosen], tol=settings["tol"], max_iter=settings["max_iter"], start=fits.get(chosen))
        stage.advance()
    details: dict[str, Any] = {"path": path, "chosen": chosen, **(facts or {})}
    if path:
        published = validation_of(task.data["train"]) is not None
        details["chosen_on"] = "published validation part" if published else "hold-out"
    details |= {"iterations": fit.iterations, "converged": fit.converged}
    if len(path) > 1 and chosen in (grid[0], grid[-1]):
        details["at_edge_of_grid"] = True
    yield from precisions(
        task, targets, fit.logits(test), engine=engine_of("torch", "bench-lbfgs+torch"), outcome=f"C{chosen:g}",
        headline=headline, selection="holdout" if path else "none", details=details, settings={}, seeds=[task.seed],
        feature={**task.feature(), "norm": how},
    )  # fmt: skip
