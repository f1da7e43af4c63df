"""Linear probe: L2 logistic regression on stored features, the penalty chosen on a hold-out, refit on all of train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.errors import BenchError
from bench.options import EXPONENT, SHARE, Allowed, count, positive, words
from bench.suite import Needs, engine_of
from suites.classification import Labels, accuracies, confidence_of, features_of, labels_of
from suites.repeats import over_runs
from suites.targets import is_multilabel

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.logreg_path import Fit, Path


class Linear:
    """Top-1, top-5 and mean-per-class of the refitted probe; the swept path is in ``details``."""

    name = "linear"
    default = "linear/logreg@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        "C": positive(),
        "low": EXPONENT,
        "high": EXPONENT,
        "points": count(most=10_000),
        "holdout": SHARE,
        "path_tol": positive(1),
        "tol": positive(1),
        "max_iter": count(),
        "normalise": words("none", "l2", "centred-l2"),
        "split": words("stratified", "random", "published"),
        "search": words("path", "halving"),
        "seeds": count(most=1000),
        # Those of the SGD recipes.
        "rates": positive(1e6, a_set=True),
        "batch": count(),
        "epochs": positive(1e6),
        "iterations": count(0),
        "momentum": Allowed(least=0, below=1),
        "weight_decay": Allowed(least=0, most=1e6, a_set=True),
        "features": Allowed(once=True),
        "optimiser": words("sgd", "adamw"),
        "schedule": words("cosine", "cosine-epoch", "steps"),
        "milestones": SHARE,
        "interpolation": words("bilinear", "bicubic"),
        "warmup": Allowed(least=0, most=1e6),
        "select": words("holdout", "last", "best_on_test"),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if "rates" in protocol.settings:
            from suites import choices, sgd_probe

            if chosen := protocol.axes.keys() - {"size"}:
                raise BenchError(
                    f"{protocol.id}: this recipe says itself what it reads: set {protocol.suite}.features (as "
                    f"block6.avg or blocks4.cls) and leave {protocol.suite}.{min(chosen)} out"
                )
            wanted = choices.resolved(protocol.settings["features"], card)
            sgd_probe.grid_of(protocol.settings, wanted)
            return Needs(choices.names_in(wanted), backbone=sgd_probe.in_loop(protocol.settings))
        grid_of(protocol.settings)
        if protocol.settings["seeds"] > 1 and protocol.settings["C"] is not None:
            raise BenchError(
                "seeds changes the hold-out alone: with C fixed every run is the same (set one of the two)"
            )
        return Needs()

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        seeds = [task.seed + number for number in range(task.settings["seeds"])]
        if len(seeds) == 1:
            yield from self._once(task)
        else:
            runs = [list(self._once(replace(task, seed=seed, outcomes={}))) for seed in seeds]
            yield from over_runs(runs, seeds, "seeds")

    def _once(self, task: Task) -> Iterator[Measurement]:
        if "rates" in task.settings:
            from suites import sgd_probe

            yield from sgd_probe.evaluate(task)
            return
        if is_multilabel(task):
            from suites import logreg_multilabel

            yield from logreg_multilabel.evaluate(task)
            return
        labels = labels_of(task)
        how = task.settings["normalise"]
        x = prepared(features_of(task.data["train"], "pooled"), how)
        test = prepared(features_of(task.data["test"], "pooled"), how)
        published = None
        if task.settings["split"] == "published":
            from suites.validation import validation_of

            published = validation_of(task.data["train"])
        chosen, path, fit = probe(task, labels, x, held=published)
        logits = fit.logits(test)
        top, score = rank(logits, labels)
        yield from accuracies(
            task,
            labels,
            top,
            score,
            engine=engine_of("torch", "bench-lbfgs+torch"),
            outcome=f"C{chosen:g}",
            confidence=confidence_of(logits),
            headline=True,
            selection="none" if task.settings["C"] is not None else "holdout",
            details={
                "path": path,
                "chosen": chosen,
                **({"chosen_on": "published validation part"} if published is not None and path else {}),
                **remarks(task.settings, path, chosen, fit),
            },
            settings={},
            seeds=[task.seed],
            feature={**task.feature(), "norm": how},
        )


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
    task: Task, labels: Labels, x: np.ndarray, held: np.ndarray | None = None
) -> tuple[float, list[dict[str, Any]], Fit]:
    """(chosen C, the swept path, the fit on all of train at that C).

    ``held`` bool [N]: the part of train to choose on; None: drawn as the card says.
    """
    from suites.logreg_path import Path

    settings = task.settings
    grid = grid_of(settings)
    path: list[dict[str, Any]] = []
    fits: dict[float, Fit] = {}
    if len(grid) > 1 or settings["C"] is None:
        if held is None:
            held = holdout(labels.train, settings["holdout"], task.seed, stratified=settings["split"] == "stratified")
        inner = Path(x[~held], labels.train[~held], labels.trained, task.device, intercept=settings["intercept"])
        held_x, held_y = x[held], labels.train[held]
        halving = settings["search"] == "halving"
        with task.progress.stage("logistic path", None if halving else len(grid), "penalties") as stage:

            def note(fit: Fit) -> None:
                accuracy = 100 * float((fit.logits(held_x).argmax(axis=1) == held_y).mean())
                path.append(
                    {"C": fit.C, "holdout_top1": accuracy, "iterations": fit.iterations, "converged": fit.converged}
                )
                fits[fit.C] = fit
                stage.advance()

            limits = {"each": note, "tol": settings["path_tol"], "max_iter": settings["max_iter"]}
            if halving:
                _halve(inner, grid, fits, path, limits)
            else:
                inner.fit(grid, **limits)
        path.sort(key=lambda point: float(point["C"]))
        best = max(point["holdout_top1"] for point in path)
        chosen = next(point["C"] for point in path if point["holdout_top1"] == best)
    else:
        chosen = grid[0]
    with task.progress.stage("logistic refit", 1, "fit") as stage:
        whole = Path(x, labels.train, labels.trained, task.device, intercept=settings["intercept"])
        fit = whole.fit([chosen], tol=settings["tol"], max_iter=settings["max_iter"], start=fits.get(chosen))[0]
        stage.advance()
    return chosen, path, fit


def _halve(
    inner: Path, grid: list[float], fits: dict[float, Fit], path: list[dict[str, Any]], limits: dict[str, Any]
) -> None:
    """CLIP's search: about seven penalties over the whole grid, then those half as far around the best, and so on."""
    step = 2 ** max(0, int(np.log2(max(len(grid) - 1, 1) / 6)))
    wanted = [*range(0, len(grid), step)]
    while True:
        for c in (grid[i] for i in wanted if 0 <= i < len(grid) and grid[i] not in fits):
            near = min(fits, key=lambda other: abs(np.log(other / c)), default=None)
            inner.fit([c], start=None if near is None else fits[near], **limits)
        best = max(path, key=lambda point: (point["holdout_top1"], -point["C"]))
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


def holdout(
    y: np.ndarray, share: float, seed: int, remedy: str = "set the option C to a number", *, stratified: bool = True
) -> np.ndarray:
    """bool [N]: a random part of about ``share``, of every class alike when ``stratified``.

    A class keeps at least one sample to learn from.
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
    if quota.sum() == 0:
        # Tiny data: hold out one sample of the largest class rather than select on nothing.
        quota[int(np.argmax(counts))] = 1 if counts.max() > 1 else 0
    held[order[by_class[rank_in_class < quota[shuffled[by_class]]]]] = True
    if not held.any():
        raise BenchError(f"every class has a single training sample: nothing can be held out; {remedy}")
    return held


def rank(logits: np.ndarray, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """(the best classes [N, m] in order, equal logits by lowest class; the true class' probability [N])."""
    m = min(5, logits.shape[1])
    top = np.argsort(-logits, axis=1, kind="stable")[:, :m]
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    probability = np.zeros(len(logits))
    seen = np.flatnonzero(labels.test < labels.trained)
    probability[seen] = shifted[seen, labels.test[seen]] / shifted[seen].sum(axis=1)
    return top, probability


def remarks(settings: dict[str, Any], path: list[dict[str, Any]], chosen: float, fit: Fit) -> dict[str, Any]:
    """What a reader should know: a choice at the grid's edge, fits that did not converge."""
    found: dict[str, Any] = {"iterations": fit.iterations, "converged": fit.converged}
    if len(path) > 1 and chosen in (path[0]["C"], path[-1]["C"]):
        found["at_edge_of_grid"] = True
    if late := [point["C"] for point in path if not point["converged"]]:
        found["not_converged"] = late
    return found
