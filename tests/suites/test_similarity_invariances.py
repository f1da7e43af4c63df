"""Similarity measures have the invariances that they declare and no others, symmetry, bounds, and honest errors."""

from __future__ import annotations

import numpy as np
import pytest
from similaritypair import NAMES, changed, pair, value

from suites.similarity_measures import get


@pytest.mark.parametrize("kind", ["permutation", "rotation", "scale", "shift", "linear"])
@pytest.mark.parametrize("name", NAMES)
def test_declared_invariances_hold_and_no_others(name: str, kind: str) -> None:
    measure = get(name)
    x, y = pair()
    options = {"k": 4} if name.startswith("cluster") else {}
    before = value(name, x, y, **options)
    for declared, after in (
        (kind in measure.first, value(name, changed(kind, x), y, **options)),
        (kind in measure.second, value(name, x, changed(kind, y), **options)),
    ):
        if declared:
            assert after == pytest.approx(before, abs=1e-8)
        else:
            assert abs(after - before) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_symmetry_order_of_samples_and_bounds(name: str) -> None:
    measure = get(name)
    x, y = pair()
    options = {"k": 4} if name.startswith("cluster") else {}
    if name == "cka_minibatch":
        options["batch"] = 60  # otherwise the order decides what a batch holds
    there = value(name, x, y, **options)
    back = value(name, y, x, **options)
    if measure.symmetric:
        assert back == pytest.approx(there, abs=1e-10)
    else:
        assert abs(back - there) > 1e-4
    order = np.random.default_rng(0).permutation(len(x))
    assert value(name, x[order], y[order], **options) == pytest.approx(there, abs=1e-8)
    low, high = measure.bounds
    assert low <= there <= high


@pytest.mark.parametrize("name", ["cka", "cka_debiased", "distance_correlation", "procrustes"])
def test_influence_gives_the_spread_over_fresh_samples(name: str) -> None:
    """The infinitesimal jackknife's standard error against the spread of the value over independent samples."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((4, 3))
    values, errors = [], []
    for _ in range(200):
        x = rng.standard_normal((150, 4))
        found = get(name).compute(x, x @ mix + 2 * rng.standard_normal((150, 3)))
        assert found.influence is not None
        assert abs(found.influence.sum()) < 1e-9
        values.append(found.value)
        errors.append(np.sqrt(np.square(found.influence).sum()))
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.2)
