"""linear/logreg: scikit-learn's solution, the hold-out's rules, and the cases that break probes."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from suitehelp import clusters, evaluate, values

from bench.errors import BenchError
from suites.logreg_path import Path as Penalties
from suites.logreg_path import lbfgs
from suites.validation import holdout

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "features" / "clusters50"


def golden(split):
    with np.load(GOLDEN / f"{split}.npz") as stored:
        return stored["x"], stored["y"]


@pytest.mark.parametrize("c", ["0.001", "0.01", "0.1", "1"])
def test_scikit_learn_on_the_golden_features(c):
    expected = json.loads((GOLDEN / "expected.json").read_text())["logreg_sklearn"][c]
    measurements, made = evaluate("linear", golden("train"), golden("test"), C=float(c))
    assert values(measurements, "top1") == pytest.approx(expected["top1"], abs=0.2)
    assert made.protocol.id == f"linear/logreg@1+C={c}"
    assert {m.selection for m in measurements} == {"none"}


@pytest.mark.parametrize("c", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize("shape", ["plain", "shifted", "wide", "very wide", "constant column", "unbalanced"])
def test_probabilities_are_scikit_learns(c, shape):
    x, y = clusters(0, 200, 4, 10)
    if shape == "shifted":
        x = x * 3 + 50
    elif shape.endswith("wide"):
        extra = 300 if shape == "wide" else 800
        x = np.concatenate([x, np.random.default_rng(1).standard_normal((200, extra))], axis=1).astype(np.float32)
    elif shape == "constant column":
        x[:, 3] = 7
    elif shape == "unbalanced":
        keep = (y > 0) | (np.arange(200) % 25 == 0)
        x, y = x[keep], y[keep]
    # The intercept is free, so centring changes nothing but scikit-learn's chance to get there.
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(centred, y)
    (fit,) = Penalties(x, y, 4).fit([c], tol=1e-6)
    assert fit.converged
    logits = fit.logits(x).astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(p, reference.predict_proba(centred), atol=2e-3)


def test_two_classes_mean_scikit_learns_penalty():
    """scikit-learn fits two classes with one weight vector; ours has two, and must mean the same C."""
    x, y = clusters(0, 150, 2, 5)
    (fit,) = Penalties(x, y, 2).fit([0.1], tol=1e-7)
    reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(x, y)
    logits = fit.logits(x).astype(np.float64)
    p = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(p, reference.predict_proba(x)[:, 1], atol=1e-3)


def test_a_path_ends_where_a_cold_fit_does():
    x, y = clusters(0, 300, 5, 20, spread=0.6)
    grid = [1e-4, 1e-2, 1.0]
    path = Penalties(x, y, 5).fit(grid, tol=1e-6)
    for fit in path:
        (cold,) = Penalties(x, y, 5).fit([fit.C], tol=1e-6)
        assert fit.loss == pytest.approx(cold.loss, rel=1e-5)
        np.testing.assert_allclose(fit.logits(x), cold.logits(x), atol=5e-3)


def test_the_chosen_penalty_is_the_smallest_of_the_best_and_everything_is_said():
    measurements, made = evaluate("linear", clusters(0, 400, 4, spread=0.5), clusters(1, 200, 4, spread=0.5), points=9)
    details = measurements[0].details
    assert len(details["path"]) == 9
    best = max(point["holdout_top1"] for point in details["path"])
    assert details["chosen"] == min(point["C"] for point in details["path"] if point["holdout_top1"] == best)
    assert {m.metric for m in measurements} == {"top1", "top5", "mean_per_class"}
    assert [m.metric for m in measurements if m.headline] == ["top1"]
    assert {m.selection for m in measurements} == {"holdout"}
    assert made.protocol.id == "linear/logreg@1+points=9"
    again, _ = evaluate("linear", clusters(0, 400, 4, spread=0.5), clusters(1, 200, 4, spread=0.5), points=9)
    assert [(m.value, m.details) for m in again] == [(m.value, m.details) for m in measurements]


def test_test_labels_never_choose():
    (x, y), (q, t) = clusters(0, 200, 3), clusters(1, 80, 3)
    first, _ = evaluate("linear", (x, y), (q, t), points=7)
    second, _ = evaluate("linear", (x, y), (q, (t + 1) % 3), points=7)
    assert first[0].details["chosen"] == second[0].details["chosen"]
    assert first[0].details["path"] == second[0].details["path"]


def test_class_names_do_not_matter():
    (x, y), (q, t) = clusters(0, 200, 4), clusters(1, 80, 4)
    base, _ = evaluate("linear", (x, y), (q, t), C=0.1)
    names = np.array([400, -3, 77, 5])
    moved, made = evaluate("linear", (x, names[y]), (q, names[t]), C=0.1)
    assert [m.value for m in moved] == pytest.approx([m.value for m in base])
    assert set(made.outcomes[0].arrays["prediction"]) <= set(names)


def test_mean_per_class_by_hand():
    train = (np.array([[0.0], [1.0]] * 20), np.array([0, 1] * 20))
    test = (np.array([[0.0], [0.0], [0.0], [1.0], [0.0]]), np.array([0, 0, 0, 1, 1]))
    measurements, _ = evaluate("linear", train, test, C=100.0)
    assert values(measurements, "top1") == 80
    assert values(measurements, "mean_per_class") == 75
    for m in measurements:
        assert m.interval[0] <= m.value <= m.interval[1]


def test_a_class_that_only_the_test_split_has_counts_as_missed():
    (x, y), (q, t) = clusters(0, 100, 3), clusters(1, 30, 3)
    t[:3] = 9
    measurements, made = evaluate("linear", (x, y), (q, t), C=1.0)
    assert not made.outcomes[0].arrays["correct5"][:3].any()
    assert measurements[0].details["without_training_samples"]["test_samples"] == 3


def test_features_far_wider_than_the_samples_cost_no_covariance():
    """20 000 x 20 000 numbers would take 3 GB and an hour."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 20_000)).astype(np.float32)
    begun = time.monotonic()
    measurements, _ = evaluate("linear", (x, np.arange(30) % 3), (x, np.arange(30) % 3))
    assert values(measurements, "top1") == 100
    assert time.monotonic() - begun < 30


def test_a_wide_start_is_taken_over():
    """Weights outside of the new samples' span are no part of any solution."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 400)).astype(np.float32), np.arange(60) % 3
    (other,) = Penalties(x[:40], y[:40], 3).fit([0.1])
    (cold,) = Penalties(x, y, 3).fit([0.1], tol=1e-9)
    (warm,) = Penalties(x, y, 3).fit([0.1], tol=1e-9, start=other)
    np.testing.assert_allclose(warm.weight, cold.weight, atol=2e-4)


def test_separable_data_duplicates_and_more_features_than_samples():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 500)).astype(np.float32)
    y = np.arange(20) % 2
    x, y = np.concatenate([x, x]), np.concatenate([y, y])
    measurements, _ = evaluate("linear", (x, y), (x, y), C=1e5)
    assert values(measurements, "top1") == 100
    assert all(np.isfinite(m.value) for m in measurements)


def test_scale_of_features_moves_the_penalty_as_the_objective_says():
    """W x with x -> a x and C -> C / a^2 is the same problem."""
    x, y = clusters(0, 200, 3)
    (small,) = Penalties(x, y, 3).fit([0.1], tol=1e-6)
    (large,) = Penalties(x * 1000, y, 3).fit([0.1 / 1e6], tol=1e-6)
    np.testing.assert_allclose(small.logits(x), large.logits(x * 1000), atol=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_the_holdout_is_stratified_seeded_and_leaves_every_class_something(share):
    y = np.repeat([0, 1, 2, 3], [100, 40, 8, 1])
    held = holdout(y, share, seed=0)
    counts = np.bincount(y[held], minlength=4)
    assert list(counts[:2]) == [round(100 * share), round(40 * share)]
    assert counts[3] == 0
    np.testing.assert_array_equal(held, holdout(y, share, seed=0))
    assert (held != holdout(y, share, seed=1)).any()


def test_refusals():
    x, y = clusters(0, 30, 3)
    with pytest.raises(BenchError, match="single class"):
        evaluate("linear", (x, y * 0), (x, y))
    with pytest.raises(BenchError, match="single training sample"):
        evaluate("linear", (x[:3], np.array([0, 1, 2])), (x, y))


@pytest.mark.parametrize("factor", [1e25, 3e37, 1e-30, 2.0**90, 2.0**-100])
@pytest.mark.parametrize("classes", [2, 4])
def test_features_of_any_size_have_the_solution_of_their_own_problem(factor, classes):
    """x times f at C / f^2 is x at C: the weights are those over f, the answers the same."""
    (x, y), (q, _) = clusters(0, 200, classes), clusters(1, 80, classes)
    big, far = x * np.float32(factor), q * np.float32(factor)
    (want,) = Penalties(x, y, classes).fit([0.3], tol=1e-7)
    (got,) = Penalties(big, y, classes).fit([0.3 / factor**2], tol=1e-7)
    np.testing.assert_allclose(got.weight * factor, want.weight, atol=3e-4)
    np.testing.assert_allclose(got.bias, want.bias, atol=3e-4)
    np.testing.assert_allclose(got.logits(far), want.logits(q), atol=1e-3)
    assert got.loss == pytest.approx(want.loss, rel=1e-6)
    if factor in (2.0**90, 2.0**-100):
        np.testing.assert_array_equal(got.logits(far), want.logits(q))
    (again,) = Penalties(big, y, classes).fit([0.3 / factor**2], tol=1e-7, start=got)
    assert again.iterations <= 2


def test_the_probe_of_huge_features_is_the_probe():
    train, test = clusters(0, 200), clusters(1)
    want, _ = evaluate("linear", train, test, C=0.1)
    got, _ = evaluate("linear", *((x * np.float32(1e25), y) for x, y in (train, test)), C=1e-51)
    assert [m.value for m in got] == [m.value for m in want]
    path, _ = evaluate("linear", *((x * np.float32(1e25), y) for x, y in (train, test)), points=4, max_iter=50)
    assert all(np.isfinite(m.value) for m in path)


def test_splits_of_wildly_different_scales_are_refused():
    (x, y), (q, t) = clusters(0, 100), clusters(1)
    with pytest.raises(BenchError, match="give both splits features of one scale"):
        evaluate("linear", (x * 1e-30, y), (q * np.float32(1e37), t), C=1e60)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_objective_that_is_not_finite_is_no_convergence(wrong):
    def at_once(theta):
        return wrong, theta

    def later(theta):
        return (1.0, -torch.ones(3)) if not theta.any() else (wrong, torch.full((3,), wrong))

    for objective in (at_once, later):
        with pytest.raises(BenchError, match="objective is not finite"):
            lbfgs(objective, torch.zeros(3), tol=1e-6, max_iter=50)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("C", -1), ("C", 0), ("C", "many"), ("C", True), ("C", "1,2"), ("C", 10**400), ("points", 0), ("holdout", 1.5),
        ("max_iter", 0), ("max_iter", -5), ("tol", 0), ("tol", -1), ("path_tol", -1), ("low", -400), ("high", 400),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(option, value):
    x, y = clusters(0, 30, 3)
    with pytest.raises(BenchError, match=rf"option linear\.{option} (is a number|takes)"):
        evaluate("linear", (x, y), (x, y), **{option: value})


def test_a_grid_from_above_to_below_is_refused():
    x, y = clusters(0, 30, 3)
    with pytest.raises(BenchError, match="low=2 .* lies above high=1"):
        evaluate("linear", (x, y), (x, y), low=2, high=1)


def test_a_fit_that_runs_out_of_iterations_is_said():
    measurements, _ = evaluate("linear", clusters(0), clusters(1), C=1e4, max_iter=2)
    assert measurements[0].details["converged"] is False
