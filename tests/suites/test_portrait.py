"""What a model's page shows of its features: thumbnails of neighbours and a map."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from suitehelp import task as task_of

from bench.dataset import DecodeError
from suites import portrait
from suites.classification import confidence_of, labels_of
from suites.knn import KNN, nearest


class Shades:
    """Images whose grey is their row."""

    def __init__(self, split, n, lost=None):
        self.ids, self.lost = [f"{split}/{i}" for i in range(n)], lost

    def __len__(self):
        return len(self.ids)

    def image(self, index):
        if index == self.lost:
            raise DecodeError(self.ids[index], "gone")
        return Image.new("RGB", (20 + index, 30), (5 * index, 5 * index, 5 * index))


def blobs(n, classes=4, seed=0, width=16):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = 3 * np.random.default_rng(9).normal(size=(classes, width))
    return (centres[y] + rng.normal(size=(n, width))).astype(np.float32), y


def made(tmp_path, n=30, **images):
    task = task_of("knn", blobs(40, seed=1), blobs(n, seed=2))
    task.folder = tmp_path
    task.images = images
    return task


def test_neighbours_are_those_of_the_search_with_their_own_images(tmp_path):
    task = made(tmp_path, train=Shades("train", 40), test=Shades("test", 30))
    measured = list(KNN().evaluate(task))
    document = json.loads(task.files["neighbours.json"])
    found, _, _ = nearest(task)
    headline = next(i for i, m in enumerate(measured) if m.headline)
    table = task.outcomes[headline].arrays
    sheet = np.asarray(Image.open(io.BytesIO(task.files["neighbours.jpg"]))).astype(int)
    tile = document["tile"]
    assert sheet.shape == (tile * len(document["rows"]), tile * 6, 3)
    for y, row in enumerate(document["rows"]):
        index = int(row["id"].partition("/")[2])
        assert row["right"] == bool(table["correct"][index])
        assert row["prediction"] == str(table["prediction"][index])
        assert [n["id"] for n in row["neighbours"]] == [f"train/{i}" for i in found.index[index, :5]]
        for x, shown in enumerate([row, *row["neighbours"]]):
            grey = 5 * int(shown["id"].partition("/")[2])
            middle = sheet[tile * y + tile // 2, tile * x + tile // 2]
            assert abs(middle - grey).max() <= 4
        for neighbour in row["neighbours"]:
            assert neighbour["right"] == (neighbour["label"] == row["label"])
    assert len(task.files["neighbours.jpg"]) < portrait.BUDGET


def test_half_of_the_shown_are_wrong_where_there_are_as_many():
    right = np.ones(1000, bool)
    right[::7] = False
    rows = portrait._some(right)
    assert len(set(rows)) == 24
    assert right[rows].sum() == 12
    assert len(portrait._some(np.ones(100, bool))) == 24
    assert len(portrait._some(np.zeros(5, bool))) == 5


def test_the_map_keeps_classes_together_and_is_the_same_again(tmp_path):
    task = made(tmp_path, 80)
    labels = labels_of(task)
    rows, places, how = portrait.feature_map(task, labels)
    again = portrait.feature_map(task, labels)
    assert np.array_equal(places, again[1])
    assert "t-SNE of 16 principal components, 80 test samples of 4 classes" in how
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (labels.test[rows][distance.argmin(axis=1)] == labels.test[rows]).mean() > 0.9


def test_the_map_takes_a_part_of_many_classes_and_samples(tmp_path):
    task = task_of("knn", blobs(130, 65), blobs(1300, 65))
    task.folder = tmp_path
    rows, _, how = portrait.feature_map(task, labels_of(task))
    assert len(np.unique(task.data["test"].labels[rows])) == portrait.CLASSES
    assert len(rows) == portrait.SAMPLES
    assert "of 20 classes" in how


def test_without_images_there_is_a_map_and_without_a_record_nothing(tmp_path):
    task = made(tmp_path)
    list(KNN().evaluate(task))
    assert set(task.files) == {"map.json"}
    bare = made(tmp_path)
    bare.folder = None
    list(KNN().evaluate(bare))
    assert bare.files == {}


def test_an_image_that_is_gone_costs_the_sheet_alone(tmp_path):
    task = made(tmp_path, train=Shades("train", 40), test=Shades("test", 30, lost=0))
    list(KNN().evaluate(task))
    assert set(task.files) == {"map.json"}


def test_samples_that_were_left_out_of_the_features_are_found_by_name(tmp_path):
    task = made(tmp_path, train=Shades("train", 40), test=Shades("test", 31))
    task.data["test"].ids = [f"test/{i + 1}" for i in range(30)]
    list(KNN().evaluate(task))
    row = json.loads(task.files["neighbours.json"])["rows"][0]
    sheet = np.asarray(Image.open(io.BytesIO(task.files["neighbours.jpg"]))).astype(int)
    assert abs(sheet[36, 36] - 5 * int(row["id"].partition("/")[2])).max() <= 4


@pytest.mark.parametrize("n", [2, 9])
def test_few_or_equal_samples_give_no_map(tmp_path, n):
    task = made(tmp_path, n)
    list(KNN().evaluate(task))
    assert "map.json" not in task.files
    task = task_of("knn", blobs(40), (np.ones((40, 8), np.float32), np.arange(40) % 4))
    task = SimpleNamespace(data=task.data)
    assert portrait.feature_map(task, SimpleNamespace(test=np.arange(40) % 4)) is None


def test_confidence_is_the_probability_of_the_prediction(tmp_path):
    task = made(tmp_path)
    measured = list(KNN().evaluate(task))
    for index, m in enumerate(measured):
        if m.metric == "top1":
            arrays = task.outcomes[index].arrays
            right = arrays["correct"]
            assert arrays["confidence"][right] == pytest.approx(arrays["score"][right])
            assert (arrays["confidence"] >= arrays["score"] - 1e-6).all()
    logits = np.array([[0.0, np.log(3.0)], [1e4, -1e4]])
    assert confidence_of(logits) == pytest.approx([0.75, 1.0])
