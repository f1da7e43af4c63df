"""From SPEC to splits, refusals of the SPEC itself, and --limit."""

import numpy as np
import pytest
from datahelp import encoded, put, write_idx, write_imagefolder

from bench.data.arrays import ArrayDataset
from bench.data.opening import limited, open_data
from bench.errors import BenchError


def test_a_path_without_kind_suggests_imagefolder(tmp_path):
    write_imagefolder(tmp_path)
    with pytest.raises(BenchError, match=f"write imagefolder:{tmp_path}"):
        open_data(str(tmp_path))


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(BenchError, match=r"unknown data 'fashon-mnist'; nearest: fashion-mnist"):
        open_data("fashon-mnist")


def test_a_missing_named_set_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.data.idx._SYSTEM", tmp_path / "system")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(BenchError) as caught:
        open_data("fashion-mnist")
    for part in (str(tmp_path / "data" / "fashion-mnist"), str(tmp_path / "system"), "train-images-idx3-ubyte.gz"):
        assert part in str(caught.value)


def test_a_named_set_is_found_under_bench_data(tmp_path, monkeypatch):
    write_idx(tmp_path / "fashion-mnist")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    splits = open_data("fashion-mnist")
    assert (len(splits.train), len(splits.test)) == (12, 6)


def test_an_empty_split_is_refused(tmp_path):
    write_idx(tmp_path, {"train": 3, "test": 0})
    with pytest.raises(BenchError, match="the split 'test' holds no images"):
        open_data(f"fashion-mnist:{tmp_path}")


def made(labels) -> ArrayDataset:
    labels = np.asarray(labels)
    pixels = np.arange(labels.size, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    return ArrayDataset("made", "train", pixels, labels, [str(c) for c in range(labels.max() + 1)])


def test_a_limit_takes_every_class_in_proportion():
    part = limited(made([0] * 60 + [1] * 30 + [2] * 10), 10)
    assert len(part) == 10
    assert np.bincount(part.labels).tolist() == [6, 3, 1]
    assert part.name == "made[10 of 100]"
    assert part.classes == ("0", "1", "2")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 19, 50, 99])
def test_a_limit_is_exact_and_keeps_the_order(n):
    whole = made(np.random.default_rng(0).integers(0, 7, 100))
    part = limited(whole, n)
    positions = [int(i.rpartition("/")[2]) for i in part.ids]
    assert len(part) == n
    assert positions == sorted(set(positions))
    assert part.labels.tolist() == whole.labels[positions].tolist()
    share = np.bincount(whole.labels, minlength=7) * n / 100
    assert (np.abs(np.bincount(part.labels, minlength=7) - share) < 1).all()
    assert np.asarray(part.image(0)).tolist() == np.asarray(whole.image(positions[0])).tolist()


def test_a_limit_has_a_fingerprint_of_its_own():
    whole = made([0, 1] * 20)
    prints = [whole.fingerprint, limited(whole, 4).fingerprint, limited(whole, 6).fingerprint]
    assert len(set(prints)) == 3
    assert limited(whole, 4).fingerprint == prints[1]
    other = made([0, 1] * 20)
    other._pixels = other._pixels.copy()
    other._pixels[39] ^= 1
    assert limited(other, 4).fingerprint != prints[1]


def test_a_limit_beyond_the_set_is_the_set():
    whole = made([0, 1])
    assert limited(whole, 2) is whole
    assert limited(whole, 3) is whole


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(BenchError, match="leaves no images"):
        limited(made([0, 1]), 0)


def test_a_limit_of_a_folder_sorted_set_has_all_its_classes(tmp_path):
    for split in ("train", "val"):
        for name in "abc":
            for i in range(5):
                put(tmp_path / split / name / f"{i}.png", encoded(i))
    assert sorted(set(limited(open_data(f"imagefolder:{tmp_path}").train, 3).labels)) == [0, 1, 2]
