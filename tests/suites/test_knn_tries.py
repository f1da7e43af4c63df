"""knn/dinov2-fewshot: each try is plain kNN on its own draw; k up to n and n itself."""

import numpy as np
import pytest
from suitehelp import clusters, evaluate, values

from suites.fewshot import drawn

TRAIN, TEST = clusters(0, 300, 6), clusters(1, 90, 6)


def test_the_mean_of_plain_searches_over_each_draw():
    found, made = evaluate("knn", TRAIN, TEST, protocol="dinov2-fewshot", seed=5, n_per_class=[4, 12], k=[10, 20])
    x, y = TRAIN
    for n, asked in ((4, {4}), (12, {10, 12})):
        mine = [m for m in found if m.settings["n_per_class"] == n]
        assert {m.settings["k"] for m in mine} == asked
        for k in asked:
            runs = []
            for seed in (5, 6, 7):
                rows = drawn(y, np.full(6, n), seed)
                assert set(np.bincount(y[rows])) == {n}
                alone, _ = evaluate("knn", (x[rows], y[rows]), TEST, k=k)
                runs.append(values(alone, "top1"))
            (top1,) = [m for m in mine if m.metric == "top1" and m.settings["k"] == k]
            assert top1.details["runs"] == pytest.approx(runs)
            assert top1.value == pytest.approx(np.mean(runs))
            assert top1.sd == pytest.approx(np.std(runs, ddof=1))
            assert top1.seeds == [5, 6, 7]
    (headline,) = [m for m in found if m.headline]
    assert (headline.metric, headline.settings["n_per_class"], headline.settings["k"]) == ("top1", 12, 12)
    assert not made.outcomes


def test_one_try_has_the_interval_of_its_samples():
    found, _ = evaluate("knn", TRAIN, TEST, protocol="dinov2-fewshot", n_per_class=25, tries=1)
    assert {m.interval_method for m in found} == {"wilson"}
    assert [m.settings["k"] for m in found if m.headline] == [20]
    assert {m.settings["k"] for m in found} == {10, 20, 25}


def test_there_is_one_headline_whatever_is_asked_for():
    for options in ({"k": 5}, {"k": "5,50", "headline_k": 50}, {"temperature": 1}, {"n_per_class": "25,3"}):
        found, _ = evaluate("knn", TRAIN, TEST, protocol="dinov2-fewshot", tries=2, **{"n_per_class": 25, **options})
        assert sum(m.headline for m in found) == 1, options


def test_classes_with_fewer_samples_are_counted():
    x, y = TRAIN
    keep = (y != 2) | (np.cumsum(y == 2) <= 3)
    found, _ = evaluate("knn", (x[keep], y[keep]), TEST, protocol="dinov2-fewshot", n_per_class=[2, 5])
    short = {m.settings["n_per_class"]: m.details.get("classes_with_fewer_samples") for m in found}
    assert short == {2: None, 5: 1}


def test_dinov3s_sizes_are_shares_too_and_k_reaches_over_classes():
    """dinov3/eval/knn.py: ks = {min(k, samples)}; data.py: max(int(share n), 1) of every class."""
    x, y = TRAIN
    found, _ = evaluate(
        "knn", TRAIN, TEST, protocol="dinov3-fewshot", seed=2, n_per_class=[2], percent=[1, 30], k=[5, 20, 200]
    )
    counts = np.bincount(y)
    quotas = {"n": np.full(6, 2), 1.0: np.ones(6, dtype=int), 30.0: np.array([max(int(0.3 * n), 1) for n in counts])}
    ks = {key: {min(k, int(quota.sum())) for k in (5, 20, 200)} for key, quota in quotas.items()}
    assert ks["n"] == {5, 12}
    assert ks[1.0] == {5, 6}
    for key, quota in quotas.items():
        mine = [m for m in found if (m.settings.get("percent") or "n") == key and m.metric == "top1"]
        assert {m.settings["k"] for m in mine} == ks[key]
        for m in mine:
            runs = []
            for seed in (2, 3, 4):
                rows = drawn(y, quota, seed)
                assert (np.bincount(y[rows]) == quota).all()
                alone, _ = evaluate("knn", (x[rows], y[rows]), TEST, k=m.settings["k"])
                runs.append(values(alone, "top1"))
            assert m.details["runs"] == pytest.approx(runs)
            assert m.sd == pytest.approx(np.std(runs, ddof=1))
    (headline,) = [m for m in found if m.headline]
    assert headline.settings == {"percent": 30.0, "k": 20, "temperature": 0.07}
