"""VOC2007 by SVMs: the published targets, costs by folds, average precision by hand; low-shot draws."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC
from suitehelp import clusters, evaluate

from bench.errors import BenchError
from suites.average_precision import average_precision
from suites.svm import drawn, scaled


def voc(seed=0, n=90, classes=3):
    """Features that show, with noise, which of the classes are there; some samples are difficult."""
    rng = np.random.default_rng(seed)
    targets = np.where(rng.random((n, classes)) < 0.3, 1, -1)
    x = (targets == 1) @ np.random.default_rng(7).standard_normal((classes, 8)) + 0.7 * rng.standard_normal((n, 8))
    targets[rng.random((n, classes)) < 0.1] = 0
    return x.astype(np.float32), targets


TRAIN, TEST = voc(), voc(1, 60)


def test_difficult_samples_are_negatives_in_training_and_dropped_from_test():
    found, _ = evaluate("voc07cls", TRAIN, TEST, costs=1.0)
    assert [m.metric for m in found] == ["map"]
    x, seen = scaled(TRAIN[0]), scaled(TEST[0])
    expected = []
    for c in range(3):
        machine = LinearSVC(C=1.0, class_weight={1: 2, -1: 1}, dual=True, max_iter=2000, random_state=0)
        scores = machine.fit(x, np.where(TRAIN[1][:, c] == 1, 1, -1)).decision_function(seen)
        counted = TEST[1][:, c] != 0
        expected.append(average_precision(scores[counted], TEST[1][counted, c] == 1))
    assert found[0].value == pytest.approx(100 * np.mean(expected))
    assert found[0].interval[0] < found[0].value < found[0].interval[1]
    assert found[0].selection == "none"


def test_the_cost_is_each_classs_own_by_three_folds():
    found, _ = evaluate("voc07cls", TRAIN, TEST, costs="0.01,1,1000")
    assert set(found[0].details["costs"].values()) <= {0.01, 1.0, 1000.0}
    assert len(found[0].details["costs"]) == 3
    assert found[0].selection == "holdout"
    assert found[0].value > 60


def test_normalisation_is_visslsand_zero_stays_zero():
    np.testing.assert_allclose(scaled(np.array([[3.0, 4.0], [0, 0]])), np.array([[3, 4], [0, 0]]) / (5 + 1e-5))


def test_a_class_without_enough_positives_is_left_out_by_name():
    y = TRAIN[1].copy()
    y[:, 1] = -1
    found, _ = evaluate("voc07cls", (TRAIN[0], y), TEST, costs=1.0)
    assert found[0].details["left_out"] == {"classes": ["1"]}
    assert len(found[0].details["per_class"]) == 2
    with pytest.raises(BenchError, match="no class of arrays train has 3 images"):
        evaluate("voc07cls", (TRAIN[0], np.full_like(y, -1)), TEST, costs=1.0)


def test_low_shot_is_mean_and_deviation_over_draws():
    found, _ = evaluate("voc07cls", TRAIN, TEST, protocol="svm-lowshot", shots="1,16", negatives=2)
    assert [m.settings for m in found] == [{"shots": 1}, {"shots": 16}]
    for m in found:
        assert m.value == pytest.approx(np.mean(m.details["runs"]))
        assert m.sd == pytest.approx(np.std(m.details["runs"], ddof=1))
        assert len(m.seeds) == 5
        # Draws and test samples both have a part.
        assert np.ptp(m.interval) > 2 * 2.776 * m.sd / 5**0.5
    assert found[1].value > found[0].value
    assert [m.headline for m in found] == [False, True]
    one = TEST[0][:1], np.array([[1, -1, 0]])
    alone, _ = evaluate("voc07cls", TRAIN, one, protocol="svm-lowshot", shots="4", negatives=2)
    assert (alone[0].interval, alone[0].interval_note) == (None, "a single sample")


def test_draws():
    y = np.where(np.arange(50) < 10, 1, -1)
    # VISSL's low-shot lists hold no difficult image.
    y[40:] = 0
    rows = drawn(y, 4, 3, np.random.default_rng(0))
    assert ((y[rows] == 1).sum(), (y[rows] == -1).sum()) == (4, 12)
    assert not (y[drawn(y, 10, 4, np.random.default_rng(0))] == 0).any()
    assert (y[drawn(y, 20, 2, np.random.default_rng(0))] == 1).sum() == 10


def test_refusals():
    with pytest.raises(BenchError, match="reads many labels an image"):
        evaluate("voc07cls", clusters(), clusters(1))
    with pytest.raises(BenchError, match="leaves no images to choose a cost on"):
        evaluate("voc07cls", TRAIN, TEST, shots="1", costs="1,2")
