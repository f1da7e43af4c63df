"""Paired statistics: known answers, a second computation, and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from bench.paired import (
    accuracy_difference,
    benjamini_hochberg,
    holm,
    mcnemar,
    mean_difference,
    mean_per_class_difference,
    ratio_difference,
    standard_error,
    unpaired_difference,
)
from bench.stats import wilson


def discordant(gained: int, lost: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.ones(n, bool), np.ones(n, bool)
    first[:gained] = False
    second[gained : gained + lost] = False
    return first, second


def test_mcnemar_known_answer() -> None:
    exact, mid = mcnemar(25, 10)
    assert exact == pytest.approx(0.01667, abs=5e-6)
    assert mid == pytest.approx(0.01133, abs=5e-6)
    assert mcnemar(10, 25) == (exact, mid)
    assert mcnemar(0, 0) == (1.0, 1.0)
    # Of 4 discordant pairs 2 : 2, the middle has probability 6/16 (Fagerland et al. 2013, additional file 1).
    assert mcnemar(2, 2) == (1.0, pytest.approx(1 - 3 / 16))


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(gained: int, lost: int) -> None:
    exact, mid = mcnemar(gained, lost)
    if gained + lost:
        assert exact == pytest.approx(reference.binomtest(gained, gained + lost).pvalue, rel=1e-9)
    assert 0 < mid <= exact <= 1
    # The mid-p value: what is less likely than the outcome, and half of what is as likely.
    k = np.arange(gained + lost + 1)
    p = reference.binom.pmf(k, gained + lost, 0.5)
    off = np.abs(2 * k - gained - lost)
    assert mid == pytest.approx(p[off > abs(gained - lost)].sum() + p[off == abs(gained - lost)].sum() / 2) or not k[-1]


def test_standard_error_is_the_protocols() -> None:
    """sqrt((b + c) - (b - c)^2 / n) / n: 4 % discordant on 50 000 is 0.09 points."""
    first, second = discordant(1000, 1000, 50_000)
    differences = second.astype(float) - first.astype(float)
    assert 100 * standard_error(differences) == pytest.approx(0.0894, abs=2e-4)
    assert standard_error(differences) == pytest.approx(differences.std() / math.sqrt(50_000), rel=1e-3)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 200))
def test_interval_holds_the_difference_and_swaps(gained: int, lost: int, n: int) -> None:
    first, second = discordant(gained, lost, n)
    there, back = accuracy_difference(first, second), accuracy_difference(second, first)
    assert there.low <= there.value == (gained - lost) / n <= there.high
    assert there.low < there.high
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert back.p == there.p


def test_accuracy_interval_covers() -> None:
    """Coverage by simulation, also where the plain formula has none: few samples, few flips."""
    rng = np.random.default_rng(0)
    for n, up, down in ((40, 0.02, 0.05), (500, 0.03, 0.06)):
        inside = 0
        for _ in range(2000):
            gained, lost, _ = rng.multinomial(n, [up, down, 1 - up - down])
            found = accuracy_difference(*discordant(gained, lost, n))
            inside += found.low <= up - down <= found.high
        assert inside / 2000 > 0.935


@given(st.integers(0, 1000))
def test_order_of_samples_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 100)
    first, second = rng.random(100) < 0.7, rng.random(100) < 0.8
    shuffled = rng.permutation(100)
    assert accuracy_difference(first[shuffled], second[shuffled]) == accuracy_difference(first, second)
    there = mean_per_class_difference(labels, first, second, replicates=200)
    again = mean_per_class_difference(labels[shuffled], first[shuffled], second[shuffled], replicates=200)
    assert there == again


def test_mean_per_class_bootstrap_is_that_of_resampled_images() -> None:
    """Drawing counts equals drawing the images of each class: same quantiles, computed the long way."""
    rng = np.random.default_rng(1)
    labels = np.repeat([3, 7, 9], [30, 80, 200])
    first, second = rng.random(310) < 0.6, rng.random(310) < 0.7
    found = mean_per_class_difference(labels, first, second, replicates=20_000)
    gain = second.astype(float) - first.astype(float)
    groups = [gain[labels == c] for c in (3, 7, 9)]
    assert found.value == pytest.approx(np.mean([g.mean() for g in groups]))
    long_way = np.mean([rng.choice(g, size=(20_000, len(g))).mean(axis=1) for g in groups], axis=0)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(long_way, [0.025, 0.975])), abs=0.004)


def test_one_class_and_one_sample() -> None:
    found = mean_per_class_difference(np.zeros(1), np.array([True]), np.array([False]), replicates=100)
    assert found.value == -1
    assert accuracy_difference(np.array([True]), np.array([False])).value == -1
    with pytest.raises(ValueError, match="one shape"):
        accuracy_difference(np.array([], bool), np.array([], bool))
    with pytest.raises(ValueError, match="one shape"):
        accuracy_difference(np.array([True]), np.array([True, False]))


def test_mean_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.random(50), rng.random(50) + 0.1
    found = mean_difference(first, second)
    known = reference.ttest_rel(second, first)
    assert found.p == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval(0.95)))
    assert mean_difference(first, first) == (0, 0, 0, 1)
    assert mean_difference(first[:1], second[:1]).high == math.inf


def test_mean_iou_is_accumulated_before_the_ratio() -> None:
    intersection = np.array([[1.0, 0.0], [9.0, 0.0]])
    union = np.array([[10.0, 0.0], [10.0, 0.0]])
    better = (intersection * 1.5, union)
    found = ratio_difference((intersection, union), better, replicates=300)
    assert found.value == pytest.approx(0.75 - 0.5), "the class that never occurs is left out of the mean"
    assert found.low <= found.value <= found.high
    same = ratio_difference(better, better, replicates=300)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_unpaired_known_answer() -> None:
    """Newcombe 1998, example (a): 56/70 and 48/80 by method 10."""
    found = unpaired_difference((48 / 80, *wilson(48, 80)), (56 / 70, *wilson(56, 70)))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert found.p < 0.05
    assert unpaired_difference((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)).p == 1


def test_holm_and_benjamini_hochberg_known_answers() -> None:
    p = [0.001, 0.012, 0.021, 0.039, 0.2]
    assert sum(q <= 0.05 for q in benjamini_hochberg(p)) == 4
    assert sum(q <= 0.05 for q in holm(p)) == 2
    assert benjamini_hochberg(p) == pytest.approx(reference.false_discovery_control(p))
    assert holm([0.5]) == [0.5]
    assert holm([]) == benjamini_hochberg([]) == []
    assert holm(p[::-1]) == holm(p)[::-1]


def test_mean_per_class_without_a_flip_is_no_certainty():
    labels, same = np.repeat(np.arange(5), 8), np.ones(40, dtype=bool)
    found = mean_per_class_difference(labels, same, same)
    assert (found.value, found.p) == (0.0, 1.0)
    assert (found.low, found.high) == pytest.approx(tuple(accuracy_difference(same, same)[1:3]))
