"""`segfolder:` and `ade20k`: masks as class numbers, and what is refused."""

import numpy as np
import pytest
from densehelp import write_segfolder
from PIL import Image

from bench.data.opening import limited, open_data
from bench.errors import BenchError


def one(root, images=None, masks=None):
    """A set of one image a split; ``masks``: the array of the training mask."""
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        Image.new("RGB", (4, 3)).save(root / "images" / split / "a.jpg")
        mask = np.array(masks if masks is not None and split == "train" else [[0, 1, 2, 255]] * 3, dtype=np.uint8)
        Image.fromarray(mask).save(root / "masks" / split / "a.png")
    return root


def test_masks_are_read_and_the_ignored_label_is_void(tmp_path):
    train, val = open_data(f"segfolder:{one(tmp_path / 'a')}")
    assert train.classes == ("0", "1", "2")
    assert train.mask(0).tolist() == [[0, 1, 2, -1]] * 3
    assert (train.split, val.split) == ("train", "val")
    train, _ = open_data(f"segfolder:{tmp_path / 'a'}?reduce_zero_label=1")
    assert train.classes == ("1", "2")
    assert train.mask(0).tolist() == [[-1, 0, 1, -1]] * 3
    train, _ = open_data(f"segfolder:{tmp_path / 'a'}?ignore=2&classes=256")
    assert train.mask(0).tolist() == [[0, 1, -1, 255]] * 3


def test_palettes_count_by_index_and_16_bits_are_read(tmp_path):
    root = one(tmp_path / "a")
    palette = Image.fromarray(np.array([[0, 1, 2, 1]] * 3, dtype=np.uint8)).convert("P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette = Image.fromarray(np.array([[0, 1, 2, 1]] * 3, dtype=np.uint8), mode="P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette.save(root / "masks" / "train" / "a.png")
    Image.fromarray(np.array([[0, 1, 300, 255]] * 3, dtype=np.uint16)).save(root / "masks" / "val" / "a.png")
    train, val = open_data(f"segfolder:{root}")
    assert train.mask(0).tolist() == [[0, 1, 2, 1]] * 3
    assert val.mask(0).tolist() == [[0, 1, 300, -1]] * 3
    assert len(val.classes) == 301


def test_fingerprints(tmp_path):
    for name in "ab":
        write_segfolder(tmp_path / name)
    a, b = (open_data(f"segfolder:{tmp_path / name}") for name in "ab")
    assert [s.fingerprint for s in a] == [s.fingerprint for s in b]
    assert a.train.classes == ("background", "red", "green", "blue")
    assert open_data(f"segfolder:{tmp_path / 'a'}?ignore=7").train.fingerprint != a.train.fingerprint
    mask = np.asarray(Image.open(tmp_path / "a" / "masks" / "train" / "0.png")).copy()
    mask[0, 0] = 1
    Image.fromarray(mask).save(tmp_path / "a" / "masks" / "train" / "0.png")
    changed = open_data(f"segfolder:{tmp_path / 'a'}")
    assert changed.train.fingerprint != b.train.fingerprint
    assert changed.test.fingerprint == b.test.fingerprint
    part = limited(b.train, 2)
    assert np.array_equal(part.mask(1), b.train.mask(2))


def test_what_cannot_be_right_is_refused(tmp_path):
    root = one(tmp_path / "size", masks=np.zeros((5, 5)))
    with pytest.raises(BenchError, match=r"has 5x5 pixels, and its image 4x3: make them alike"):
        open_data(f"segfolder:{root}").train.check()
    root = one(tmp_path / "above", masks=np.full((3, 4), 7))
    (root / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(BenchError, match="holds the label 7, and there are 3 classes"):
        open_data(f"segfolder:{root}").train.check()
    with pytest.raises(BenchError, match=r"names 3 classes, and \?classes=4"):
        open_data(f"segfolder:{root}?classes=4")
    with pytest.raises(BenchError, match=r"'\?class=4' says nothing here"):
        open_data(f"segfolder:{root}?class=4")
    Image.new("RGB", (4, 3)).save(root / "masks" / "train" / "a.png")
    with pytest.raises(BenchError, match=r"has colours \(RGB\)"):
        open_data(f"segfolder:{root}").train.check()
    (root / "masks" / "train" / "a.png").write_bytes(b"no image")
    with pytest.raises(BenchError, match="cannot be read"):
        open_data(f"segfolder:{root}").train.check()


def test_images_and_masks_come_in_pairs(tmp_path):
    root = one(tmp_path / "a")
    extra = root / "images" / "train" / "b.png"
    Image.new("RGB", (4, 3)).save(extra)
    with pytest.raises(BenchError, match=r"1 of 2 in train have no mask, first images/train/b.png"):
        open_data(f"segfolder:{root}")
    extra.rename(root / "masks" / "train" / "c.png")
    with pytest.raises(BenchError, match=r"1 of 2 in train have no image, first masks/train/c.png"):
        open_data(f"segfolder:{root}")
    (root / "masks" / "train" / "c.png").rename(root / "images" / "train" / "a.png")
    with pytest.raises(BenchError, match="have one stem"):
        open_data(f"segfolder:{root}")
    for file in (root / "images" / "train").iterdir():
        file.unlink()
    with pytest.raises(BenchError, match="the split is empty"):
        open_data(f"segfolder:{root}")
    with pytest.raises(BenchError, match="give both splits"):
        open_data(f"segfolder:{tmp_path}")


def test_ade20k_drops_label_0(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    root = tmp_path / "ade20k" / "ADEChallengeData2016"
    for split in ("training", "validation"):
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations" / split).mkdir(parents=True)
        Image.new("RGB", (3, 1)).save(root / "images" / split / "ADE_1.jpg")
        Image.fromarray(np.array([[0, 1, 150]], dtype=np.uint8)).save(root / "annotations" / split / "ADE_1.png")
    train, val = open_data("ade20k")
    assert (train.split, val.split, train.name, len(train.classes)) == ("training", "validation", "ade20k", 150)
    assert val.mask(0).tolist() == [[-1, 0, 149]]
    assert open_data(f"ade20k:{root}").test.fingerprint == val.fingerprint
