"""mIoU, mAcc and aAcc against a confusion matrix made by hand."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from bench.errors import BenchError
from suites.segmentation.overlap import Overlap


def pairs(n=6, classes=5, seed=0, right=0.6):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        truth = rng.integers(-1, classes - 1, (7, 9))  # The last class is never labelled.
        predicted = np.where(rng.random((7, 9)) < right, truth, rng.integers(0, classes, (7, 9)))
        yield np.maximum(predicted, 0), truth


def added(classes=5, **more):
    overlap = Overlap(classes)
    for predicted, truth in pairs(classes=classes, **more):
        overlap.add(predicted, truth)
    return overlap


@pytest.mark.parametrize("seed", range(3))
def test_values_equal_those_of_a_confusion_matrix(seed):
    predicted, truth = (np.concatenate([a.ravel() for a in arrays]) for arrays in zip(*pairs(seed=seed), strict=True))
    matrix = confusion_matrix(truth[truth >= 0], predicted[truth >= 0], labels=range(5)).astype(float)
    right, union = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    labelled = matrix.sum(1)
    values = added(seed=seed).values()
    assert values["miou"] == pytest.approx(100 * np.mean(right[union > 0] / union[union > 0]))
    assert values["macc"] == pytest.approx(100 * np.mean(right[labelled > 0] / labelled[labelled > 0]))
    assert values["pixel_acc"] == pytest.approx(100 * right.sum() / matrix.sum())


def test_known_answer():
    overlap = Overlap(3)
    overlap.add(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, -1]]))
    # Class 0: 1 of 2; class 1: 1 of 2; class 2 is nowhere.
    assert overlap.values() == {"miou": 50.0, "macc": 75.0, "pixel_acc": pytest.approx(200 / 3)}
    assert overlap.per_class() == [50.0, 50.0, None]


def test_sums_are_over_the_set_not_means_over_images():
    overlap = Overlap(2)
    overlap.add(np.array([[1]]), np.array([[1]]))
    overlap.add(np.array([[0, 0, 0]]), np.array([[1, 1, 0]]))
    assert overlap.values()["miou"] == pytest.approx(100 * (1 / 3 + 1 / 3) / 2)


def test_the_truth_scores_100_and_permuted_pixels_the_same():
    overlap, other = Overlap(4), Overlap(4)
    rng = np.random.default_rng(0)
    for predicted, truth in pairs(classes=4):
        overlap.add(np.maximum(truth, 0), truth)
        order = rng.permutation(truth.size)
        other.add(predicted.ravel()[order].reshape(truth.shape), truth.ravel()[order].reshape(truth.shape))
    assert set(overlap.values().values()) == {100.0}
    assert other.values() == pytest.approx(added(classes=4).values())


def test_intervals_hold_the_value_and_have_a_width():
    overlap = added(n=40)
    values = overlap.values()
    found = overlap.intervals(values)
    for name, (low, high) in found.items():
        assert low <= values[name] <= high
        assert high - low > 0.1
    assert found == overlap.intervals(values)


def test_what_cannot_be_compared_is_refused():
    overlap = Overlap(2)
    with pytest.raises(BenchError, match="no pixel of the masks counts"):
        overlap.values()
    with pytest.raises(BenchError, match="cannot be compared"):
        overlap.add(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(BenchError, match="beyond the 2 classes"):
        overlap.add(np.zeros((1, 1), dtype=int), np.full((1, 1), 2))
