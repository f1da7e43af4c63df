"""IDX files, whole and damaged, and the bundled part of Fashion-MNIST against its source."""

import gzip
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from datahelp import idx, write_idx

from bench.data import idx as reader
from bench.data.opening import open_data
from bench.errors import BenchError

SOURCE = Path("/usr/share/datasets/fashion-mnist")
needs_source = pytest.mark.skipif(not SOURCE.is_dir(), reason="the package dataset-fashion-mnist is not installed")


@pytest.mark.parametrize("packed", [True, False])
def test_reads_both_forms(tmp_path, packed):
    write_idx(tmp_path, packed=packed)
    train, test = open_data(f"fashion-mnist:{tmp_path}")
    assert (len(train), len(test)) == (12, 6)
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    expected = np.random.default_rng(12).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    assert np.array_equal(np.asarray(train.image(3))[:, :, 1], expected[3])
    assert train.classes[9] == "Ankle boot"


def test_packing_does_not_change_the_fingerprint(tmp_path):
    write_idx(tmp_path / "a", packed=True)
    write_idx(tmp_path / "b", packed=False)
    prints = {open_data(f"fashion-mnist:{tmp_path / name}").train.fingerprint for name in "ab"}
    assert len(prints) == 1


def damaged(name):
    whole = idx(np.zeros((4, 28, 28), dtype=np.uint8))
    return {
        "truncated": whole[:-5],
        "longer": whole + b"\0",
        "magic": b"\0\0\x0d\x03" + whole[4:],
        "dimensions": idx(np.zeros((4, 28), dtype=np.uint8)),
        "empty": b"",
        "stub": whole[:9],
        "huge": whole[:4] + b"\xff" * 12 + whole[16:],
        "torn gzip": gzip.compress(whole)[:-12],
        "bad gzip": b"\x1f\x8b" + b"\x08nothing of the kind" * 4,
    }[name]


@pytest.mark.parametrize(
    "name", ["truncated", "longer", "magic", "dimensions", "empty", "stub", "huge", "torn gzip", "bad gzip"]
)
def test_damaged_files_are_refused(tmp_path, name):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damaged(name))
    with pytest.raises(BenchError, match="train-images-idx3-ubyte") as caught:
        open_data(f"fashion-mnist:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_counts_and_labels_must_agree(tmp_path):
    write_idx(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(idx(np.zeros(11, dtype=np.uint8)))
    with pytest.raises(BenchError, match="12 images but 11 labels"):
        open_data(f"fashion-mnist:{tmp_path}")
    labels.write_bytes(idx(np.full(12, 10, dtype=np.uint8)))
    with pytest.raises(BenchError, match="the label 10, but there are 10 classes"):
        open_data(f"fashion-mnist:{tmp_path}")
    labels.unlink()
    with pytest.raises(BenchError, match="lacks train-labels-idx1-ubyte.gz"):
        open_data(f"fashion-mnist:{tmp_path}")


def test_demo_is_balanced_small_and_fast():
    start = time.perf_counter()
    train, test = open_data("demo")
    assert time.perf_counter() - start < 5
    assert np.bincount(train.labels).tolist() == [200] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.image(0).size == (28, 28)
    assert train.image(0).mode == "RGB"
    assert train.classes == test.classes == reader.CLASSES
    folder = files("bench.data").joinpath("demo")
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) <= 1_500_000
    licence = folder.joinpath("LICENSE").read_text()
    assert "MIT" in licence
    assert "Zalando" in licence
    # The default order must not let a cut of the set lose a class.
    assert train.labels[:100].tolist() != [0] * 100


def test_one_reader_of_demo_does_nothing_to_the_next():
    first = open_data("demo").train
    before = first.fingerprint, first.labels.copy()
    first.labels[:] = 0
    np.asarray(first._pixels)[:] = 0
    second = open_data("demo").train
    assert second.fingerprint == before[0]
    assert np.array_equal(second.labels, before[1])


def test_demo_takes_no_path():
    with pytest.raises(BenchError, match="takes no path"):
        open_data("demo:somewhere")


@needs_source
def test_demo_equals_its_source():
    from bench.data.demo_images import open_demo

    for part, whole in zip(open_demo(""), reader.open_fashion_mnist(str(SOURCE)), strict=True):
        chosen = np.sort(np.concatenate([np.flatnonzero(whole.labels == c)[: len(part) // 10] for c in range(10)]))
        assert np.array_equal(part.labels, whole.labels[chosen])
        assert all(part.image(i).tobytes() == whole.image(int(chosen[i])).tobytes() for i in range(len(part)))


@needs_source
def test_the_whole_set():
    train, test = open_data(f"fashion-mnist:{SOURCE}")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert np.bincount(train.labels).tolist() == [6_000] * 10
    assert train.labels[:5].tolist() == [9, 0, 0, 3, 0]


@needs_source
def test_the_script_makes_the_same_file_again(tmp_path):
    root = Path(__file__).resolve().parents[2]
    code = (
        "import runpy, pathlib, sys; sys.argv = ['x', sys.argv[1], sys.argv[2]]\n"
        f"import bench.data; m = runpy.run_path({str(root / 'scripts' / 'make_demo_data.py')!r})\n"
        "m['main'].__globals__['TARGET'] = pathlib.Path(sys.argv[2]); m['main']()"
    )
    made = tmp_path / "images.npz"
    subprocess.run([sys.executable, "-c", code, str(SOURCE), str(made)], cwd=root, check=True, capture_output=True)
    assert made.read_bytes() == files("bench.data").joinpath("demo", "images.npz").read_bytes()
