"""torchvision's sets in the layouts of their archives, generated small."""

import os
import pickle

import numpy as np
import pytest
from datahelp import encoded, pixels, put, write_dtd, write_idx

from bench.data.opening import open_data
from bench.dataset import DecodeError
from bench.errors import BenchError


def write_cifar(root, monkeypatch, name="cifar-10-batches-py"):
    from torchvision.datasets import CIFAR10

    base = root / name
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for number, file in enumerate(files):
        data = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        (base / file).write_bytes(pickle.dumps({"data": data, "labels": [(number + i) % 10 for i in range(4)]}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    # The published files' checksums are torchvision's affair; ours are small stand-ins.
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
    return rng


def test_cifar(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    train, test = open_data(f"torchvision:CIFAR10:{tmp_path}")
    assert (len(train), len(test)) == (20, 4)
    assert train.classes == tuple(f"c{i}" for i in range(10))
    first = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)[1].reshape(3, 32, 32)
    assert np.array_equal(np.asarray(train.image(1)), first.transpose(1, 2, 0))
    assert test.labels.tolist() == [5, 6, 7, 8]


def test_found_under_bench_data_in_either_place(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    write_idx(tmp_path / "data" / "MNIST" / "raw", packed=False)
    shared = open_data("torchvision:MNIST").train.fingerprint
    (tmp_path / "data" / "mnist").mkdir()
    (tmp_path / "data" / "MNIST").rename(tmp_path / "data" / "mnist" / "MNIST")
    assert open_data("torchvision:mnist").train.fingerprint == shared


def test_svhn_and_stl10_keep_channels_first(tmp_path, monkeypatch):
    import scipy.io

    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *a: True, raising=False)
    monkeypatch.setattr("torchvision.datasets.SVHN._check_integrity", lambda self: True)
    for split, n in (("train", 5), ("test", 3)):
        images = np.stack([pixels(i, 32) for i in range(n)], axis=-1)
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": np.array([[10, 1, 2, 10, 9]]).T[:n]})
    train, _ = open_data(f"torchvision:SVHN:{tmp_path}")
    assert train.labels.tolist() == [0, 1, 2, 0, 9]
    assert train.class_ids == (0, 1, 2, 9)
    assert np.array_equal(np.asarray(train.image(4)), pixels(4, 32))
    monkeypatch.setattr("torchvision.datasets.STL10._check_integrity", lambda self: True)
    base = tmp_path / "stl10_binary"
    for split, n in (("train", 5), ("test", 3)):
        columns = np.stack([pixels(i, 96) for i in range(n)]).transpose(0, 3, 2, 1)
        put(base / f"{split}_X.bin", columns.tobytes())
        put(base / f"{split}_y.bin", (np.arange(n) % 10 + 1).astype(np.uint8).tobytes())
    put(base / "class_names.txt", "\n".join(f"c{i}" for i in range(10)).encode())
    train, test = open_data(f"torchvision:STL10:{tmp_path}")
    assert np.array_equal(np.asarray(train.image(2)), pixels(2, 96))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 3, 4], [0, 1, 2])


def test_textures_learn_from_train_and_val(tmp_path):
    write_dtd(tmp_path)
    train, test = open_data(f"torchvision:DTD:{tmp_path}")
    assert (train.split, test.split) == ("train+val", "test")
    assert list(train.ids) == sorted(train.ids)
    assert train.classes == ("banded", "dotted", "woven")
    assert all(train.classes[label] in name for label, name in zip(train.labels, train.ids, strict=True))


def test_a_set_without_splits_is_held_out_by_file_name(tmp_path):
    for i in range(60):
        put(tmp_path / "eurosat" / "2750" / ("Forest", "River")[i % 2] / f"x{i}.jpg", encoded(i, "JPEG"))
    train, test = open_data(f"torchvision:EuroSAT:{tmp_path}")
    assert test.split == "holdout"
    assert len(train) + len(test) == 60
    assert 3 <= len(test) <= 22
    assert train.classes == ("Forest", "River")


def test_a_relative_path_and_a_damaged_image(tmp_path, monkeypatch):
    write_dtd(tmp_path)
    put(tmp_path / "dtd/dtd/images/banded/0000.jpg", b"")
    monkeypatch.chdir(tmp_path.parent)
    train = open_data(f"torchvision:DTD:{os.path.relpath(tmp_path)}").train
    with pytest.raises(DecodeError, match="not an image"):
        train.image(0)


def test_tensors_of_faces(tmp_path, monkeypatch):
    from torchvision.datasets import FER2013

    def row(i):
        return f"{i % 7},{' '.join(str((i * 7 + k) % 256) for k in range(48 * 48))},{('Training', 'PublicTest')[i > 5]}"

    put(tmp_path / "fer2013" / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *map(row, range(8))]).encode())
    monkeypatch.setitem(FER2013._RESOURCES, "fer", ("fer2013.csv", None))
    train, test = open_data(f"torchvision:FER2013:{tmp_path}")
    assert (len(train), len(test)) == (6, 2)
    assert train.image(3).size == (48, 48)
    assert np.asarray(train.image(3))[0, :3, 0].tolist() == [21, 22, 23]
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert pickle.loads(pickle.dumps(train)).fingerprint == train.fingerprint


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("CIFAR11", r"no labelled image set 'CIFAR11'; nearest: CIFAR10"),
        ("CocoDetection", "no labelled image set 'CocoDetection'"),
        ("", "no labelled image set ''"),
        (
            "Food101:{0}",
            r"'torchvision:Food101' is not here \(looked in .*\): .*Dataset not found.*torchvision:Food101:PATH",
        ),
        ("Food101:{0}/none", r"looked in .*/none"),
        ("Food101", r"nowhere, for \$BENCH_DATA is not set"),
    ],
)
def test_refusals(tmp_path, monkeypatch, spec, says):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(BenchError, match=says) as caught:
        open_data(f"torchvision:{spec.format(tmp_path)}")
    assert "download" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_set_is_refused(tmp_path):
    write_dtd(tmp_path)
    (tmp_path / "dtd/dtd/labels/val1.txt").unlink()
    with pytest.raises(BenchError, match=r"val1\.txt"):
        open_data(f"torchvision:DTD:{tmp_path}")


def test_sets_with_many_labels_per_image_are_refused(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    put(base / "ImageSets/Main/train.txt", b"a\n")
    put(base / "ImageSets/Main/val.txt", b"a\n")
    put(base / "JPEGImages/a.jpg", encoded(1, "JPEG"))
    put(base / "Annotations/a.xml", b"<annotation><object><name>cat</name></object></annotation>")
    with pytest.raises(BenchError, match="does not give one class per image"):
        open_data(f"torchvision:VOCDetection:{tmp_path}")
