"""The grid of an SGD probe: rates, decays and features, each point a head, and the recipe by which heads learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError
from suites.heads import Recipe, scaled


@dataclass(frozen=True)
class Head:
    """One point of the grid; the rate is that of the total batch."""

    feature: str
    rate: float
    decay: float

    def described(self) -> dict[str, Any]:
        return {"feature": self.feature, "rate": self.rate, "weight_decay": self.decay}


def grid_of(settings: dict[str, Any], features: Sequence[str]) -> list[Head]:
    """Every head of the card, feature by feature. Refuses ``last`` with a choice to make."""
    rates = scaled(settings["rates"], settings["batch"], settings["absolute"])
    grid = [Head(f, rate, float(decay)) for f in features for decay in settings["weight_decay"] for rate in rates]
    if settings["select"] == "last" and len(grid) > 1:
        raise BenchError(
            "select=last chooses nothing: give one learning rate, weight decay and feature with it "
            "(options rates, weight_decay, features)"
        )
    return grid


def in_loop(settings: dict[str, Any]) -> bool:
    """Whether the card learns from augmented images, the network in the loop, rather than from stored features."""
    return "interpolation" in settings


def recipe_of(settings: dict[str, Any], n: int, heads: Sequence[Head]) -> Recipe:
    """The recipe of ``heads`` for ``n`` training samples: total batch and samples seen are the card's."""
    per_epoch = n / settings["batch"]
    iterations = settings["iterations"] or math.ceil(settings["epochs"] * per_epoch)
    return Recipe(
        rates=tuple(head.rate for head in heads), weight_decay=tuple(head.decay for head in heads),
        iterations=iterations, batch=settings["batch"], momentum=settings["momentum"], nesterov=settings["nesterov"],
        optimiser=settings["optimiser"], schedule=settings["schedule"], epochs=settings["epochs"],
        milestones=tuple(settings["milestones"]), warmup=round(settings["warmup"] * per_epoch), lars=settings["lars"],
        batchnorm=settings["batchnorm"], larc=settings.get("larc", False), affine=settings.get("affine", ""),
        init=settings.get("init", "normal"), end=settings.get("end"),
    )  # fmt: skip
