"""Similarity measures of degenerate representations: exact identities, and refusals in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from similaritypair import NAMES, X, Y, pair, value

from bench.errors import BenchError
from suites.similarity_measures import get, neighbours, rsa


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_representation_against_itself_gives_exactly_the_identity(name: str, dtype: type) -> None:
    for x in (X, *pair()):
        assert value(name, x.astype(dtype), x.astype(dtype)) == get(name).identity


@pytest.mark.parametrize("name", NAMES)
def test_constant_features_are_refused(name: str) -> None:
    flat = np.tile([1.0, 2.0, 3.0], (40, 1))
    for both, which in (((flat, Y), "first"), ((X, flat), "second")):
        with pytest.raises(BenchError, match=f"{which} network's features are the same for every sample"):
            value(name, *both)


@pytest.mark.parametrize("name", NAMES)
def test_one_constant_column_changes_nothing_that_is_finite(name: str) -> None:
    found = value(name, np.hstack([X, np.zeros((40, 1))]), Y)
    assert np.isfinite(found)
    if name != "rsa":  # correlates over the features: another zero is another number
        assert found == pytest.approx(value(name, X, Y), abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_samples_than_features(name: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 40)), rng.standard_normal((12, 30))
    if name in {"cca", "cca_r2", "svcca", "pwcca"}:
        with pytest.raises(BenchError, match="more samples than both networks' features together"):
            value(name, x, y)
    elif name == "cka":
        assert 0.6 < value(name, x, y) < 1.0  # the known bias, that the debiased estimate does not have
        assert abs(value("cka_debiased", x, y)) < 0.3
    else:
        low, high = get(name).bounds
        assert low <= value(name, x, y) <= high


@pytest.mark.parametrize("name", NAMES)
def test_duplicate_samples(name: str) -> None:
    x, y = (np.repeat(f, 3, axis=0) for f in pair())
    low, high = get(name).bounds
    assert low <= value(name, x, y) <= high
    assert value(name, x, x) == get(name).identity


@pytest.mark.parametrize("factor", [1e-150, 1e-30, 1e30, 1e140])
def test_tiny_and_huge_features(factor: float) -> None:
    for name in NAMES:
        assert value(name, X * factor, Y) == pytest.approx(value(name, X, Y), abs=1e-8), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (X[:20], Y, "20 and 40 samples"),
        (X[:, 0], Y, "shape"),
        (np.where(np.arange(40)[:, None] == 4, np.nan, X), Y, "first: sample 4"),
        (X[:1], Y[:1], "samples or more; there are 1"),
    ],
)
def test_refusals(name: str, x: np.ndarray, y: np.ndarray, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        value(name, x, y)


def test_refusals_of_single_measures() -> None:
    with pytest.raises(BenchError, match="7 cannot be compared"):
        neighbours.nearest(X[:7], 7)
    with pytest.raises(BenchError, match="equal features throughout"):
        rsa.rsa(np.vstack([np.ones((1, 6)), X]), np.vstack([Y[:1], Y]))
    with pytest.raises(BenchError, match="distinct samples"):
        value("cluster_nmi", np.repeat(X[:2], 20, axis=0), Y, k=3)
    with pytest.raises(BenchError, match="median distance"):
        value("cka_rbf", np.vstack([np.tile(X[:1], (39, 1)), X[1:2]]), Y)
    with pytest.raises(BenchError, match="batches of 4"):
        value("cka_minibatch", X, Y, batch=3)
    with pytest.raises(BenchError, match="unknown similarity measure 'ckaa'; nearest: cka"):
        get("ckaa")
