"""Average precision: cases by hand, brute force over every threshold, resampling as repetition."""

import numpy as np
import pytest

from suites import jackknife
from suites.average_precision import Ranking, along_ranks, average_precision, mean_average_precision


def brute(scores, positive, points):
    """Every distinct score as a threshold, in plain loops."""
    curve = []
    for at in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= at
        hit = int((taken & positive).sum())
        curve.append((hit / positive.sum(), hit / taken.sum()))
    best = lambda r: max([p for recall, p in curve if recall >= r - 1e-12], default=0.0)  # noqa: E731
    if points:
        return sum(best(i / (points - 1)) for i in range(points)) / points
    total, before = 0.0, 0.0
    for recall, _ in curve:
        total += (recall - before) * best(recall)
        before = recall
    return total


def test_by_hand():
    # Ranks: hit, miss, hit, miss, miss. Precision 1 up to recall 1/2, then 2/3.
    scores, positive = np.array([5.0, 4, 3, 2, 1]), np.array([True, False, True, False, False])
    assert average_precision(scores, positive) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(scores, positive, 11) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert average_precision(scores, np.array([True, True, False, False, False])) == 1
    assert np.isnan(average_precision(scores, np.zeros(5, dtype=bool)))
    # Scores all alike know nothing: precision is the share of positives.
    assert average_precision(np.zeros(5), positive) == pytest.approx(0.4)


@pytest.mark.parametrize("points", [0, 11])
@pytest.mark.parametrize("seed", range(6))
def test_brute_force_with_ties(points, seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 12, 60).astype(float), rng.random(60) < (0.1, 0.5)[seed % 2]
    positive[0] = True
    assert average_precision(scores, positive, points) == pytest.approx(brute(scores, positive, points))
    order = rng.permutation(60)
    assert average_precision(scores[order], positive[order], points) == average_precision(scores, positive, points)


@pytest.mark.parametrize("points", [0, 11])
def test_a_weight_is_a_repetition(points):
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 9, 30).astype(float), rng.random(30) < 0.4
    weights = rng.multinomial(30, np.full(30, 1 / 30), size=5)
    got = Ranking(scores, positive).average_precision(weights, points)
    for row, value in zip(weights, got, strict=True):
        again = np.repeat(np.arange(30), row)
        assert value == pytest.approx(brute(scores[again], positive[again], points))


def test_difficult_samples_do_not_count_and_classes_without_positives_are_left_out():
    scores = np.array([[4.0, 1, 0], [3, 2, 0], [2, 3, 0], [1, 4, 0]])
    targets = np.array([[1, -1, -1], [0, -1, -1], [1, 1, -1], [-1, 0, -1]])
    value, each, interval = mean_average_precision(scores, targets, 11)
    assert each == [1.0, 1.0, None]
    assert value == 1
    assert interval[0] <= 1 <= interval[1]


def test_the_interval_holds_the_value_and_narrows_with_n():
    rng = np.random.default_rng(1)
    widths = []
    for n in (60, 960):
        targets = np.where(rng.random((n, 3)) < 0.4, 1, -1)
        value, _, (low, high) = mean_average_precision(targets + 2 * rng.standard_normal((n, 3)), targets, 11)
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2.5


def test_precision_along_the_ranks():
    relevant = np.array([[True, False, True, False], [False, False, False, False]])
    assert along_ranks(relevant, [2, 3]).tolist() == pytest.approx([(1 + 2 / 3) / 2, 0])
    # One relevant sample lies beyond the ranks that were looked at.
    assert along_ranks(relevant[:1], [3]).tolist() == pytest.approx([(1 + 2 / 3) / 3])


def test_a_class_without_a_judged_sample_has_no_precision():
    value, each, _ = mean_average_precision(np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[1, 0], [-1, 0]]))
    assert (value, each) == (1.0, [1.0, None])


def test_no_interval_of_a_single_sample_and_none_of_no_width():
    one = np.array([[2.0]]), np.array([[1]])
    assert mean_average_precision(*one)[2] is None
    _, _, (low, high) = mean_average_precision(np.arange(20.0)[:, None], np.where(np.arange(20) >= 10, 1, -1)[:, None])
    assert (round(low, 4), high) == (0.7225, 1.0)  # Wilson's, ten of ten.


def test_leaving_out_equals_computing_again():
    rng = np.random.default_rng(4)
    n = 25
    targets = np.where(rng.random((n, 2)) < 0.4, 1, -1)
    scores = targets + rng.standard_normal((n, 2))
    value, _, (low, high) = mean_average_precision(scores, targets)
    fewer = [[np.delete(table, i, 0) for table in (scores, targets)] for i in range(n)]
    again = [mean_average_precision(*tables, around=False)[0] for tables in fewer]
    error = np.sqrt((n - 1) / n * ((again - np.mean(again)) ** 2).sum())  # Tukey's jackknife.
    reach = 2.0639 * error / (value * (1 - value))  # Student's t at 24 degrees of freedom, from a table.
    ends = np.array([low, value, high])
    assert np.diff(np.log(ends / (1 - ends))) == pytest.approx([reach, reach], rel=1e-4)


def test_an_interval_near_the_end_has_hold():
    low, high = jackknife.interval(0.998, 0.005, 40, 40)
    assert 0.95 < low < 0.99
    assert high == 1
    assert jackknife.interval(0.5, 0.05, 40, 40)[0] == pytest.approx(0.4002, abs=1e-4)


@pytest.mark.slow  # Hundreds of sets, each left out of sample by sample.
@pytest.mark.parametrize("n", [100, 250, 500])
@pytest.mark.parametrize("points", [0, 11])
def test_intervals_cover(n, points):
    """Of the value expected of other samples of that number, at least 93 % of the time."""
    rng = np.random.default_rng(n + points)

    def draw(classes, share, distance):
        present = rng.random((n, classes)) < share
        return rng.standard_normal((n, classes)) + distance * present, np.where(present, 1, -1)

    for shape in ((1, 0.2, 1.5), (5, 0.3, 2.5), (10, 0.08, 1.5)):
        truth = np.mean([mean_average_precision(*draw(*shape), points, around=False)[0] for _ in range(600)])
        found = [mean_average_precision(*draw(*shape), points)[2] for _ in range(200)]
        assert np.mean([low <= truth <= high for low, high in found]) >= 0.93 - 1.65 * np.sqrt(0.05 * 0.95 / 200)
