"""Measure: one similarity of two representations with all that is true of it, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Invariance = Literal["permutation", "rotation", "scale", "shift", "linear"]
"""Changes of one network's features that leave the value as it is: ``permutation`` of the columns, an orthogonal
``rotation``, one positive ``scale`` for all, a ``shift`` of all samples by one vector, an invertible ``linear`` map."""

SIMPLE: frozenset[Invariance] = frozenset({"permutation", "rotation", "scale", "shift"})


@dataclass(frozen=True)
class Value:
    """A measure's value and, where the measure is made of the samples' own shares, what its interval rests on."""

    value: float
    per_sample: np.ndarray | None = None
    """float64 [N] whose mean is ``value``: the interval is a bootstrap over them."""
    influence: np.ndarray | None = None
    """float64 [N]: first-order influence of each sample; the squared standard error is the sum of its squares."""


@dataclass(frozen=True)
class Measure:
    """``compute(x, y, **options) -> Value`` for features float [N, p] and [N, q] of the same samples."""

    name: str
    title: str
    compute: Callable[..., Value]
    source: str
    bounds: tuple[float, float]
    identity: float
    """The value of a representation against itself, exactly."""
    first: frozenset[Invariance]
    """Invariances in the first network's features."""
    second: frozenset[Invariance]
    """Invariances in the second network's."""
    symmetric: bool = True
    higher_is_better: bool = True
    """Higher is more similar."""
    cap: Literal["", "samples", "cca_samples"] = ""
    """The suite's setting that caps the samples for it: measures of all pairs, and factorisations of all rows."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options of ``compute`` and their defaults, by the name that the suite's settings use."""
