"""imagefolder: splits, hold-out, classes, and what it refuses."""

import os
from pathlib import Path

import numpy as np
import pytest
from datahelp import encoded, put, write_imagefolder

from bench.data.opening import open_data
from bench.errors import BenchError


def flat(folder: Path, per_class: int = 40) -> None:
    for number, name in enumerate(("a", "b")):
        for i in range(per_class):
            put(folder / name / f"{name}{i:03d}.png", encoded(number * 1000 + i))


@pytest.mark.parametrize(("train", "test"), [("train", "val"), ("train", "test"), ("training", "validation")])
def test_two_folders_are_the_splits(tmp_path, train, test):
    for split, n in ((train, 4), (test, 2)):
        for i in range(n):
            put(tmp_path / split / "ab"[i % 2] / f"{i}.png", encoded(i))
    splits = open_data(f"imagefolder:{tmp_path}")
    assert (splits.train.split, splits.test.split) == (train, test)
    assert splits.train.classes == splits.test.classes == ("a", "b")
    assert splits.train.ids == ["a/0.png", "a/2.png", "b/1.png", "b/3.png"]
    assert splits.train.labels.tolist() == [0, 0, 1, 1]


def test_val_goes_before_test(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path / split / "a" / "x.png", encoded(1))
    assert open_data(f"imagefolder:{tmp_path}").test.split == "val"


def test_one_folder_is_held_out_by_file_name(tmp_path):
    flat(tmp_path / "here")
    splits = open_data(f"imagefolder:{tmp_path / 'here'}")
    assert splits.test.split == "holdout"
    assert not set(splits.train.ids) & set(splits.test.ids)
    assert len(splits.train) + len(splits.test) == 80
    assert 4 <= len(splits.test) <= 28  # 16 expected; 3.4 standard deviations
    # Elsewhere, and with a class added, the same samples are held out.
    flat(tmp_path / "there")
    put(tmp_path / "there" / "c" / "z.png", encoded(5))
    again = open_data(f"imagefolder:{tmp_path / 'there'}")
    assert [i for i in again.test.ids if not i.startswith("c/")] == list(splits.test.ids)


def test_a_class_may_be_missing_from_either_split(tmp_path):
    for path in ("train/a/1.png", "train/b/2.png", "test/b/3.png", "test/c/4.png"):
        put(tmp_path / path, encoded(len(path)))
    splits = open_data(f"imagefolder:{tmp_path}")
    assert splits.train.classes == splits.test.classes == ("a", "b", "c")
    assert splits.train.labels.tolist() == [0, 1]
    assert splits.test.labels.tolist() == [1, 2]


def test_what_counts_as_an_image(tmp_path):
    for name in ("UP.PNG", "x.JpEg", "deep/er/y.png", ".hidden.png", "notes.txt", ".git/z.png", "Thumbs.db"):
        put(tmp_path / "train" / "a" / name, encoded(1))
    put(tmp_path / "train" / "stray.png", encoded(1))
    put(tmp_path / "README.md", b"read me")
    put(tmp_path / "val" / "a" / "v.png", encoded(2))
    (tmp_path / "train" / ".cache").mkdir()
    assert open_data(f"imagefolder:{tmp_path}").train.ids == ["a/UP.PNG", "a/deep/er/y.png", "a/x.JpEg"]


def test_links_in_a_circle_end(tmp_path):
    write_imagefolder(tmp_path)
    os.symlink(tmp_path / "train" / "cat", tmp_path / "train" / "cat" / "again")
    os.symlink(tmp_path, tmp_path / "train" / "dog" / "root")
    train = open_data(f"imagefolder:{tmp_path}").train
    assert sum(name.startswith("cat/") for name in train.ids) == 4
    assert len(set(train.ids)) == len(train)


def test_a_class_folder_may_be_a_link(tmp_path):
    write_imagefolder(tmp_path / "store")
    (tmp_path / "set" / "train").mkdir(parents=True)
    os.symlink(tmp_path / "store" / "train" / "cat", tmp_path / "set" / "train" / "cat")
    os.symlink(tmp_path / "store" / "test", tmp_path / "set" / "test")
    splits = open_data(f"imagefolder:{tmp_path / 'set'}")
    assert len(splits.train) == 4
    assert len(splits.test) == 6


def test_an_empty_class_is_named(tmp_path):
    write_imagefolder(tmp_path)
    put(tmp_path / "train" / "empty one" / "notes.txt", b"nothing")
    with pytest.raises(BenchError, match=r"class folder .*train/empty one holds no images"):
        open_data(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "is not there"),
        (lambda p: put(p, b""), "is not a folder"),
        (lambda p: p.mkdir(), "no class folders"),
        (lambda p: put(p / "train" / "a" / "x.png", encoded(1)), r"has train/ but no val/ or test/"),
        (lambda p: put(p / "val" / "a" / "x.png", encoded(1)), r"has val/ but no train/"),
        (lambda p: put(p / "a" / "x.png", encoded(1)), "too few images to split"),
        (lambda p: (put(p / "val" / "a" / "x.png", encoded(1)), put(p / "train" / "x.png", encoded(1))), "no class"),
    ],
)
def test_refusals(tmp_path, make, says):
    make(tmp_path / "data")
    with pytest.raises(BenchError, match=says) as caught:
        open_data(f"imagefolder:{tmp_path / 'data'}")
    assert "\n" not in str(caught.value)


def test_an_unreadable_folder_is_no_empty_one(tmp_path, monkeypatch):
    write_imagefolder(tmp_path)
    real = os.scandir

    def scandir(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BenchError, match=r"dog cannot be read: Permission denied"):
        open_data(f"imagefolder:{tmp_path}")


def test_labels_follow_the_order_of_names_not_of_the_disk(tmp_path):
    for name in ("b", "B", "a", "10", "9"):
        put(tmp_path / "train" / name / "x.png", encoded(1))
        put(tmp_path / "val" / name / "x.png", encoded(1))
    train = open_data(f"imagefolder:{tmp_path}").train
    assert train.classes == ("10", "9", "B", "a", "b")
    assert np.array_equal(train.labels, np.arange(5))
