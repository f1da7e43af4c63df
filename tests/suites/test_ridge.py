"""ridge: scikit-learn's solution at every penalty, the path's rules, and the refusals."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from suitehelp import clusters, evaluate, out_of_core, task, values

from bench.errors import BenchError
from suites.ridge import Moments, Path
from suites.ridge import Ridge as RidgeSuite


@pytest.mark.parametrize("shape", ["plain", "shifted", "more features than samples", "constant column"])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 100.0])
def test_weights_are_scikit_learns(shape, penalty):
    x, y = clusters(0, 60, 4, 10)
    if shape == "shifted":
        x = x * 3 + 50
    elif shape == "more features than samples":
        x = np.concatenate([x, np.random.default_rng(1).standard_normal((60, 100))], axis=1).astype(np.float32)
    elif shape == "constant column":
        x[:, 3] = 7
    path = Path(x, y, 4)
    reference = Ridge(alpha=penalty * path.unit, solver="cholesky").fit(x.astype(np.float64), np.eye(4)[y])
    weight, bias = path.weight(penalty)
    np.testing.assert_allclose(weight, reference.coef_.T, atol=1e-8)
    np.testing.assert_allclose(bias, reference.intercept_, atol=1e-6)
    (predicted,) = path.sweep(x, [penalty])
    np.testing.assert_allclose(predicted, reference.predict(x.astype(np.float64)), atol=1e-6)


def test_one_feature_by_hand():
    # Centred x = -1, 1; centred target of class 1 = -1/2, 1/2; X'X = 2, X'Y = 1, so w = 1 / (2 + 2) at penalty 1.
    weight, bias = Path(np.array([[0.0], [2.0]], dtype=np.float32), np.array([0, 1]), 2).weight(1.0)
    np.testing.assert_allclose(weight, [[-0.25, 0.25]])
    np.testing.assert_allclose(bias, [0.75, 0.25])


def test_the_best_of_the_path_is_refitted():
    measurements, _ = evaluate("ridge", clusters(0, 300, 8), clusters(1, 100, 8))
    headline = next(m for m in measurements if m.headline)
    path = headline.details["path"]
    assert len(path) == 41
    best = max(point["holdout_top1"] for point in path)
    assert headline.details["chosen"] == max(p["penalty"] for p in path if p["holdout_top1"] == best)
    assert {m.selection for m in measurements} == {"holdout"}
    x, y = clusters(0, 300, 8)
    q, t = clusters(1, 100, 8)
    reference = Ridge(alpha=headline.details["alpha"]).fit(x, np.eye(8)[y])
    assert headline.value == pytest.approx(100 * (reference.predict(q).argmax(1) == t).mean())
    alone, _ = evaluate("ridge", (x, y), (q, t), penalty=headline.details["chosen"])
    assert values(alone, "top1") == headline.value
    assert alone[0].selection == "none"


@pytest.mark.parametrize("change", ["scale and shift", "class names", "test order"])
def test_what_must_not_matter(change):
    (x, y), (q, t) = clusters(0, 200, 6), clusters(1, 80, 6)
    base, _ = evaluate("ridge", (x, y), (q, t))
    if change == "scale and shift":
        x, q = x * 64 + 32, q * 64 + 32
    elif change == "class names":
        names = np.array([-7, 2, 30, 31, 400, 999])
        y, t = names[y], names[t]
    else:
        q, t = q[::-1], t[::-1]
    changed, _ = evaluate("ridge", (x, y), (q, t))
    assert [m.value for m in changed] == pytest.approx([m.value for m in base])


def test_classes_without_training_samples_are_errors_that_are_named():
    (x, y), (q, t) = clusters(0, 100, 4), clusters(1, 50, 4)
    measurements, _ = evaluate("ridge", (x[y < 3], y[y < 3]), (q, t), penalty=1.0)
    assert measurements[0].details["without_training_samples"]["test_samples"] == int((t == 3).sum())
    assert measurements[0].value <= 100 * (t < 3).mean()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"penalty": "-1"}, "above 0"),
        ({"penalty": "many"}, "above 0"),
        ({"holdout": 1.0}, "above 0 and below 1"),
        ({"points": 0}, "at least 1"),
        ({"low": -400}, r"ridge\.low is a number of at least -100"),
        ({"low": 3, "high": 2}, "ridge.low=3 .* lies above ridge.high=2"),
    ],
)
def test_refused_settings(options, said):
    with pytest.raises(BenchError, match=said):
        evaluate("ridge", clusters(0, 40), clusters(1, 10), **options)


def test_refused_data():
    x, y = clusters(0, 40)
    with pytest.raises(BenchError, match="same for every sample"):
        evaluate("ridge", (np.ones_like(x), y), (x, y))
    with pytest.raises(BenchError, match=r"set ridge\.penalty"):
        evaluate("ridge", (x[:3], np.arange(3)), (x, y))


@pytest.mark.parametrize("penalty", [None, 1.0])
def test_a_training_set_that_is_read_in_blocks_alone(penalty, monkeypatch):
    train, test = clusters(0, 300, 8), clusters(1, 100, 8)
    want, _ = evaluate("ridge", train, test, penalty=penalty)
    monkeypatch.setattr("suites.ridge.ROWS", 37)
    got = list(RidgeSuite().evaluate(out_of_core(task("ridge", train, test, penalty=penalty))))
    assert [(m.metric, m.value) for m in got] == [(m.metric, m.value) for m in want]
    for mine, theirs in zip(got[0].details["path"], want[0].details["path"], strict=True):
        assert mine == theirs
    assert got[0].details["alpha"] == pytest.approx(want[0].details["alpha"], rel=1e-12)


def test_blocks_far_from_zero_lose_nothing():
    """Moments about the mean of all: the parts' own means may be elsewhere."""
    x, y = clusters(0, 200, 4, 6)
    x[:100] += 1000
    kept = np.arange(200) % 3 > 0
    parts = [Moments.none(x.mean(axis=0, dtype=np.float64), 4) for _ in range(2)]
    for part, rows in zip(parts, (kept, ~kept), strict=True):
        part.add(x[rows], y[rows])
    for path, rows in ((Path.of(parts[0]), kept), (Path.of(parts[0] + parts[1]), kept | True)):
        reference = Ridge(alpha=3.0 * path.unit, solver="svd").fit(x[rows].astype(np.float64), np.eye(4)[y[rows]])
        weight, bias = path.weight(3.0)
        np.testing.assert_allclose(weight, reference.coef_.T, atol=1e-10)
        np.testing.assert_allclose(bias, reference.intercept_, atol=1e-8)


@pytest.mark.parametrize(("n", "value"), [(50, 0.1), (3, 0.1), (5000, 123.456)])
def test_features_that_do_not_vary_are_refused(n, value):
    x, y = np.full((n, 8), value, dtype=np.float32), np.arange(n) % 2
    with pytest.raises(BenchError, match="same for every sample"):
        evaluate("ridge", (x, y), (x, y))
    x[1, 3] = np.nextafter(x[1, 3], np.float32(1e9))
    evaluate("ridge", (x, y), (x, y), penalty=1.0)
