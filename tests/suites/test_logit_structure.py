"""DCD's class-logit difference and logit correlation: loops, scipy, degenerate logits."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import BenchError
from suites.logit_structure import class_difference, class_means, correlation_difference, standardised

RNG = np.random.default_rng(3)
TARGET = np.repeat(np.arange(5), 12)
TEACHER = RNG.standard_normal((60, 5)) + 3 * np.eye(5)[TARGET]
STUDENT = TEACHER + 0.7 * RNG.standard_normal((60, 5))


def test_class_difference_is_that_of_a_loop() -> None:
    def matrix(logits: np.ndarray) -> np.ndarray:
        total, count = np.zeros((5, 5)), np.zeros(5)
        for row, y in zip(logits, TARGET, strict=True):
            mean = sum(row) / 5
            sd = (sum((v - mean) ** 2 for v in row) / 4) ** 0.5
            total[y] += (row - mean) / sd
            count[y] += 1
        return total / count[:, None]

    expected = np.abs(matrix(STUDENT) - matrix(TEACHER))
    np.fill_diagonal(expected, 0)
    found = class_difference(TEACHER, STUDENT, TARGET)
    np.testing.assert_allclose(found.matrix, expected, atol=1e-12)
    assert found.mean == pytest.approx(expected.sum() / 25)
    assert found.max == pytest.approx(expected.max())
    assert found.frobenius == pytest.approx(np.sqrt((expected**2).sum()) / 5)


def test_standardised_is_scipys_zscore() -> None:
    from scipy.stats import zscore

    np.testing.assert_allclose(standardised(TEACHER), zscore(TEACHER, axis=1, ddof=1), atol=1e-12)


def test_each_samples_offset_and_scale_are_not_seen() -> None:
    offset, scale = RNG.standard_normal((60, 1)) * 50, RNG.uniform(0.1, 9, (60, 1))
    a = class_difference(TEACHER, STUDENT, TARGET)
    b = class_difference(TEACHER, STUDENT * scale + offset, TARGET)
    np.testing.assert_allclose(a.matrix, b.matrix, atol=1e-10)


def test_correlation_difference_is_numpys() -> None:
    expected = np.abs(np.corrcoef(STUDENT.T) - np.corrcoef(TEACHER.T))
    found = correlation_difference(TEACHER, STUDENT)
    np.testing.assert_allclose(found.matrix, expected, atol=1e-12)
    assert found.mean == pytest.approx(expected[~np.eye(5, dtype=bool)].mean())


def test_identical_networks_differ_by_exactly_zero() -> None:
    for found in (class_difference(TEACHER, TEACHER, TARGET), correlation_difference(TEACHER, TEACHER)):
        assert (found.mean, found.max, found.frobenius) == (0.0, 0.0, 0.0)


def test_classes_without_samples_and_constant_columns_are_left_out() -> None:
    target = np.where(TARGET == 2, 3, TARGET)
    found = class_difference(TEACHER, STUDENT, target)
    assert found.kept.tolist() == [0, 1, 3, 4]
    assert found.matrix.shape == (4, 4)
    assert np.isnan(class_means(TEACHER, target)[2]).all()
    dead = STUDENT.copy()
    dead[:, 1] = 0.25
    found = correlation_difference(TEACHER, dead)
    assert found.kept.tolist() == [0, 2, 3, 4]
    assert np.isfinite(found.matrix).all()


def test_a_sample_with_equal_logits_is_a_row_of_zeros() -> None:
    assert standardised(np.array([[0.1, 0.1, 0.1], [1.0, 2.0, 3.0]])).tolist() == [[0, 0, 0], [-1, 0, 1]]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: class_difference(TEACHER, STUDENT[:, :4], TARGET), "same samples and same classes"),
        (lambda: class_difference(TEACHER, STUDENT, np.zeros(60, int)), "two classes or more, not of 1"),
        (lambda: class_difference(TEACHER[:, :1], STUDENT[:, :1], TARGET), "two classes or more are needed"),
        (lambda: class_difference(TEACHER, STUDENT, TARGET + 1), "labels do not fit"),
        (lambda: class_difference(TEACHER * np.nan, STUDENT, TARGET), "NaN"),
        (lambda: correlation_difference(TEACHER, np.ones_like(STUDENT)), "two columns that vary"),
        (lambda: correlation_difference(TEACHER[:1], STUDENT[:1]), "two samples or more"),
    ],
)
def test_refusals(call, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        call()
