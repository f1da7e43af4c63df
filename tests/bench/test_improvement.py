"""Relative improvement against DCD's printed numbers, the refusal rule, the gap closed."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import BenchError
from bench.improvement import gap_closed, relative_improvement

# CIFAR-100 top-1 of DCD's table 1: seven pairs of one architecture, six of two.
VANILLA = [73.26, 71.98, 69.06, 69.06, 71.14, 72.50, 70.36, 64.60, 64.60, 70.36, 70.50, 71.82, 70.50]
KD = [74.92, 73.54, 70.66, 70.67, 73.08, 73.33, 72.98, 67.37, 67.35, 73.81, 74.07, 74.45, 74.83]
DCD = [74.99, 73.69, 71.18, 71.00, 73.12, 74.23, 73.22, 68.35, 67.39, 73.85, 74.26, 75.26, 74.98]
DCD_KD = [76.06, 74.76, 71.81, 72.03, 73.62, 75.09, 73.95, 69.77, 70.03, 74.08, 76.01, 76.95, 76.51]
CRD = [75.48, 74.14, 71.16, 71.46, 73.48, 75.51, 73.94, 69.73, 69.11, 74.30, 75.11, 75.65, 76.05]
CRD_KD = [75.64, 74.38, 71.63, 71.56, 73.75, 75.46, 74.29, 69.94, 69.54, 74.58, 75.12, 76.05, 76.27]


@pytest.mark.parametrize(
    ("method", "mean", "median", "pooled"),
    [(DCD, 20.31, 9.16, 14.24), (DCD_KD, 73.87, 71.88, 62.61), (CRD, 56.83, None, None), (CRD_KD, 67.12, None, None)],
)
def test_published_cells_give_the_published_improvement(
    method: list[float], mean: float, median: float | None, pooled: float | None
) -> None:
    found = relative_improvement(method, KD, VANILLA)
    assert round(found.mean, 2) == mean
    if median is not None:
        assert (round(found.median, 2), round(found.pooled, 2)) == (median, pooled)
    assert found.refused == {}
    assert max(v for v in found.per_pair if v is not None) == found.per_pair[5]  # R32x4 -> R8x4: denominator .83


def test_a_pair_without_a_denominator_is_refused_and_said() -> None:
    found = relative_improvement([72, 75, 80], [71, 70, 78], [70, 70, 79])
    assert found.per_pair == (100.0, None, None)
    assert set(found.refused) == {1, 2}
    assert "does not exceed the baseline" in found.refused[1]
    assert (found.mean, found.median, found.pooled) == (100.0, 100.0, 100.0)


def test_a_denominator_within_its_noise_is_refused() -> None:
    found = relative_improvement([76.0, 76.0], [75.0, 75.0], [74.17, 70.0], se=[0.5, 0.5])
    assert found.per_pair == (None, 20.0)
    assert "2 standard errors" in found.refused[0]
    assert relative_improvement([76.0], [75.0], [74.0], se=[0.5]).per_pair == (100.0,)  # exactly 2 SE stands


def test_no_pair_left_is_a_sentence() -> None:
    with pytest.raises(BenchError, match="no pair to stand on"):
        relative_improvement([72], [70], [71])
    with pytest.raises(BenchError, match="no pair to stand on"):
        relative_improvement([], [], [])
    with pytest.raises(BenchError, match="one value per pair"):
        relative_improvement([72, 73], [70], [71])
    with pytest.raises(BenchError, match="finite"):
        relative_improvement([np.nan], [70], [69])


def test_order_of_pairs_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(KD))
    a = relative_improvement(DCD, KD, VANILLA)
    b = relative_improvement(*(np.array(c)[order].tolist() for c in (DCD, KD, VANILLA)))
    np.testing.assert_allclose(a[:3], b[:3], rtol=1e-12)


def test_gap_closed() -> None:
    assert gap_closed(73.0, 70.0, 75.0) == pytest.approx(60.0)
    assert gap_closed(76.0, 70.0, 75.0) == pytest.approx(120.0)
    assert gap_closed(69.0, 70.0, 75.0) == pytest.approx(-20.0)
    assert gap_closed(73.0, 75.0, 75.0) is None
    assert gap_closed(73.0, 76.0, 75.0) is None
