"""ELPV: the published list by hand, the installed package where there is one, damage in a sentence."""

from importlib.util import find_spec

import numpy as np
import pytest
from datahelp import encoded, put

from bench.data.holdout import held_out
from bench.data.opening import open_data
from bench.errors import BenchError

GRADES = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    names = [f"images/cell{number:04d}.png" for number in range(1, 25)]
    for number, name in enumerate(names):
        put(tmp_path / "elpv" / name, encoded(number))
    rows = [f"{name}  {GRADES[number % 4]}                 mono" for number, name in enumerate(names)]
    put(tmp_path / "elpv" / "labels.csv", "\n".join(rows).encode())
    return tmp_path / "elpv"


def test_grades_become_classes_and_a_fifth_is_held_out_by_name(root):
    train, test = open_data("elpv")
    assert (train.name, test.split, train.classes) == ("elpv", "holdout", ("functional", "defective"))
    assert len(train) + len(test) == 24
    for split, held in ((train, False), (test, True)):
        for name, label in zip(split.ids, split.labels, strict=True):
            assert held_out(name) is held
            assert label == ((int(name[11:15]) - 1) % 4 >= 2)
    assert np.asarray(train.image(0)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "names no images"),
        (b"images/cell0001.png\n", "line 1 of .* is no image and probability"),
        (b"images/cell0001.png 0.0 mono\nimages/cell0002.png 7 mono\n", "line 2"),
        (b"images/cell0001.png nan mono\n", "line 1"),
        (b"images/cell0001.png 0.0 mono\nimages/cell0001.png 1.0 mono\n", "again"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_list_that_is_not_the_published_one(root, text, said):
    (root / "labels.csv").write_bytes(text)
    with pytest.raises(BenchError, match=said):
        open_data("elpv")


def test_where_it_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    monkeypatch.setattr("bench.data.elpv.find_spec", lambda name: None)
    with pytest.raises(BenchError, match="pip install elpv-dataset"):
        open_data("elpv")
    with pytest.raises(BenchError, match="takes no path"):
        open_data("elpv:/elsewhere")


@pytest.mark.skipif(find_spec("elpv_dataset") is None, reason="the package elpv-dataset is not installed")
def test_the_installed_package(monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    train, test = open_data("elpv")
    assert len(train) + len(test) == 2624
    assert int((train.labels == 1).sum() + (test.labels == 1).sum()) == 821
    assert np.asarray(test.image(0)).shape == (300, 300, 3)
