"""Sets whose archives list their images: each in its published layout, small; and damaged."""

import numpy as np
import pytest
from datahelp import pixels, put, write_dtd
from listedhelp import (
    lines,
    write_birdsnap,
    write_caltech101,
    write_cub,
    write_inat18,
    write_sun397,
    write_tinyimagenet,
    write_voc07cls,
    write_vtab,
)

from bench.data.opening import limited, open_data
from bench.data.voc07cls import CLASSES
from bench.data.vtab import TASKS
from bench.errors import BenchError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    return tmp_path


def test_cub(root):
    write_cub(root)
    train, test = open_data("cub")
    assert (train.name, train.split, test.split) == ("cub", "train", "test")
    assert train.classes == ("001.Albatross", "002.Auklet")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0, 1, 0], [1, 0, 1])
    assert np.array_equal(np.asarray(test.image(0)), pixels(5))


def test_sun397_takes_the_first_partition(root):
    write_sun397(root)
    train, test = open_data("sun397")
    assert train.classes == ("a/abbey", "c/church/outdoor")
    assert (len(train), test.labels.tolist()) == (4, [0, 1, 0, 1])
    assert np.array_equal(np.asarray(test.image(3)), pixels(7))


def test_caltech101_learns_from_thirty_of_each_class(root):
    base = write_caltech101(root)
    train, test = open_data("caltech101")
    assert np.bincount(train.labels).tolist() == [30, 30]
    assert np.bincount(test.labels).tolist() == [4, 1]
    assert not set(train.ids) & set(test.ids)
    # Another file of one class moves nothing of the other's.
    put(base / "BACKGROUND_Google" / "image_0099.jpg", b"any")
    again = open_data("caltech101").train
    assert [name for name in again.ids if name.startswith("ant")] == [n for n in train.ids if n.startswith("ant")]


def test_birdsnap_leaves_out_what_could_not_be_fetched(root):
    write_birdsnap(root)
    train, test = open_data("birdsnap")
    assert [name.rpartition("/")[2] for name in train.ids] == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [name.rpartition("/")[2] for name in test.ids] == ["5.jpg", "6.jpg"]
    assert test.labels.tolist() == [1, 0]


def test_tinyimagenet_reports_on_val(root):
    write_tinyimagenet(root)
    train, test = open_data("tinyimagenet")
    assert (train.labels.tolist(), test.labels.tolist(), test.split) == ([0, 0, 0, 1, 1, 1], [1, 0], "val")
    assert np.array_equal(np.asarray(test.image(1)), pixels(51))


def test_inat18_keeps_the_published_ids(root):
    write_inat18(root)
    train, test = open_data("inat18")
    assert train.class_ids == test.class_ids == (17, 4030)
    assert train.classes == ("Anas acuta", "Turdus merula")
    assert all(f"/{label}/" in name for label, name in zip(train.labels, train.ids, strict=True))
    assert (len(train), len(test), test.split) == (4, 2, "val")


@pytest.mark.parametrize("folder", ["voc07cls", "voc07"])
def test_voc07_has_twenty_labels_an_image(root, folder):
    write_voc07cls(root, folder)
    train, test = open_data("voc07cls")
    cat, dog = CLASSES.index("cat"), CLASSES.index("dog")
    assert train.labels.shape == (6, 20)
    assert train.labels[:, cat].tolist() == [1, -1, 1, -1, 0, -1]
    assert train.labels[:, dog].tolist() == [1, -1, -1, 1, -1, -1]
    assert train.validation.tolist() == [False] * 3 + [True] * 3
    assert test.labels[:, cat].tolist() == [1, -1, 1]
    assert train.fingerprint != test.fingerprint
    assert limited(train, 2).validation.tolist() == [False, True]


def test_vtab_is_the_lists_and_nothing_else(root):
    base = write_vtab(root)
    train, test = open_data("vtab1k:dsprites_loc")
    assert (len(train), int(train.validation.sum()), len(test)) == (1000, 200, 3)
    assert not train.validation[:800].any()
    assert np.array_equal(np.asarray(test.image(2)), pixels(2))
    assert len(TASKS) == len(set(TASKS)) == 19
    lines(base / "train800.txt", ["images/a.jpg 0"])
    with pytest.raises(BenchError, match="lists 1 images: VTAB-1k has exactly 800"):
        open_data("vtab1k:dsprites_loc")


def test_the_validation_part_of_textures(tmp_path):
    write_dtd(tmp_path)
    train = open_data(f"torchvision:DTD:{tmp_path}").train
    names = (tmp_path / "dtd" / "dtd" / "labels" / "val1.txt").read_text().split()
    held = {name for name, val in zip(train.ids, train.validation, strict=True) if val}
    assert held == {f"dtd/dtd/images/{name}" for name in names}


def test_damaged_archives_are_refused_in_a_sentence(root):
    base = write_cub(root)
    lines(base / "image_class_labels.txt", ["1 1"])
    (write_sun397(root).parent / "Testing_01.txt").unlink()
    (write_birdsnap(root) / "images.txt").write_text("nothing\n")
    (write_tinyimagenet(root) / "wnids.txt").write_text("n77\n")
    put(write_inat18(root) / "val2018.json", b"{}")
    lines(write_voc07cls(root) / "ImageSets" / "Main" / "sofa_test.txt", ["000006 yes"])
    lines(write_vtab(root) / "test.txt", ["images/a.jpg zero"])
    said = {
        "cub": "name other images",
        "sun397": "Testing_01.txt cannot be read",
        "birdsnap": "names no column 'path'",
        "tinyimagenet": "n77/images is not there",
        "inat18": "is not the published annotation file",
        "voc07cls": "no image name and -1, 0 or 1",
        "vtab1k:dsprites_loc": "no path and label",
        "vtab1k:dsprites": "nearest: dsprites",
    }
    for spec, sentence in said.items():
        with pytest.raises(BenchError, match=sentence):
            open_data(spec)


@pytest.mark.parametrize("name", ["cub", "sun397", "caltech101", "birdsnap", "tinyimagenet", "inat18", "voc07cls"])
def test_a_set_that_is_not_there_says_how_to_provide_it(root, name):
    with pytest.raises(BenchError, match=rf"'{name}' is not here \(looked in .*{name}\): set .BENCH_DATA"):
        open_data(name)
    with pytest.raises(BenchError, match="takes no path"):
        open_data(f"{name}:/elsewhere")
