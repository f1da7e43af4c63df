"""knn/dino: DINO's own numbers, brute force, and the cases that other implementations get wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from suitehelp import clusters, evaluate, out_of_core, task, values

from bench.errors import BenchError
from suites.knn import KNN
from suites.vote import vote

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "features" / "clusters50"


def golden(split):
    with np.load(GOLDEN / f"{split}.npz") as stored:
        return stored["x"], stored["y"]


def brute(train, test, k, temperature=0.07):
    """DINO's rule in float64, one query at a time: ties to the highest single similarity, then the lowest class."""
    (x, y), (q, _) = train, test
    x = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    q = q.astype(np.float64) / np.linalg.norm(q, axis=1, keepdims=True)
    predictions = []
    for row in q:
        s = x @ row
        near = np.lexsort((np.arange(len(s)), -s))[:k]
        score, best = {}, {}
        for i in near:
            score[y[i]] = score.get(y[i], 0.0) + np.exp(s[i] / temperature)
            best[y[i]] = max(best.get(y[i], -2.0), s[i])
        predictions.append(min(score, key=lambda c: (-score[c], -best[c], c)))
    return np.array(predictions)


def test_dinos_own_function_on_the_golden_features():
    expected = json.loads((GOLDEN / "expected.json").read_text())["knn_dino"]
    measurements, _ = evaluate("knn", golden("train"), golden("test"))
    for k, want in expected.items():
        assert values(measurements, "top1", k=int(k)) == pytest.approx(want["top1"], abs=1e-9)
        assert values(measurements, "top5", k=int(k)) == pytest.approx(want["top5"], abs=1e-9)
    (headline,) = [m for m in measurements if m.headline]
    assert (headline.metric, headline.settings) == ("top1", {"k": 20, "temperature": 0.07})


def test_brute_force():
    train, test = clusters(0, 400, 7), clusters(1, 120, 7)
    measurements, made = evaluate("knn", train, test, k=[1, 20, 33], temperature=[0.07, 1.0])
    for index, m in enumerate(measurements):
        if m.metric == "top1":
            want = brute(train, test, m.settings["k"], m.settings["temperature"])
            np.testing.assert_array_equal(made.outcomes[index].arrays["prediction"], want)
            assert m.value == pytest.approx(100 * (want == test[1]).mean())


def test_outcomes_agree_with_the_values():
    measurements, made = evaluate("knn", clusters(0), clusters(1))
    for index, m in enumerate(measurements):
        table = made.outcomes[index].arrays
        correct = table["correct"] if m.metric == "top1" else table["correct5"]
        assert m.value == pytest.approx(100 * correct.mean())
        assert m.n == len(correct)
        np.testing.assert_array_equal(table["correct"], table["label"] == table["prediction"])
        assert ((table["score"] >= 0) & (table["score"] <= 1)).all()


@pytest.mark.parametrize("change", ["train order", "test order", "scale", "class names"])
def test_what_must_not_matter(change):
    (x, y), (q, t) = clusters(0, 300, 8), clusters(1, 90, 8)
    base, _ = evaluate("knn", (x, y), (q, t), k=[10, 20])
    rng = np.random.default_rng(5)
    if change == "train order":
        order = rng.permutation(len(x))
        x, y = x[order], y[order]
    elif change == "test order":
        order = rng.permutation(len(q))
        q, t = q[order], t[order]
    elif change == "scale":
        x, q = x * 1e6, q * 1e-6
    else:
        names = rng.permutation(1000)[:8] - 500
        y, t = names[y], names[t]
    changed, _ = evaluate("knn", (x, y), (q, t), k=[10, 20])
    assert [m.value for m in changed if m.metric == "top1"] == [m.value for m in base if m.metric == "top1"]


def test_an_exact_tie_goes_to_the_higher_single_similarity_then_the_lowest_class():
    # One vote each, all equally similar: the lowest class, whatever the order of the bank.
    x = np.array([[1, 0], [1, 0], [1, 0]], dtype=np.float32)
    _, made = evaluate("knn", (x, np.array([9, 4, 7])), (x[:1], np.array([4])), k=[3])
    assert made.outcomes[0].arrays["prediction"][0] == 4
    # Equal scores by construction, class 1 holding the single best similarity.
    similarity = np.array([[0.9, 0.5, 0.4]])
    votes = vote(similarity, np.array([[1, 0, 0]]), np.log([[2.0, 1.0, 1.0]]), 2, 2, np.array([0]))
    assert list(votes.top[0]) == [1, 0]
    assert votes.share[0] == 0.5


def test_duplicates_of_two_classes_tie_exactly_wherever_they_stand():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 65)).astype(np.float32)
    y = np.arange(200) % 5 + 10
    x[150], y[150], x[3], y[3] = x[77], 12, x[77], 11
    y[77] = 14
    _, made = evaluate("knn", (x, y), (x[77:78], np.array([11])), k=[3])
    assert made.outcomes[0].arrays["prediction"][0] == 11


def test_fewer_than_five_neighbours_have_no_five_classes():
    """DINO counts the best min(5, k) classes: beyond the neighbours' own they would be drawn from a hat."""
    train, test = clusters(0, 300, 30), clusters(1, 200, 30)
    found, _ = evaluate("knn", train, test, k=[1, 3, 20])
    assert values(found, "top5", k=1) == values(found, "top1", k=1)
    x = train[0] / np.linalg.norm(train[0], axis=1, keepdims=True)
    near = np.argsort(-(test[0] @ x.T), axis=1, kind="stable")[:, :3]
    carried = (train[1][near] == test[1][:, None]).any(axis=1)
    assert values(found, "top5", k=3) == pytest.approx(100 * carried.mean(), abs=1.0)
    assert values(found, "top5", k=3) < values(found, "top5", k=20)


def test_more_neighbours_than_there_are():
    train, test = clusters(0, 15), clusters(1, 6)
    measurements, _ = evaluate("knn", train, test, k=[10, 200], headline_k=10)
    (capped,) = [m for m in measurements if m.metric == "top1" and m.settings["k"] == 200]
    assert capped.details["neighbours"] == 15
    assert capped.value == pytest.approx(100 * (brute(train, test, 15) == test[1]).mean())


def test_the_same_split_twice_leaves_each_sample_out_by_its_id():
    x, y = clusters(0, 40, 2)
    x[1], y[1], y[0] = x[0], 1, 0
    names = [f"s{i}" for i in range(40)]
    measurements, made = evaluate(
        "knn", (x, y), (x, y), k=[1], fingerprints=("sha256:a", "sha256:a"), ids=(names, names)
    )
    prediction = made.outcomes[0].arrays["prediction"]
    assert (prediction[0], prediction[1]) == (1, 0)
    assert measurements[0].details["own_sample_left_out"]


def test_two_splits_that_share_labels_alone_are_two_splits():
    (x, y), (q, _) = clusters(0, 40, 2), clusters(1, 40, 2)
    base, _ = evaluate("knn", (x, y), (q, y), k=[1, 40], headline_k=1)
    same, _ = evaluate("knn", (x, y), (q, y), k=[1, 40], headline_k=1, fingerprints=("sha256:a", "sha256:a"))
    assert [m.value for m in same] == [m.value for m in base]
    assert not any(m.details for m in same)


def test_labels_with_gaps_classes_without_training_samples_and_few_tests():
    (x, y), (q, t) = clusters(0, 60, 3), clusters(1, 7, 3)
    y, t = np.array([5, 90, 1000])[y], np.array([5, 90, 1000])[t]
    t[0] = 77
    measurements, made = evaluate("knn", (x, y), (q, t), k=[5])
    table = made.outcomes[0].arrays
    assert set(table["prediction"]) <= {5, 90, 1000}
    assert not table["correct"][0]
    assert table["score"][0] == 0
    assert measurements[0].details["without_training_samples"] == {"classes": ["77"], "test_samples": 1}


def test_refusals():
    x, y = clusters(0, 30, 3)
    with pytest.raises(BenchError, match="single class"):
        evaluate("knn", (x, np.zeros(30, dtype=int)), (x, y))
    broken = x.copy()
    broken[4, 2] = np.nan
    broken[9, 0] = np.inf
    with pytest.raises(BenchError, match=r"2 of 30 samples of arrays train .* first train/4"):
        evaluate("knn", (broken, y), (x, y))
    with pytest.raises(BenchError, match="holds no samples"):
        evaluate("knn", (x, y), (x[:0], y[:0]))
    with pytest.raises(BenchError, match="knn.k is a number of at least 1"):
        evaluate("knn", (x, y), (x, y), k=[0])
    with pytest.raises(BenchError, match="knn.temperature is a number of at least 1e-06"):
        evaluate("knn", (x, y), (x, y), temperature=[0.0])
    with pytest.raises(BenchError, match="weight"):
        evaluate("knn", (x, y), (x, y), weight="gauss")


def test_small_temperatures_neither_overflow_nor_vanish():
    measurements, _ = evaluate("knn", clusters(0), clusters(1), temperature=[0.001, 0.07, 100.0])
    assert all(np.isfinite(m.value) for m in measurements)


def test_zero_features_are_said():
    x, y = clusters(0, 50, 3)
    x[3] = 0
    measurements, _ = evaluate("knn", (x, y), clusters(1, 20, 3), k=[5])
    assert measurements[0].details["zero_features"] == 1


@pytest.mark.parametrize("temperature", [1e-4, 0.001, 0.003, 0.02])
def test_votes_too_small_for_float_still_rank_the_classes(temperature):
    """Top-5 of brute force in the log domain, at temperatures whose votes float32, then float64, cannot hold."""
    (x, y), (q, t) = clusters(0, 400, 9, spread=0.4), clusters(1, 80, 9, spread=0.4)
    measurements, made = evaluate("knn", (x, y), (q, t), k=[200], temperature=[temperature])
    bank, queries = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x.astype(float), q.astype(float)))
    ranks, lost, beyond = [], 0, 0
    for row, label in zip(queries, t, strict=True):
        s = bank @ row
        near = np.argsort(-s, kind="stable")[:200]
        score = {c: np.logaddexp.reduce(s[near[y[near] == c]] / temperature) for c in set(y[near])}
        spread = max(score.values()) - np.array(list(score.values()))
        lost += (spread > 104).sum()
        beyond += (spread > 746).sum()
        order = sorted(score, key=lambda c: -score[c])
        assert len(order) >= 5, "every place among the first five must be somebody's by votes"
        ranks.append(order.index(label) if label in order else 9)
    ranks = np.array(ranks)
    assert (lost > 100) == (temperature <= 0.003)
    assert (beyond > 100) == (temperature <= 0.0001)
    for metric, places, outcome in (("top1", 1, "correct"), ("top5", 5, "correct5")):
        (index,) = [i for i, m in enumerate(measurements) if m.metric == metric]
        np.testing.assert_array_equal(made.outcomes[index].arrays[outcome], ranks < places)
    assert 0 < (ranks < 5).sum() < len(ranks)


def test_scores_that_float32_ties_are_ordered_in_float64():
    """Class 1 gets 1e-50 votes, class 2 a little more, class 0 all the rest; classes 3 and 4 none."""
    similarity = np.array([[0.9, 0.5, 0.4]])
    logs = np.array([[0.0, np.log(1e-50), np.log(1.1e-50)]])
    votes = vote(similarity, np.array([[0, 1, 2]]), logs, 5, 3, np.array([2]))
    assert list(votes.top[0]) == [0, 2, 1]
    assert votes.share[0] == pytest.approx(1.1e-50)


def test_one_headline_whatever_is_asked_for():
    train, test = clusters(0), clusters(1)

    def headlines(**options):
        measurements, made = evaluate("knn", train, test, **options)
        return [(m.settings["k"], m.settings["temperature"]) for m in measurements if m.headline], made

    assert headlines(temperature="0.07,0.07")[0] == [(20, 0.07)]
    assert headlines(temperature="0.2,0.07,0.1")[0] == [(20, 0.07)]
    assert headlines(k=5)[0] == [(5, 0.07)]
    assert headlines(k=5, temperature=1)[0] == [(5, 1.0)]
    assert headlines(k="50,5", headline_k=50)[0] == [(50, 0.07)]
    for options in (
        {"k": "50,5"},
        {"k": "50,5", "headline_k": 30},
        {"temperature": "1,0.5", "headline_temperature": 0.07001},
    ):
        with pytest.raises(BenchError, match=r"knn.headline_\w+=\S+ is not among knn.\w+=\S+: set"):
            headlines(**options)


def test_temperatures_alike_to_six_digits_keep_their_own_outcomes():
    _, made = evaluate("knn", clusters(0), clusters(1), k=5, temperature=[0.07, 0.070000001])
    assert {table.name for table in made.outcomes.values()} == {"k5-T0.07", "k5-T0.070000001"}


def inverse(x, y, q, k=20):
    """solo-learn's function in float64, of rows as they are: predictions by the sum of 1 / (distance + 1e-5)."""
    distance = np.linalg.norm(q.astype(np.float64)[:, None] - x.astype(np.float64)[None], axis=2)
    near = np.argsort(distance, axis=1, kind="stable")[:, :k]
    found = [np.bincount(y[n], weights=1 / (d[n] + 1e-5), minlength=4) for n, d in zip(near, distance, strict=True)]
    return np.array([votes.argmax() for votes in found]), near


@pytest.mark.parametrize("move", [0.0, 1000.0], ids=["around the origin", "far from it"])
@pytest.mark.parametrize("times", [1.0, 1e-6, 1e9])
def test_solos_euclidean_votes_are_of_features_as_they_are(move, times):
    (x, y), (q, t) = clusters(0, 200, 4), clusters(1, 50, 4)
    # Rows of very different lengths: those of length 1 have other neighbours.
    x = ((x * np.linspace(0.2, 5, 200)[:, None] + move) * times).astype(np.float32)
    q = ((q + move) * times).astype(np.float32)
    measurements, made = evaluate("knn", (x, y), (q, t), protocol="solo-l2")
    want, near = inverse(x, y, q)
    np.testing.assert_array_equal(made.outcomes[0].arrays["prediction"], want)
    assert measurements[0].feature["norm"] == "none"
    from suites.euclidean import Raw, nearest

    found = nearest(Raw(made.data["train"], "pooled"), q, 20)
    np.testing.assert_array_equal(found.index, near)
    if move == 0 and times == 1:
        unit, _ = inverse(*(x / np.linalg.norm(x, axis=1, keepdims=True), y), q / np.linalg.norm(q, axis=1)[:, None])
        assert (unit != want).any()


def test_solos_euclidean_ties_equal_rows_own_rows_and_blocks():
    x, y = clusters(0, 60, 3)
    x[7] = x[3] = x[11]
    y[3], y[7], y[11] = 2, 1, 0
    _, made = evaluate("knn", (x, y), (x[7:8], np.array([0])), protocol="solo-l2", k=3, headline_k=3)
    # Three votes of 1e5 each: the lowest class.
    assert made.outcomes[0].arrays["prediction"].tolist() == [0]
    names = [f"s{i}" for i in range(60)]
    same, _ = evaluate(
        "knn", (x, y), (x, y), protocol="solo-l2", fingerprints=("sha256:a", "sha256:a"), ids=(names, names)
    )
    assert same[0].details["own_sample_left_out"]
    train, test = clusters(0, 300, 4), clusters(1, 40, 4)
    want, _ = evaluate("knn", train, test, protocol="solo-l2")
    got = list(KNN().evaluate(out_of_core(task("knn", train, test, protocol="solo-l2"))))
    assert [(m.metric, m.value) for m in got] == [(m.metric, m.value) for m in want]
    alike = np.ones((30, 5), dtype=np.float32)
    flat, _ = evaluate("knn", (alike, np.arange(30) % 2), (alike[:4], np.zeros(4, dtype=int)), protocol="solo-l2")
    assert flat[0].value == 100.0


def test_distances_and_lengths_do_not_mix():
    with pytest.raises(BenchError, match="take --protocol knn=solo-l2"):
        evaluate("knn", clusters(0), clusters(1), weight="inverse")
    with pytest.raises(BenchError, match="take --protocol knn=solo-l2"):
        evaluate("knn", clusters(0), clusters(1), protocol="solo-l2", weight="exp")
    bad = clusters(0)[0].copy()
    bad[4, 2] = np.nan
    with pytest.raises(BenchError, match="not finite"):
        evaluate("knn", (bad, clusters(0)[1]), clusters(1), protocol="solo-l2")


def test_inverse_distance_votes_of_length_1():
    train, test = clusters(0, 200, 4), clusters(1, 50, 4)
    _, made = evaluate("knn", train, test, k=20, weight="l2")
    x = train[0].astype(np.float64) / np.linalg.norm(train[0], axis=1, keepdims=True)
    q = test[0].astype(np.float64) / np.linalg.norm(test[0], axis=1, keepdims=True)
    want, _ = inverse(x, train[1], q)
    np.testing.assert_array_equal(made.outcomes[0].arrays["prediction"], want)


@pytest.mark.parametrize("name", ["ibot", "dinov2", "dinov3"])
def test_papers_that_took_over_dinos_rule_get_dinos_numbers(name):
    (x, y), (q, t) = clusters(0, 300, 8), clusters(1, 60, 8)
    dino, _ = evaluate("knn", (x, y), (q, t))
    theirs, _ = evaluate("knn", (x, y), (q, t), protocol=name)
    assert {m.protocol for m in theirs} == {f"knn/{name}@{2 if name == 'dinov3' else 1}"}
    assert [(m.metric, m.settings, m.value) for m in theirs] == [(m.metric, m.settings, m.value) for m in dino]


def test_a_bank_that_is_read_in_blocks_alone():
    train, test = clusters(0), clusters(1)
    want, _ = evaluate("knn", train, test)
    got = list(KNN().evaluate(out_of_core(task("knn", train, test))))
    assert [(m.metric, m.settings, m.value) for m in got] == [(m.metric, m.settings, m.value) for m in want]
