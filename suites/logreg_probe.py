"""One logistic probe: its penalties, the choice on a hold-out, the fit on all of train, what to remark on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.options import EXPONENT, SHARE, Allowed, count, positive, words
from bench.stats import mean_per_class
from suites.validation import drawn

if TYPE_CHECKING:
    from bench.suite import Task
    from suites.classification import Labels
    from suites.logreg_path import Fit, Path

OPTIONS: dict[str, Allowed] = {
    "C": positive(),
    "low": EXPONENT,
    "high": EXPONENT,
    "points": count(most=10_000),
    "path_tol": positive(1),
    "tol": positive(1),
    "max_iter": count(),
}
"""What every suite that chooses a penalty lets a user set."""

CHOICE: dict[str, Allowed] = {
    **OPTIONS,
    "holdout": SHARE,
    "normalise": words("none", "l2", "centred-l2"),
    "search": words("path", "halving"),
}
"""And those that choose it by `probe`."""


def grid_of(settings: dict[str, Any]) -> list[float]:
    """The penalties C of a card, ascending; one when ``C`` is given. Refuses ends in the wrong order."""
    if settings["C"] is not None:
        return [float(settings["C"])]
    if settings["low"] > settings["high"]:
        raise BenchError(
            f"the option low={settings['low']:g} (log10 of C) lies above high={settings['high']:g}: exchange them"
        )
    return [float(c) for c in 10 ** np.linspace(settings["low"], settings["high"], settings["points"])]


def probe(
    task: Task, labels: Labels, x: np.ndarray, held: np.ndarray | None = None, metric: str = "top1"
) -> tuple[float, list[dict[str, Any]], Fit]:
    """(chosen C, the swept path, the fit on all of train at that C).

    ``held`` bool [N]: the part of train to choose on; None: drawn as the card says. ``metric``: what it is chosen by,
    ``top1`` or ``mean_per_class``.
    """
    from suites.logreg_path import Path

    settings = task.settings
    grid = grid_of(settings)
    path: list[dict[str, Any]] = []
    fits: dict[float, Fit] = {}
    named = f"holdout_{metric}"
    if len(grid) > 1 or settings["C"] is None:
        if held is None:
            held = drawn(labels.train, settings, task.seed)
        inner = Path(x[~held], labels.train[~held], labels.trained, task.device, intercept=settings["intercept"])
        held_x, held_y = x[held], labels.train[held]
        halving = settings["search"] == "halving"
        with task.progress.stage("logistic path", None if halving else len(grid), "penalties") as stage:

            def note(fit: Fit) -> None:
                score = _score(fit.logits(held_x).argmax(axis=1) == held_y, held_y, metric)
                path.append({"C": fit.C, named: score, "iterations": fit.iterations, "converged": fit.converged})
                fits[fit.C] = fit
                stage.advance()

            limits = {"each": note, "tol": settings["path_tol"], "max_iter": settings["max_iter"]}
            if halving:
                _halve(inner, grid, fits, path, limits, named)
            else:
                inner.fit(grid, **limits)
        path.sort(key=lambda point: float(point["C"]))
        best = max(point[named] for point in path)
        # Of equals the strongest penalty, unless the card's source meets the weakest first.
        equals = [point["C"] for point in path if point[named] == best]
        chosen = equals[-1 if settings.get("ties") == "weakest" else 0]
    else:
        chosen = grid[0]
    with task.progress.stage("logistic refit", 1, "fit") as stage:
        whole = Path(x, labels.train, labels.trained, task.device, intercept=settings["intercept"])
        fit = whole.fit([chosen], tol=settings["tol"], max_iter=settings["max_iter"], start=fits.get(chosen))[0]
        stage.advance()
    return chosen, path, fit


def _score(right: np.ndarray, y: np.ndarray, metric: str) -> float:
    """Percent right, of the samples or (``mean_per_class``) the mean over the classes that have any."""
    if metric == "mean_per_class":
        return 100 * mean_per_class(np.bincount(y, weights=right), np.bincount(y))
    return 100 * float(right.mean())


def _halve(
    inner: Path,
    grid: list[float],
    fits: dict[float, Fit],
    path: list[dict[str, Any]],
    limits: dict[str, Any],
    named: str,
) -> None:
    """CLIP's search: about seven penalties over the whole grid, then those half as far around the best, and so on."""
    step = 2 ** max(0, int(np.log2(max(len(grid) - 1, 1) / 6)))
    wanted = [*range(0, len(grid), step)]
    while True:
        for c in (grid[i] for i in wanted if 0 <= i < len(grid) and grid[i] not in fits):
            near = min(fits, key=lambda other: abs(np.log(other / c)), default=None)
            inner.fit([c], start=None if near is None else fits[near], **limits)
        best = max(path, key=lambda point: (point[named], -point["C"]))
        if step == 1:
            return
        step //= 2
        middle = grid.index(best["C"])
        wanted = [middle - step, middle + step]


def prepared(x: np.ndarray, how: str) -> np.ndarray:
    """The features as they are (``none``), of length 1 (``l2``), or so after each sample's own mean is taken off."""
    from suites.neighbours import normalised

    if how == "none":
        return x
    return normalised(x - x.mean(axis=1, keepdims=True) if how == "centred-l2" else x)


def remarks(settings: dict[str, Any], path: list[dict[str, Any]], chosen: float, fit: Fit) -> dict[str, Any]:
    """What a reader should know: a choice at the grid's edge, fits that did not converge."""
    found: dict[str, Any] = {"iterations": fit.iterations, "converged": fit.converged}
    if len(path) > 1 and chosen in (path[0]["C"], path[-1]["C"]):
        found["at_edge_of_grid"] = True
    if late := [point["C"] for point in path if not point["converged"]]:
        found["not_converged"] = late
    return found
