"""Out of distribution: AUROC and FPR95 against scikit-learn and by hand, every score by a second computation."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.covariance import EmpiricalCovariance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors
from suitehelp import clusters, evaluate

import bench
from bench.data.opening import open_data
from bench.errors import BenchError
from bench.request import Request
from bench.stats import wilson
from suites.ood_scores import Gaussians, auroc, auroc_interval, fpr95, fpr95_draws, threshold


def sides(seed=0, m=83, n=57, ties=True):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(1, 1, m), rng.normal(0, 1, n)
    return (np.round(inside, 1), np.round(outside, 1)) if ties else (inside, outside)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
def test_auroc_and_fpr95_are_scikit_learns(seed, ties):
    inside, outside = sides(seed, 60 + 7 * seed, ties=ties)
    y, score = np.r_[np.ones(len(inside)), np.zeros(len(outside))], np.r_[inside, outside]
    assert auroc(inside, outside)[0] == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    false, true, _ = roc_curve(y, score, drop_intermediate=False)
    assert fpr95(inside, outside) == pytest.approx(false[np.argmax(true >= 0.95 - 1e-12)])


def test_by_hand():
    # Pairs: 3 beats both, 2 beats 1 and ties with 2, 1 ties with 1 and loses: 2 + 1.5 + 0.5 of six.
    assert auroc(np.array([3.0, 2, 1]), np.array([1.0, 2]))[0] == pytest.approx(4 / 6)
    assert auroc(np.ones(4), np.ones(3)) == (0.5, 0.0)
    assert auroc_interval(1.0, 0.0, 1.96) is None
    # 95 % of twenty are nineteen: all but the lowest.
    assert threshold(np.arange(20.0)) == 1
    assert threshold(np.arange(21.0)) == 1
    assert fpr95(np.arange(20.0), np.array([0.5, 1, 2, -1])) == 0.5


def test_the_variance_of_the_area_is_that_of_resampling():
    inside, outside = sides(3, 400, 300, ties=False)
    area, variance = auroc(inside, outside)
    rng = np.random.default_rng(0)
    drawn = [auroc(rng.choice(inside, 400), rng.choice(outside, 300))[0] for _ in range(600)]
    assert np.sqrt(variance) == pytest.approx(np.std(drawn), rel=0.1)
    low, high = auroc_interval(area, variance, norm.ppf(0.975))
    assert low < area < high
    assert np.mean((np.array(drawn) > low) & (np.array(drawn) < high)) == pytest.approx(0.95, abs=0.03)


def test_fpr95_draws_are_those_of_resampling_both_sides():
    inside, outside = sides(5, 120, 90, ties=False)
    rng = np.random.default_rng(1)
    plain = [fpr95(rng.choice(inside, 120), rng.choice(outside, 90)) for _ in range(2000)]
    ours = list(fpr95_draws(inside, outside, 2000, seed=2))
    assert np.mean(ours) == pytest.approx(np.mean(plain), abs=0.02)
    assert np.std(ours) == pytest.approx(np.std(plain), rel=0.1)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_mahalanobis_is_scikit_learns(offset):
    x, y = clusters(1, 200, classes=3, width=6)
    x = x.astype(np.float64) + offset
    # A direction without variance, which the pseudo-inverse leaves out.
    x = np.c_[x, np.full(200, 2.0)]
    means = np.array([x[y == c].mean(axis=0) for c in range(3)])
    other = EmpiricalCovariance(assume_centered=True).fit(x - means[y])
    seen = np.c_[clusters(2, 40, width=6)[0] + offset, np.full(40, 2.0)]
    expected = -np.min([other.mahalanobis(seen - mean) for mean in means], axis=0)
    ours = Gaussians(lambda: [(0, x[:90]), (90, x[90:])], y, 3, 7)
    assert ours.rank == 6
    np.testing.assert_allclose(ours.score(seen), expected, rtol=1e-5)


def data(seed=0):
    (x, y), (seen, truth) = clusters(1, 160), clusters(2, 80)
    outside = np.random.default_rng(7).standard_normal((50, 12)).astype(np.float32) * 2
    return (x, y), (np.r_[seen, outside], np.r_[truth, np.full(50, 9)])


def test_every_score_by_a_second_computation():
    (x, y), (seen, truth) = data()
    found, made = evaluate("ood", (x, y), (seen, truth), k=7, C=0.5, replicates=200)
    values = {(m.metric, m.settings["score"]): m.value for m in found}
    unit, others = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x.astype(float), seen.astype(float)))
    probe = LogisticRegression(C=0.5, tol=1e-9, max_iter=5000).fit(x, y)
    logits = probe.decision_function(seen)
    second = {
        "knn": -NearestNeighbors(n_neighbors=7).fit(unit).kneighbors(others)[0][:, -1],
        "energy": logsumexp(logits, axis=1),
        "msp": probe.predict_proba(seen).max(axis=1),
    }
    for name, score in second.items():
        assert values["auroc", name] == pytest.approx(100 * roc_auc_score(truth != 9, score), abs=0.05), name
        assert values["fpr95", name] == pytest.approx(100 * fpr95(score[truth != 9], score[truth == 9]), abs=2.1), name
    (head,) = [m for m in found if m.headline]
    assert (head.metric, head.settings) == ("auroc", {"score": "knn", "k": 7})
    assert head.details == {"inside": 80, "outside": 50}
    assert {m.higher_is_better for m in found if m.metric == "fpr95"} == {False}
    assert made.outcomes[0].arrays["out"].sum() == 50
    assert all(m.interval is not None and m.interval[0] <= m.value <= m.interval[1] for m in found)


@pytest.mark.parametrize("side", [1, -1])
def test_an_interval_has_width_where_all_or_none_of_the_outside_passes(side):
    x, y = clusters(1, 160)
    seen, truth = clusters(2, 80)
    # Far along no class (none passes), or at a training sample (all do).
    outside = np.full((50, 12), -40.0, np.float32) if side < 0 else np.repeat(x[:1], 50, axis=0)
    found, _ = evaluate("ood", (x, y), (np.r_[seen, outside], np.r_[truth, np.full(50, 9)]), scores=["knn"], k=1,
                        replicates=100)  # fmt: skip
    (m,) = [m for m in found if m.metric == "fpr95"]
    assert m.value == (100 if side > 0 else 0)
    low, high = (100 * bound for bound in wilson(50 if side > 0 else 0, 50))
    assert m.interval == pytest.approx((low, high))


def test_order_of_the_samples_does_not_matter():
    (x, y), (seen, truth) = data()
    first, _ = evaluate("ood", (x, y), (seen, truth), scores=["knn", "mahalanobis"], k=5, replicates=100)
    order = np.random.default_rng(0).permutation(len(seen))
    second, _ = evaluate("ood", (x, y), (seen[order], truth[order]), scores=["knn", "mahalanobis"], k=5, replicates=100)
    assert [m.value for m in first] == pytest.approx([m.value for m in second])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: (d[0], (d[1][0], np.zeros(130, int))), "has 0 samples outside the classes"),
        (lambda d: (d[0], (d[1][0], np.full(130, 9))), "has 0 samples inside"),
        (lambda d: ((d[0][0], np.arange(160)), (d[1][0], np.r_[np.arange(80), np.full(50, 999)])), "single training"),
        (lambda d: ((np.eye(4)[d[0][1]], d[0][1]), d[1]), "do not vary within any class"),
    ],
)
def test_refusals(change, says):
    with pytest.raises(BenchError, match=says):
        evaluate("ood", *change(data()), scores=["mahalanobis"])


def test_more_neighbours_than_samples_and_no_classifier():
    with pytest.raises(BenchError, match=r"ood.k=161 is more than the 160"):
        evaluate("ood", *data(), k=161)
    with pytest.raises(BenchError, match="has no classifier of its own"):
        evaluate("ood", *data(), logits="own")


@pytest.fixture
def folders(tmp_path):
    from datahelp import write_imagefolder

    write_imagefolder(tmp_path / "a")
    write_imagefolder(tmp_path / "b", classes=("x", "y"))
    extra = tmp_path / "b" / "test" / "x" / "more.png"
    extra.write_bytes((tmp_path / "b" / "train" / "x" / "train00.png").read_bytes())
    return tmp_path


def test_two_data_sets_are_joined(folders, monkeypatch):
    spec = f"ood:imagefolder:{folders}/a,imagefolder:{folders}/b"
    train, test = open_data(spec)
    assert (train.name, test.name, len(test)) == ("a", "a-vs-b", 13)
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2] + [3] * 7
    assert test.classes[-1] == "out of distribution"
    assert test.ids[0].startswith("in/")
    assert test.ids[-1].startswith("out/")
    other = open_data(f"imagefolder:{folders}/b").test
    assert np.array_equal(np.asarray(test.image(12)), np.asarray(other.image(6)))
    assert test.fingerprint != open_data(f"ood:imagefolder:{folders}/b,imagefolder:{folders}/a").test.fingerprint
    request = Request(model="demo:x", suites=["ood"], data=f"ood:imagefolder:a,imagefolder:{folders}/b,x")
    monkeypatch.chdir(folders)
    assert request.anywhere().data == f"ood:imagefolder:{folders}/a,imagefolder:{folders}/b,x"
    record = bench.run("demo:mobilenetv2@32", ["ood"], spec, settings={"ood.k": 3, "ood.C": 1}, workers=0)
    assert {m.dataset for m in record.measurements} == {"a-vs-b"}
    assert len(record.measurements) == 8


def test_joins_that_cannot_be(folders):
    a = f"imagefolder:{folders}/a"
    for spec in ("ood:", f"ood:{a}", f"ood:{a},", f"ood:{a},{a},{a}"):
        with pytest.raises(BenchError, match="takes two data sets"):
            open_data(spec)
    with pytest.raises(BenchError, match="joins joined sets"):
        open_data(f"ood:ood:x,{a}")
    with pytest.raises(BenchError, match="against themselves"):
        open_data(f"ood:{a},{a}")
    with pytest.raises(BenchError, match="unknown data 'nope'"):
        open_data(f"ood:{a},nope")
