"""Function-space agreement: known answers, scipy and scikit-learn, properties, edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from suites import fidelity as f

ROW, COLUMN = np.arange(20)[:, None], np.arange(5)[None]
T = np.sin(1.1 * ROW + 0.9 * COLUMN**2)
S = np.cos(0.8 * ROW * (COLUMN + 1)) + T
P, Q = f.log_probabilities(T), f.log_probabilities(S)
TARGET = np.arange(20) % 5


def test_known_answers_of_the_logit_pair() -> None:
    assert f.agreements(P, Q).mean() == 0.65
    assert f.divergences(P, Q).mean() == pytest.approx(0.177220, abs=5e-7)
    assert f.hinton_divergences(T, S, 4.0).mean() == pytest.approx(0.200416, abs=5e-7)


def test_second_computations() -> None:
    from scipy.spatial.distance import jensenshannon
    from scipy.special import log_softmax, softmax
    from scipy.stats import entropy
    from sklearn.metrics import brier_score_loss, cohen_kappa_score, log_loss

    np.testing.assert_allclose(P, log_softmax(T, axis=1), atol=1e-14)
    p, q = softmax(T, axis=1), softmax(S, axis=1)
    np.testing.assert_allclose(f.divergences(P, Q), entropy(p, q, axis=1), atol=1e-14)
    np.testing.assert_allclose(f.jensen_shannon(P, Q), jensenshannon(p, q, axis=1) ** 2, atol=1e-14)
    np.testing.assert_allclose(f.total_variation(P, Q), np.abs(p - q).sum(1) / 2, atol=1e-14)
    assert f.negative_log_likelihoods(Q, TARGET).mean() == pytest.approx(log_loss(TARGET, q), abs=1e-12)
    one_hot = np.eye(5)[TARGET]
    assert f.brier_scores(Q, TARGET).mean() == pytest.approx(
        brier_score_loss(TARGET, q, labels=range(5), scale_by_half=False), abs=1e-12
    )
    assert f.brier_scores(Q, TARGET).mean() == pytest.approx(((q - one_hot) ** 2).sum(1).mean(), abs=1e-12)
    a, b = P.argmax(1), Q.argmax(1)
    shares = [np.bincount(c, minlength=5) / 20 for c in (a, b)]
    assert f.kappa(np.float64(0.65), *shares) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_hinton_at_one_is_the_average_predictive_kl_and_high_ones_the_logits_variance() -> None:
    np.testing.assert_allclose(f.hinton_divergences(T, S, 1.0), f.divergences(P, Q), atol=1e-14)
    # At high temperature: KL of softmaxes tends to the variance of the logits' difference over 2 (Hinton et al. 2015).
    limit = (T - S).var(axis=1) / 2
    np.testing.assert_allclose(f.hinton_divergences(T, S, 1e4), limit, rtol=1e-3, atol=1e-12)


def test_ece_by_a_loop() -> None:
    rng = np.random.default_rng(0)
    p = f.log_probabilities(rng.standard_normal((500, 4)) * 2)
    target = rng.integers(0, 4, 500)
    confidence, right = np.exp(p).max(1), p.argmax(1) == target
    for bins in (1, 10, 15):
        expected = 0.0
        for b in range(bins):
            inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
            if inside.any():
                expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        assert f.ece(p, target, bins).ece == pytest.approx(expected, abs=1e-12)


def test_debiased_ece_is_nearer_to_the_truth_than_the_plug_in() -> None:
    """Perfectly calibrated predictions: the true error is 0, the plug-in is biased upwards, the debiased one less."""
    rng = np.random.default_rng(1)
    plain, less = [], []
    for _ in range(300):
        confidence = rng.uniform(0.5, 1.0, 300)
        p = np.log(np.stack([confidence, 1 - confidence], axis=1))
        target = (rng.random(300) > confidence).astype(int)
        found = f.ece(p, target, 15)
        plain.append(found.ece)
        less.append(found.debiased)
    assert np.mean(plain) > 0.05
    assert 0 < np.mean(less) < 0.65 * np.mean(plain)


def test_debiased_ece_is_the_monte_carlo_of_its_definition() -> None:
    counts, correct, confidence = np.array([40.0, 60.0]), np.array([30.0, 57.0]), np.array([26.0, 54.0])
    rng = np.random.default_rng(0)
    a = correct / counts
    noisy = a + rng.standard_normal((400_000, 2)) * np.sqrt(a * (1 - a) / counts)
    excess = (np.abs(noisy - confidence / counts) * counts / 100).sum(1).mean()
    found = f.calibration(counts, correct, confidence)
    assert found.debiased == pytest.approx(2 * found.ece - excess, abs=2e-4)


def test_bins_are_closed_on_the_right() -> None:
    assert f.confidence_bins(np.array([0.0, 0.1, 0.1000001, 0.5, 1.0]), 10).tolist() == [0, 0, 1, 4, 9]


def test_ensemble_is_the_mean_of_probabilities() -> None:
    np.testing.assert_allclose(np.exp(f.ensemble([P, Q])), (np.exp(P) + np.exp(Q)) / 2, atol=1e-15)
    np.testing.assert_allclose(f.ensemble([P, P, P]), P, atol=1e-14)
    assert f.ensemble([P]) is P


def test_identical_networks_give_exactly_one_or_zero() -> None:
    assert f.agreements(P, P).mean() == 1.0
    for per_sample in (
        f.divergences(P, P),
        f.hinton_divergences(T, T, 4),
        f.total_variation(P, P),
        f.jensen_shannon(P, P),
    ):
        assert not per_sample.any()
    shares = np.bincount(P.argmax(1), minlength=5) / 20
    assert f.kappa(np.float64(1.0), shares, shares) == 1.0


def test_kappa_has_no_value_when_both_networks_always_say_one_class() -> None:
    one = np.array([1.0, 0.0])
    assert np.isnan(f.kappa(np.float64(1.0), one, one))
    assert f.kappa(np.float64(0.0), one, one[::-1]) == 0.0


def test_extreme_logits_stay_finite() -> None:
    hard, flat = np.array([[1e4, 0.0, -1e4]]), np.array([[-1e4, 0.0, 1e4]])
    p, q = f.log_probabilities(hard), f.log_probabilities(flat)
    assert f.divergences(p, q)[0] == pytest.approx(2e4)
    assert f.total_variation(p, q)[0] == 1.0
    assert f.jensen_shannon(p, q)[0] == pytest.approx(math.log(2))
    assert f.brier_scores(p, np.array([2]))[0] == pytest.approx(2.0)


logit_pairs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        *(st.lists(st.lists(st.floats(-30, 30), min_size=4, max_size=4), min_size=n, max_size=n) for _ in range(2))
    )
)


@settings(max_examples=60, deadline=None)
@given(logit_pairs)
def test_bounds_and_symmetry(pair: tuple[list[list[float]], list[list[float]]]) -> None:
    a, b = (f.log_probabilities(np.array(side)) for side in pair)
    js, tv, kl = f.jensen_shannon(a, b), f.total_variation(a, b), f.divergences(a, b)
    np.testing.assert_allclose(js, f.jensen_shannon(b, a), atol=1e-12)
    np.testing.assert_allclose(tv, f.total_variation(b, a), atol=1e-12)
    assert (js <= np.log(2)).all()
    assert (tv <= 1).all()
    assert (kl >= 2 * tv**2 - 1e-9).all()  # Pinsker
    assert (js <= tv * np.log(2) + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(5)), st.floats(-50, 50))
def test_class_order_and_logit_offset_are_not_seen(order: list[int], offset: float) -> None:
    p, q = f.log_probabilities(T[:, order] + offset), f.log_probabilities(S[:, order])
    np.testing.assert_allclose(f.divergences(p, q), f.divergences(P, Q), atol=1e-11)
    assert f.agreements(p, q).mean() == 0.65


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: f.log_probabilities(np.full((3, 2), np.nan), who="the teacher"), "teacher hold NaN .* 3 of 3"),
        (lambda: f.log_probabilities(np.zeros(3)), "shape"),
        (lambda: f.log_probabilities(np.zeros((0, 3))), "shape"),
        (lambda: f.log_probabilities(T, 0.0), "temperature"),
        (lambda: f.divergences(P, Q[:, :4]), "same samples and same classes"),
        (lambda: f.negative_log_likelihoods(P, TARGET + 1), "do not fit"),
        (lambda: f.brier_scores(P, TARGET[:3]), "one label per sample"),
        (lambda: f.ece(P, TARGET, 0), "at least one bin"),
        (lambda: f.ensemble([]), "at least one member"),
    ],
)
def test_refusals(call, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        call()


def test_one_class_has_one_answer() -> None:
    p = f.log_probabilities(np.array([[3.0], [5.0]]))
    assert not f.divergences(p, p).any()
    assert f.agreements(p, p).all()
    assert f.ece(p, np.array([0, 0]), 15).ece == 0.0
