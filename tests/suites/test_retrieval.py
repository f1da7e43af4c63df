"""Retrieval: cases by hand, brute force in loops, ties, and the sample itself left out."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from suitehelp import clusters, evaluate, values

from bench.errors import BenchError
from suites import retrieval
from suites.retrieval import ranked


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_by_hand():
    # One query at angle 0; the bank's angles grow, so its order is the ranking: a b a b.
    angles = np.radians([10, 20, 30, 40])
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = ranked(np.array([[1, 0]], dtype=np.float32), np.array([7]), bank, np.array([7, 8, 7, 8]))
    assert found.ap[0] == pytest.approx((1 + 2 / 3) / 2)
    assert found.ap_at_r[0] == pytest.approx(1 / 2)
    assert found.first[0] == 1
    found = ranked(np.array([[1, 0]], dtype=np.float32), np.array([8]), bank, np.array([7, 8, 7, 8]))
    assert (found.ap[0], found.first[0]) == (pytest.approx((1 / 2 + 2 / 4) / 2), 2)


@pytest.mark.parametrize("own", [False, True])
def test_brute_force(own, monkeypatch):
    x, y = clusters(0, 40, 4, 6)
    x, bank, labels = unit(x), unit(clusters(1, 30, 4, 6)[0]), clusters(1, 30, 4, 6)[1]
    if own:
        bank, labels = x, y
    monkeypatch.setattr(retrieval, "ROOM", 100)  # Many blocks.
    found = ranked(x, y, bank, labels, own=own)
    for place, query in enumerate(found.query):
        others = [j for j in range(len(bank)) if not (own and j == query)]
        scores = np.array([float(np.dot(x[query].astype(float), bank[j].astype(float))) for j in others])
        hit = np.array([labels[j] == y[query] for j in others])
        assert found.ap[place] == pytest.approx(average_precision_score(hit, scores))
        order = sorted(range(len(others)), key=lambda j: -scores[j])
        assert found.first[place] == next(rank for rank, j in enumerate(order, 1) if hit[j])
        r = int(hit.sum())
        at_r = sum(np.mean([hit[j] for j in order[: rank + 1]]) for rank in range(r) if hit[order[rank]]) / r
        assert found.ap_at_r[place] == pytest.approx(at_r)


def test_duplicates_rank_by_row_and_nobody_finds_itself():
    x = unit(np.ones((4, 3)))
    found = ranked(x, np.array([0, 1, 0, 2]), x, np.array([0, 1, 0, 2]), own=True)
    assert found.query.tolist() == [0, 2]  # Classes 1 and 2 have nobody else.
    # Query 0 sees rows 1, 2, 3; query 2 sees rows 0, 1, 3.
    assert found.first.tolist() == [2, 1]
    assert found.ap.tolist() == [0.5, 1.0]


def test_the_suite():
    train, test = clusters(0, 120, 4), clusters(1, 60, 4)
    found, made = evaluate("retrieval", train, test)
    assert [m.metric for m in found] == ["map", "map_at_r", "recall", "recall", "recall", "recall"]
    assert [m.headline for m in found] == [True] + [False] * 5
    recall = [values(found, "recall", k=k) for k in (1, 2, 4, 8)]
    assert recall == sorted(recall)
    assert all(m.interval[0] <= m.value <= m.interval[1] for m in found)
    assert found[0].details["bank"] == 59
    table = made.outcomes[0].arrays
    assert found[0].value == pytest.approx(100 * table["ap"].mean())
    other, _ = evaluate("retrieval", train, test, protocol="train")
    assert other[0].details["bank"] == 120
    # The nearest of the bank is kNN's answer at k = 1.
    near, _ = evaluate("knn", train, test, k=1, headline_k=1)
    assert values(other, "recall", k=1) == values(near, "top1", k=1)


def test_a_set_without_pairs_is_refused():
    x, _ = clusters(0, 6)
    with pytest.raises(BenchError, match="nothing can be found"):
        evaluate("retrieval", (x, np.arange(6)), (x, np.arange(6)))


def test_halves_are_the_metric_of_each_half(monkeypatch):
    x, y = clusters(0, 41, 4, 6)
    x = unit(x)
    monkeypatch.setattr(retrieval, "ROOM", 200)
    halves = retrieval.Halves(41, (1, 3), seed=5)
    ranked(x, y, x, y, own=True, halves=halves)
    rng = np.random.default_rng(5)
    for split in range(2):
        side = rng.permutation(41) % 2 == 0
        for number, keep in ((1, side), (0, ~side)):
            half = ranked(x[keep], y[keep], x[keep], y[keep], own=True)
            expected = [half.ap.sum(), half.ap_at_r.sum(), (half.first <= 1).sum(), (half.first <= 3).sum()]
            assert halves._sums[split, number] == pytest.approx(expected)
            assert halves._queries[split, number] == len(half.query)


def test_a_small_set_says_why_it_has_no_interval():
    x, _ = clusters(0, 4)
    found, _ = evaluate("retrieval", (x, np.array([0, 0, 1, 2])), (x, np.array([0, 0, 1, 2])))
    assert (found[0].n, found[0].interval) == (2, None)
    assert "no pair" in found[0].interval_note


@pytest.mark.slow  # Hundreds of sets of samples, each halved again and again.
@pytest.mark.parametrize(("n", "classes", "distance"), [(100, 5, 0.7), (250, 20, 1.0), (500, 10, 0.8)])
def test_intervals_cover(n, classes, distance):
    """Of the value expected of other samples of that number, at least 93 % of the time."""
    rng = np.random.default_rng(n)
    centres = np.random.default_rng(5).standard_normal((classes, 16)) * distance
    values, ends = [], []
    for number in range(300):
        y = rng.integers(0, classes, n)
        x = unit(centres[y] + rng.standard_normal((n, 16)))
        halves = retrieval.Halves(n, (1,), number) if number < 100 else None
        found = ranked(x, y, x, y, own=True, halves=halves)
        means = [found.ap.mean(), found.ap_at_r.mean(), (found.first <= 1).mean()]
        values.append(means)
        if halves is not None:
            ends.append([halves.interval(float(v), place, len(found.query))[0] for place, v in enumerate(means)])
    truth, (low, high) = np.mean(values, axis=0), np.moveaxis(np.array(ends), 2, 0)
    assert (((low <= truth) & (truth <= high)).mean(axis=0) >= 0.93 - 1.65 * np.sqrt(0.05 * 0.95 / 100)).all()
