"""Means over runs: both causes of their spread, and how often the interval holds the truth."""

import numpy as np
import pytest

from bench.stats import wilson
from suites.repeats import mean_of_runs, reach_of_samples


def test_runs_that_agree_leave_the_test_samples():
    hits = np.tile(np.arange(50) < 40, (3, 1))
    low, high = wilson(40, 50)
    below, above = reach_of_samples(hits)
    assert (below, above) == pytest.approx((80 - 100 * low, 100 * high - 80))
    mean, sd, interval = mean_of_runs(100 * hits.mean(axis=1), below, above)
    assert (mean, sd) == (pytest.approx(80), pytest.approx(0))
    assert interval == pytest.approx((100 * low, 100 * high))
    assert reach_of_samples(np.ones((3, 50), dtype=bool)) == pytest.approx((100 - 100 * wilson(50, 50)[0], 0))


def test_runs_that_have_nothing_in_common_count_as_so_many_samples():
    # Every sample is right in one of two runs: no sample is harder than another.
    hits = np.stack([np.arange(60) % 2 == 0, np.arange(60) % 2 == 1])
    assert reach_of_samples(hits)[0] == pytest.approx(50 - 100 * wilson(60, 120)[0])


def test_student_alone_without_a_reach():
    # 2.7764: the 97.5 % point at four degrees of freedom, from a table.
    mean, sd, (low, high) = mean_of_runs(np.array([60.0, 61, 62, 63, 64]))
    assert (mean, high - mean) == (62, pytest.approx(2.7764 * sd / 5**0.5, rel=1e-4))
    assert mean - low == pytest.approx(high - mean)


def test_the_interval_holds_the_truth():
    """Draws, samples and their chance each have a part in whether an answer is right."""
    rng = np.random.default_rng(0)
    held = {"both": 0, "draws": 0}
    for _ in range(400):
        draws, hard = 0.25 * rng.standard_normal((5, 1)), rng.standard_normal((1, 200))
        hits = draws + hard + rng.standard_normal((5, 200)) + 0.5 > 0
        runs = 100 * hits.mean(axis=1)
        truth = 100 * 0.6369  # P(N(0.5, 0.0625 + 1 + 1) > 0).
        for name, reach in (("both", reach_of_samples(hits)), ("draws", (0.0, 0.0))):
            low, high = mean_of_runs(runs, *reach)[2]
            held[name] += low <= truth <= high
    assert held["both"] >= 0.94 * 400
    assert held["draws"] < held["both"]
