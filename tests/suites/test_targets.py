"""Samples with several labels: kNN votes by brute force, one-vs-rest logistic regression by scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from suitehelp import clusters, evaluate, task

from bench.errors import BenchError
from suites.average_precision import mean_average_precision
from suites.logreg_multilabel import OneVsRest
from suites.neighbours import ENGINE
from suites.targets import precisions, targets_of
from suites.transfer import Transfer


def several(seed, n=240, classes=5, width=10, unjudged=0.05):
    """Each sample is a sum of the centres of the classes that it carries."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((classes, width)) * 1.5
    y = (rng.random((n, classes)) < 0.35).astype(np.int64)
    x = (y @ centres + rng.standard_normal((n, width))).astype(np.float32)
    y = 2 * y - 1
    y[rng.random(y.shape) < unjudged] = 0
    return x, y


TRAIN, TEST = several(0), several(1, 90)


def test_knn_scores_are_the_share_of_votes():
    found, made = evaluate("knn", TRAIN, TEST, k=[1, 10, 20], temperature=[0.07, 1.0])
    assert [m.metric for m in found] == ["map", "map11"] * 6
    (x, y), (q, t) = TRAIN, TEST
    x, q = (a.astype(float) / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, q))
    for index, m in enumerate(found):
        k, temperature = m.settings["k"], m.settings["temperature"]
        want = np.empty(t.shape)
        for row, s in enumerate(q @ x.T):
            near = np.argsort(-s, kind="stable")[:k]
            votes = np.exp(s[near] / temperature)
            want[row] = votes @ (y[near] == 1) / votes.sum()
        np.testing.assert_allclose(made.outcomes[index].arrays["scores"], want, atol=1e-6)
        np.testing.assert_array_equal(made.outcomes[index].arrays["targets"], t)
        assert m.interval[0] <= m.value <= m.interval[1]
        assert len(m.details["per_class"]) == 5
        assert m.value == pytest.approx(np.mean(list(m.details["per_class"].values())))
    assert [(m.metric, m.settings) for m in found if m.headline] == [("map", {"k": 20, "temperature": 0.07})]


def test_dinov3s_knn_shares_are_of_the_votes_of_the_largest_k():
    """dinov3/eval/knn.py: softmax over the largest k, then the first k of it summed."""
    found, made = evaluate("knn", TRAIN, TEST, protocol="dinov3", k=[5, 20, 100])
    (x, y), (q, t) = TRAIN, TEST
    x, q = (a.astype(float) / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, q))
    for index, m in enumerate(found):
        want = np.empty(t.shape)
        for row, s in enumerate(q @ x.T):
            near = np.argsort(-s, kind="stable")[:100]
            share = np.exp(s[near] / 0.07) / np.exp(s[near] / 0.07).sum()
            k = m.settings["k"]
            want[row] = share[:k] @ (y[near[:k]] == 1)
        np.testing.assert_allclose(made.outcomes[index].arrays["scores"], want, atol=1e-6)
    dino, _ = evaluate("knn", TRAIN, TEST, k=[5, 20, 100])
    pairs = [(m.value, d.value) for m, d in zip(found, dino, strict=True)]
    assert pairs[0][0] != pairs[0][1]
    assert pairs[-1][0] == pytest.approx(pairs[-1][1])


def test_what_is_hard_to_see_is_left_out_or_absent_as_the_card_says():
    (x, y), (q, t) = TRAIN, TEST
    assert (y == 0).any()
    assert (t == 0).any()
    for protocol, unjudged in (("kornblith", 0), ("ericsson", -1)):
        made = task("transfer", TRAIN, TEST, protocol=protocol)
        targets = targets_of(made)
        np.testing.assert_array_equal(targets.train, np.where(y == 0, unjudged, y))
        np.testing.assert_array_equal(targets.test, np.where(t == 0, unjudged, t))
        made = task("transfer", TRAIN, TEST, protocol=protocol, C=1.0, sets="voc07cls")
        made.source = "voc07cls"
        found = {m.metric: m for m in Transfer().evaluate(made)}
        scores = np.empty(t.shape)
        for k in range(t.shape[1]):
            rows = slice(None) if unjudged else y[:, k] != 0
            fitted = LogisticRegression(C=1.0, tol=1e-10, max_iter=20_000).fit(x[rows].astype(float), y[rows, k] == 1)
            scores[:, k] = fitted.decision_function(q.astype(float))
        wanted, *_ = mean_average_precision(scores, targets.test, 11, around=False)
        assert found["map11"].value == pytest.approx(100 * wanted, abs=0.3)
        assert found["map11"].headline


@pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
def test_one_vs_rest_is_scikit_learn_class_by_class(c):
    x, y = TRAIN
    (fit,) = OneVsRest(x, y).fit([c], tol=1e-7)
    assert fit.converged
    for k in range(5):
        judged = y[:, k] != 0
        reference = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(x[judged].astype(float), y[judged, k])
        want = reference.predict_proba(x.astype(float))[:, 1]
        np.testing.assert_allclose(1 / (1 + np.exp(-fit.logits(x)[:, k].astype(float))), want, atol=2e-3)
        np.testing.assert_allclose(fit.weight[:, k], reference.coef_[0], atol=0.02)


def test_linear_chooses_by_eleven_points_on_a_hold_out_and_fits_again():
    found, made = evaluate("linear", TRAIN, TEST, points=8)
    assert [(m.metric, m.headline, m.selection) for m in found] == [
        ("map", True, "holdout"),
        ("map11", False, "holdout"),
    ]
    path = found[0].details["path"]
    best = max(p["holdout_map11"] for p in path)
    assert found[0].details["chosen"] == min(p["C"] for p in path if p["holdout_map11"] == best)
    alone, again = evaluate("linear", TRAIN, TEST, C=found[0].details["chosen"])
    assert [m.value for m in alone] == pytest.approx([m.value for m in found], abs=0.3)
    assert {m.selection for m in alone} == {"none"}
    np.testing.assert_allclose(made.outcomes[0].arrays["scores"], again.outcomes[0].arrays["scores"], atol=0.02)
    assert found[0].value > 60


def test_classes_always_never_or_nowhere_present():
    (x, y), (q, t) = several(0), several(1, 90)
    y, t = y.copy(), t.copy()
    y[:, 0], y[:, 1], t[:, 2] = 1, -1, np.minimum(t[:, 2], 0)
    for suite in ("knn", "linear"):
        found, made = evaluate(suite, (x, y), (q, t))
        assert len(set(made.outcomes[0].arrays["scores"][:, 1])) == 1, "nothing was learnt of it"
        assert found[0].details["without_test_samples"] == ["2"]
        assert found[0].details["without_training_samples"] == {"classes": ["1"]}
        assert set(found[0].details["per_class"]) == {"0", "1", "3", "4"}


def test_permuting_samples_and_classes_changes_nothing():
    (x, y), (q, t) = TRAIN, TEST
    order, classes = np.random.default_rng(3).permutation(90), [3, 0, 4, 1, 2]
    for suite, options in (("knn", {}), ("linear", {"C": 0.5})):
        base, _ = evaluate(suite, (x, y), (q, t), **options)
        moved, _ = evaluate(suite, (x, y[:, classes]), (q[order], t[order][:, classes]), **options)
        assert [m.value for m in moved] == pytest.approx([m.value for m in base], abs=0.2)


def test_refusals():
    (x, y), (q, t) = TRAIN, TEST
    for suite, options in (("fewshot", {}), ("ridge", {}), ("linear", {"protocol": "moco-cached"})):
        with pytest.raises(BenchError, match=r"several labels, and \w+/\S+ expects one: run knn or linear"):
            evaluate(suite, (x, y), (q, t), **options)
    with pytest.raises(BenchError, match="5 classes in train and 4 in test"):
        evaluate("knn", (x, y), (q, t[:, :4]))
    with pytest.raises(BenchError, match="arrays train must give every sample -1, 0 or 1"):
        evaluate("linear", (x, y + 1), (q, t))
    with pytest.raises(BenchError, match="arrays test must give every sample"):
        evaluate("knn", (x, y), (q, t[:, 0]))
    with pytest.raises(BenchError, match="no present label at all"):
        evaluate("knn", (x, y), (q, np.minimum(t, 0)))
    one, other = clusters(0), clusters(1)
    with pytest.raises(BenchError, match="arrays test gives a sample several labels"):
        evaluate("knn", one, (other[0], np.eye(4, dtype=int)[other[1]]))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)

    def draw(n=200):
        y = np.where(rng.random((n, 3)) < 0.3, 1, -1)
        return y / 2 + rng.standard_normal((n, 3)), y

    # Of that many samples: a curve that takes the best precision beyond each recall flatters small sets.
    truth = 100 * np.mean([mean_average_precision(*draw(), around=False)[0] for _ in range(300)])
    held = 0
    for _ in range(60):
        scores, y = draw()
        made = task("knn", (scores, y), (scores, y))
        (found, _) = precisions(made, targets_of(made), scores, engine=ENGINE, outcome="x")
        held += found.interval[0] <= truth <= found.interval[1]
    assert held >= 54
