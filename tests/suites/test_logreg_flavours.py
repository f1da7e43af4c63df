"""The published logistic regressions: grids, penalties, intercepts, hold-outs, searches; means over seeds."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from suitehelp import clusters, evaluate, task, values

from bench.errors import BenchError
from bench.protocol import cards, get
from suites.linear import Linear
from suites.logreg_path import Path
from suites.logreg_probe import grid_of, prepared
from suites.validation import holdout

TRAIN, TEST = clusters(0, 240, 5, spread=0.7), clusters(1, 120, 5, spread=0.7)
FLAVOURS = ["kornblith", "ericsson", "clip", "dinov2-logreg", "dinov3-logreg", "msn-lowshot", "ibot-logreg-holdout"]

NORMS = {"msn-lowshot": "centred-l2", "ibot-logreg-holdout": "l2"}


@pytest.mark.parametrize("name", FLAVOURS)
def test_every_flavour_runs_by_its_name(name):
    found, made = evaluate("linear", TRAIN, TEST, protocol=name, max_iter=50)
    version = 2 if name in ("ericsson", "dinov3-logreg") else 1
    assert made.protocol.id == f"linear/{name}@{version}+max_iter=50"
    assert values(found, "top1") > 50
    assert {m.selection for m in found} == {"none" if name == "msn-lowshot" else "holdout"}
    assert {m.feature["norm"] for m in found} == {NORMS.get(name, "none")}


@pytest.mark.parametrize(
    ("name", "ends", "points"),
    [("kornblith", (1e-5, 1e6), 45), ("clip", (1e-6, 1e6), 97), ("dinov2-logreg", (1e-6, 1e5), 45),
     ("ibot-logreg-holdout", (1, 100), 3), ("msn-lowshot", (400, 400), 1)],
)  # fmt: skip
def test_grids(name, ends, points):
    grid = grid_of(get("linear", name).settings)
    assert (grid[0], grid[-1]) == pytest.approx(ends)
    assert len(grid) == points


@pytest.mark.parametrize("c", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_without_intercept_it_is_scikit_learns(c, classes):
    x, y = clusters(0, 200, classes, 8)
    x = x + 2
    reference = LogisticRegression(C=c, fit_intercept=False, tol=1e-10, max_iter=20_000).fit(x.astype(float), y)
    (fit,) = Path(x, y, classes, intercept=False).fit([c], tol=1e-7)
    assert fit.converged
    assert not fit.bias.any()
    logits = fit.logits(x).astype(np.float64)
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(1, keepdims=True), reference.predict_proba(x.astype(float)), atol=2e-3)


def test_msn_is_the_formula():
    """lambda = 0.0025 / N in mean-loss form, features centred and scaled sample by sample, no intercept."""
    found, made = evaluate("linear", TRAIN, TEST, protocol="msn-lowshot")

    def ready(x):
        x = x.astype(np.float64)
        x = x - x.mean(axis=1, keepdims=True)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    np.testing.assert_allclose(prepared(TRAIN[0], "centred-l2"), ready(TRAIN[0]), atol=1e-6)
    n, penalty = len(TRAIN[0]), 0.0025 / len(TRAIN[0])
    reference = LogisticRegression(C=1 / (penalty * n), fit_intercept=False, tol=1e-9, max_iter=20_000)
    reference.fit(ready(TRAIN[0]), TRAIN[1])
    predicted = reference.predict(ready(TEST[0]))
    assert (made.outcomes[0].arrays["prediction"] != predicted).mean() < 0.02
    assert values(found, "top1") == pytest.approx(100 * (predicted == TEST[1]).mean(), abs=1.7)


def test_halving_ends_at_a_peak_of_the_grid_with_few_fits():
    found, _ = evaluate("linear", TRAIN, TEST, protocol="clip", tol=1e-4)
    whole, _ = evaluate("linear", TRAIN, TEST, protocol="clip", tol=1e-4, search="path")
    path, full = found[0].details["path"], whole[0].details["path"]
    assert len(full) == 97
    assert 7 < len(path) <= 15
    assert [p["C"] for p in path] == sorted(p["C"] for p in path)
    assert {p["C"] for p in path} <= {p["C"] for p in full}
    seeds = [full[i]["C"] for i in range(0, 97, 16)]
    assert set(seeds) <= {p["C"] for p in path}
    at = [p["C"] for p in full].index(found[0].details["chosen"])
    tried = {p["C"]: p["holdout_top1"] for p in path}
    assert all(full[i]["C"] in tried for i in (at - 1, at + 1) if 0 <= i < 97), "it ends with the closest neighbours"
    assert tried[found[0].details["chosen"]] == max(tried.values())


def test_a_random_hold_out_takes_its_share_whatever_the_classes():
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 10))
    random, even = holdout(y, 0.2, 0, stratified=False), holdout(y, 0.2, 0)
    assert abs(int(random.sum()) - 80) <= 2
    assert set(np.bincount(y[even], minlength=40)) == {2}
    assert len(set(np.bincount(y[random], minlength=40))) > 2
    lonely = np.array([0] * 50 + [1])
    assert not any(holdout(lonely, 0.5, seed, stratified=False)[50] for seed in range(8))


def test_dinov3s_hold_out_rounds_down_and_takes_one_of_every_class():
    counts = [1, 2, 3, 9, 10, 19, 20, 27]
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(8), counts))
    held = holdout(y, 0.1, 5, every=True)
    # dinov3/eval/data.py: max(1, int(0.1 n)) of a class of more than one.
    assert np.bincount(y[held], minlength=8).tolist() == [max(1, int(0.1 * n)) if n > 1 else 0 for n in counts]
    assert np.bincount(y[holdout(y, 0.1, 5)], minlength=8).tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    found, made = evaluate("linear", (TRAIN[0][:30], np.arange(30) % 6), TEST, protocol="dinov3-logreg", points=2)
    assert made.settings["split"] == "every-class"
    # Five of each of six classes: one of each is held out, so every accuracy is a sixth.
    for point in found[0].details["path"]:
        assert point["holdout_top1"] * 6 / 100 == pytest.approx(round(point["holdout_top1"] * 6 / 100))


def test_of_equal_penalties_each_source_takes_the_one_that_it_meets_first():
    """ssl-transfer goes through ascending decays and wants better, DINOv2 through ascending C."""
    rng = np.random.default_rng(0)
    # Two clusters far apart: every penalty but the strongest tells them apart.
    y = np.arange(60) % 2
    x = (10.0 * y[:, None] + 0.01 * rng.standard_normal((60, 3))).astype(np.float32)
    chosen = {}
    for name in ("ericsson", "dinov2-logreg"):
        found, _ = evaluate("linear", (x, y), (x, y), protocol=name, points=9)
        path = found[0].details["path"]
        best = [p["C"] for p in path if p["holdout_top1"] == max(q["holdout_top1"] for q in path)]
        assert len(best) > 3
        chosen[name] = found[0].details["chosen"] == best[-1], found[0].details["chosen"] == best[0]
    assert chosen == {"ericsson": (True, False), "dinov2-logreg": (False, True)}
    many = np.stack([2 * y - 1, 1 - 2 * y], axis=1)
    found, _ = evaluate("linear", (x, many), (x, many), protocol="ericsson", points=9)
    assert found[0].details["chosen"] == pytest.approx(1e6)


def test_a_published_validation_part_is_what_is_chosen_on():
    made = task("linear", TRAIN, TEST, protocol="ericsson", points=5)
    made.data["train"].validation = np.arange(len(TRAIN[0])) % 4 == 0
    found = list(Linear().evaluate(made))
    assert found[0].details["chosen_on"] == "published validation part"
    kept = np.arange(len(TRAIN[0])) % 4 > 0
    (x, y), path = TRAIN, found[0].details["path"]
    for point in path:
        reference = LogisticRegression(C=point["C"], tol=1e-8, max_iter=10_000).fit(x[kept], y[kept])
        assert point["holdout_top1"] == pytest.approx(100 * reference.score(x[~kept], y[~kept]), abs=1.7)
    without, _ = evaluate("linear", TRAIN, TEST, protocol="ericsson", points=5)
    assert "chosen_on" not in without[0].details


def test_seeds_are_the_runs_one_by_one():
    options = {"points": 6, "tol": 1e-3}
    runs = [evaluate("linear", TRAIN, TEST, seed=3 + s, **options)[0] for s in range(4)]
    found, made = evaluate("linear", TRAIN, TEST, seed=3, seeds=4, **options)
    assert made.protocol.id.endswith("+seeds=4+tol=0.001")
    assert not made.outcomes
    for i, m in enumerate(found):
        alone = [run[i].value for run in runs]
        assert m.details["runs"] == alone
        assert m.value == pytest.approx(np.mean(alone))
        assert m.sd == pytest.approx(np.std(alone, ddof=1))
        assert m.seeds == [3, 4, 5, 6]
        assert m.interval_method == f"seeds (t) and test samples ({runs[0][i].interval_method}), mover"
        # Not narrower than the runs' own: the same test samples serve all of them.
        assert m.interval[1] - m.interval[0] >= 0.99 * min(np.ptp(run[i].interval) for run in runs)
        assert m.interval[0] <= m.value <= m.interval[1]
    assert sum(m.headline for m in found) == 1
    with pytest.raises(BenchError, match=r"with C fixed every run is the same"):
        evaluate("linear", TRAIN, TEST, C=1, seeds=2)


def test_seeds_of_an_sgd_recipe_differ_in_their_draws():
    found, _ = evaluate("linear", TRAIN, TEST, protocol="moco-cached", iterations=15, batch=32, seeds=3)
    assert len(set(found[0].details["runs"])) > 1
    assert found[0].sd > 0


def test_every_logistic_card_says_where_it_is_from():
    for card in cards().values():
        if card.suite == "linear":
            assert card.source
            assert card.verified or card.unverified
            assert card.settings["seeds"] == 1
