"""Intervals of proportions: published values, exact coverage by enumeration, and the ends."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from bench.stats import clopper_pearson, mean_per_class, mean_per_class_interval, wilson


def test_known_answers():
    assert wilson(38050, 50000) == pytest.approx((0.75724, 0.76472), abs=5e-6)
    assert clopper_pearson(38050, 50000) == pytest.approx((0.75724, 0.76473), abs=5e-6)
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=5e-6)
    assert clopper_pearson(0, 10) == pytest.approx((0, 0.30850), abs=5e-6)


@pytest.mark.parametrize("k", [0, 1, 7, 19, 20])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_scipys_own(k, confidence):
    test = binomtest(k, 20)
    for mine, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = test.proportion_ci(confidence, method=method)
        assert mine(k, 20, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_swapping_hits_and_misses_mirrors_the_interval():
    for interval in (wilson, clopper_pearson):
        low, high = interval(3, 40)
        assert interval(37, 40) == pytest.approx((1 - high, 1 - low))


def test_coverage():
    """Summed over every outcome: exact is never below 95 %, Wilson near it on average over p."""
    n, ps = 30, np.linspace(0.02, 0.98, 97)
    covered = {}
    for interval in (wilson, clopper_pearson):
        bounds = [interval(k, n) for k in range(n + 1)]
        covered[interval] = [
            sum(binom.pmf(k, n, p) for k, (low, high) in enumerate(bounds) if low <= p <= high) for p in ps
        ]
    assert min(covered[clopper_pearson]) >= 0.95
    assert np.mean(covered[wilson]) == pytest.approx(0.953, abs=0.01)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts(interval, counts):
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        interval(*counts)


def test_mean_per_class_by_hand_and_one_class_is_wilson():
    assert mean_per_class(np.array([1, 3, 0]), np.array([2, 4, 0])) == pytest.approx((0.5 + 0.75) / 2)
    assert mean_per_class_interval(np.array([7]), np.array([20])) == pytest.approx(wilson(7, 20))
    low, high = mean_per_class_interval(np.array([10, 10]), np.array([10, 10]))
    assert low < 1 == high


COVERED = [
    (np.array([10, 30, 80, 200]), np.array([0.5, 0.9, 0.7, 0.97])),
    # As the sets of the transfer tables are: many classes of few samples, most of them right.
    (np.full(100, 10), np.linspace(0.85, 0.95, 100)),
    (np.full(102, 60), np.linspace(0.965, 0.995, 102)),
    (np.full(500, 3), np.linspace(0.4, 1.0, 500)),
    (np.full(100, 1), np.linspace(0.4, 1.0, 100)),
]


@pytest.mark.parametrize(("counts", "p"), COVERED)
def test_mean_per_class_interval_covers(counts, p):
    """About 95 of 100 intervals hold the true mean, and those that do not lie on both sides of it."""
    rng = np.random.default_rng(0)
    bounds = np.array([mean_per_class_interval(rng.binomial(counts, p), counts) for _ in range(1000)])
    above, below = (bounds[:, 0] > p.mean()).sum(), (bounds[:, 1] < p.mean()).sum()
    assert 930 <= 1000 - above - below <= 980
    assert max(above, below) <= 50


def test_mean_per_class_of_equal_classes_that_are_alike_is_nearly_one_sample():
    """With nothing between the classes the effective number of samples is their number."""
    low, high = mean_per_class_interval(np.full(40, 16), np.full(40, 20))
    assert (low, high) == pytest.approx(wilson(640, 800), abs=0.004)
    assert mean_per_class_interval(np.full(40, 20), np.full(40, 20)) == pytest.approx(wilson(800, 800))
    assert mean_per_class_interval(np.array([3, 7]), np.array([9, 8])) == pytest.approx(
        mean_per_class_interval(np.array([7, 3, 0]), np.array([8, 9, 0]))
    )
