"""Linear probe: L2 logistic regression on stored features, the penalty chosen on a hold-out, refit on all of train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from bench.axes import FROZEN
from bench.errors import BenchError
from bench.options import SHARE, Allowed, count, positive, words
from bench.suite import Needs, engine_of
from suites import logreg_probe
from suites.classification import accuracies, confidence_of, features_of, labels_of, rank
from suites.logreg_probe import grid_of, prepared, probe, remarks
from suites.repeats import over_runs
from suites.targets import is_multilabel

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task


class Linear:
    """Top-1, top-5 and mean-per-class of the refitted probe; the swept path is in ``details``."""

    name = "linear"
    default = "linear/logreg@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {
        **logreg_probe.CHOICE,
        "split": words("stratified", "every-class", "random", "published"),
        "ties": words("strongest", "weakest"),
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
        "schedule": words("cosine", "cosine-epoch", "steps", "onecycle"),
        "milestones": SHARE,
        "interpolation": words("bilinear", "bicubic"),
        "warmup": Allowed(least=0, most=1e6),
        "select": words("holdout", "last", "best_on_test"),
        "loss": words("bce"),
        "init": words("normal", "zero", "uniform", "lecun"),
        "affine": words("free", "decayed"),
        "end": SHARE,
        "crops": words("torchvision", "clipped"),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if "rates" in protocol.settings:
            from suites import choices, sgd_grid

            if chosen := protocol.axes.keys() - {"size", "resize", "resample"}:
                raise BenchError(
                    f"{protocol.id}: this recipe says itself what it reads: set {protocol.suite}.features (as "
                    f"block6.avg or blocks4.cls) and leave {protocol.suite}.{min(chosen)} out"
                )
            wanted = choices.resolved(protocol.settings["features"], card)
            sgd_grid.grid_of(protocol.settings, wanted)
            return Needs(choices.names_in(wanted), backbone=sgd_grid.in_loop(protocol.settings))
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
