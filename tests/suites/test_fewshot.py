"""fewshot: the draws, a second computation of a run, published lists, refusals."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from suitehelp import clusters, evaluate, values

from bench.errors import BenchError
from bench.stats import wilson
from suites.classification import labels_of
from suites.fewshot import drawn, subsets_of, validation_rows

TRAIN, TEST = clusters(0, 300, 4), clusters(1, 80, 4)


def test_draws_are_stratified_nested_seeded_and_different():
    y = TRAIN[1]
    five, ten = (drawn(y, np.full(4, n), 3) for n in (5, 10))
    assert list(np.bincount(y[five])) == [5] * 4
    assert set(five) < set(ten)
    assert np.array_equal(five, drawn(y, np.full(4, 5), 3))
    assert not np.array_equal(five, drawn(y, np.full(4, 5), 4))


def test_a_class_with_fewer_samples_gives_what_it_has():
    y = np.array([0] * 30 + [1] * 3)
    assert list(np.bincount(y[drawn(y, np.full(2, 10), 0)])) == [10, 3]


def test_every_size_mean_deviation_and_runs():
    found, made = evaluate("fewshot", TRAIN, TEST, seed=7, draws=4)
    assert [m.settings for m in found] == [{"shots": n} for n in (1, 2, 5, 10)] + [{"percent": p} for p in (1.0, 10.0)]
    for m in found:
        runs = m.details["runs"]
        assert m.seeds == [7, 8, 9, 10]
        assert m.value == pytest.approx(np.mean(runs))
        assert m.sd == pytest.approx(np.std(runs, ddof=1))
        # The 97.5 % point of Student's t at three degrees of freedom, from a table; the test samples add their part.
        assert m.value - m.interval[0] > max(3.1824 * m.sd / 2, 1)
        assert m.interval_method == "draws (t) and test samples (wilson), mover"
    assert [m.settings for m in found if m.headline] == [{"percent": 1.0}]
    ten = subsets_of(made, labels_of(made))[3]
    for rows, run in zip(ten.draws, found[3].details["runs"], strict=True):
        reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(TRAIN[0][rows], TRAIN[1][rows])
        assert run == pytest.approx(100 * reference.score(*TEST), abs=1.3)


def test_all_of_train_is_the_plain_probe():
    few, _ = evaluate("fewshot", TRAIN, TEST, shots=[1000], percent=[100.0], draws=1)
    whole, _ = evaluate("linear", TRAIN, TEST, C=1.0)
    assert {m.value for m in few} == {values(whole, "top1")}
    assert few[0].details["classes_with_fewer_samples"] == 4
    assert few[0].interval == pytest.approx(whole[0].interval)
    near, _ = evaluate("fewshot", TRAIN, TEST, percent=[100.0], draws=1, classifier="knn")
    assert near[-1].value == values(evaluate("knn", TRAIN, TEST, k=[20])[0], "top1")


def test_msn_centres_and_scales_each_sample_and_has_no_intercept():
    shift = np.linspace(-3, 3, len(TRAIN[0]))[:, None]
    train = (((TRAIN[0] + shift) * 7).astype(np.float32), TRAIN[1])
    found, made = evaluate("fewshot", train, TEST, protocol="msn", shots=[10], draws=2)

    def seen(x):
        x = x - x.mean(axis=1, keepdims=True)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    ten = subsets_of(made, labels_of(made))[0]
    for rows, run in zip(ten.draws, found[0].details["runs"], strict=True):
        reference = LogisticRegression(C=400.0, fit_intercept=False, tol=1e-8, max_iter=5000)
        reference.fit(seen(train[0][rows]), train[1][rows])
        assert run == pytest.approx(100 * reference.score(seen(TEST[0]), TEST[1]), abs=1.3)
    assert {(m.feature["norm"], m.selection) for m in found} == {("centred-l2", "none")}
    plain, _ = evaluate("fewshot", train, TEST, shots=[10], draws=2)
    assert plain[0].feature["norm"] == "none"
    assert plain[0].details["runs"] != found[0].details["runs"]


def test_dinov3_chooses_on_what_no_draw_learns_from():
    found, made = evaluate("fewshot", TRAIN, TEST, protocol="dinov3", points=5, low=-2, high=2, draws=2, validation=0.1)
    labels = labels_of(made)
    held = validation_rows(made, labels)
    counts = np.bincount(TRAIN[1])
    assert np.bincount(TRAIN[1][held]).tolist() == [max(1, int(0.1 * n)) for n in counts]
    for subset in subsets_of(made, labels, held):
        assert not held[np.concatenate(subset.draws)].any()
    ten = subsets_of(made, labels, held)[3]
    for place, rows in enumerate(ten.draws):
        fits = {
            C: LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(TRAIN[0][rows], TRAIN[1][rows])
            for C in 10 ** np.linspace(-2, 2, 5)
        }
        chosen = found[3].details["chosen"][place]
        scores = {C: fit.score(TRAIN[0][held], TRAIN[1][held]) for C, fit in fits.items()}
        assert scores[min(scores, key=lambda C: abs(C - chosen))] >= max(scores.values()) - 0.04
        reference = fits[min(fits, key=lambda C: abs(C - chosen))]
        assert found[3].details["runs"][place] == pytest.approx(100 * reference.score(*TEST), abs=1.3)
    assert {m.selection for m in found} == {"holdout"}
    alone, _ = evaluate("fewshot", (TRAIN[0][:6], np.arange(6)), TEST, protocol="dinov3", C=1.0, shots=1, percent=1)
    assert "chosen" not in alone[0].details
    with pytest.raises(BenchError, match="nothing can be held out"):
        evaluate("fewshot", (TRAIN[0][:6], np.arange(6)), TEST, protocol="dinov3")


def test_published_lists_by_path(tmp_path):
    rows = drawn(TRAIN[1], np.full(4, 5), 0)
    ids = [f"class{c}/image{i}.jpg" for i, c in enumerate(TRAIN[1])]
    whole, short = tmp_path / "whole.txt", tmp_path / "short.txt"
    whole.write_text("\n".join(ids[row] for row in rows))
    short.write_text("\n".join(ids[row].split("/")[1] for row in rows) + "\n\n")
    (found,), _ = evaluate("fewshot", TRAIN, TEST, ids=(ids, None), lists=[str(whole), str(short)])
    assert found.settings == {"lists": 2}
    assert found.sd == 0
    # Draws that do not differ leave the test samples, as a single draw does.
    assert found.interval == pytest.approx([100 * end for end in wilson(round(found.value * 80 / 100), 80)])
    drawn_alike, _ = evaluate("fewshot", TRAIN, TEST, shots=[5], draws=1)
    assert found.value == drawn_alike[0].value
    whole.write_text("nothing.jpg\n")
    with pytest.raises(BenchError, match=r"first nothing\.jpg"):
        evaluate("fewshot", TRAIN, TEST, lists=[str(whole)])
    with pytest.raises(BenchError, match="cannot be read"):
        evaluate("fewshot", TRAIN, TEST, lists=[str(tmp_path / "none.txt")])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classifier": "svm"}, "logreg or knn"),
        ({"shots": [0]}, "at least 1"),
        ({"percent": [0.0]}, "above 0"),
        ({"C": 0.0}, "above 0"),
    ],
)
def test_refused_settings(options, said):
    with pytest.raises(BenchError, match=said):
        evaluate("fewshot", TRAIN, TEST, **options)
