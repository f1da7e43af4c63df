"""What every reader promises, on a small set in its own format."""

import gzip
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datahelp import encoded, put, write_dtd, write_idx, write_imagefolder, write_parquet, write_shards
from PIL import Image

from bench.data.opening import limited, open_data
from bench.dataset import Dataset, DecodeError

ROOT = Path(__file__).resolve().parents[2]


def write_mnist(root: Path) -> None:
    write_idx(root / "MNIST" / "raw", packed=False)


def write_saved(folder: Path) -> None:
    import datasets

    write_parquet(folder.with_name("parquet"))
    kinds = {split: str(folder.with_name("parquet") / f"{split}-00000-of-00001.parquet") for split in ("train", "test")}
    datasets.DatasetDict({s: datasets.Dataset.from_parquet(f) for s, f in kinds.items()}).save_to_disk(str(folder))


SETS = {
    "fashion-mnist": write_idx,
    "imagefolder": write_imagefolder,
    "torchvision:DTD": write_dtd,
    "torchvision:MNIST": write_mnist,
    "hf": write_parquet,
    "hf:saved": write_saved,
    "webdataset": write_shards,
}


def spec(kind: str, folder: Path) -> str:
    return f"{kind.removesuffix(':saved')}:{folder}"


@pytest.fixture(params=list(SETS), scope="module")
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "data"
    SETS[kind](folder)
    return folder


@pytest.fixture
def splits(kind, folder):
    return open_data(spec(kind, folder))


def test_sizes_labels_and_ids(splits):
    assert (len(splits.train), len(splits.test)) == (12, 6)
    for split in splits:
        assert isinstance(split, Dataset)
        assert split.labels.dtype == np.int64
        assert split.labels.shape == (len(split),)
        assert set(split.labels.tolist()) <= set(split.class_ids)
        assert len(split.classes) == len(split.class_ids)
        assert len(split.ids) == len(set(split.ids)) == len(split)
        assert all(isinstance(name, str) for name in split.ids)
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", split.fingerprint)
    assert splits.train.class_ids == splits.test.class_ids
    assert splits.train.fingerprint != splits.test.fingerprint
    assert splits.train.name == splits.test.name
    assert splits.train.split != splits.test.split


def test_images_are_rgb(splits):
    for split in splits:
        image = split.image(len(split) - 1)
        assert isinstance(image, Image.Image)
        assert image.mode == "RGB"
        assert image.size in {(8, 8), (28, 28)}
    assert splits.train.image(0).tobytes() != splits.train.image(1).tobytes()


def test_pickled_copies_are_cheap_and_equal(splits):
    for split in (*splits, limited(splits.train, 5)):
        packed = pickle.dumps(split)
        assert len(packed) < 30_000
        again = pickle.loads(packed)
        assert list(again.ids) == list(split.ids)
        assert np.array_equal(again.labels, split.labels)
        assert again.fingerprint == split.fingerprint
        assert again.image(2).tobytes() == split.image(2).tobytes()


def test_pickles_after_use(splits):
    splits.train.image(0)
    assert pickle.loads(pickle.dumps(splits.train)).image(1).size == splits.train.image(1).size


def prints(kind: str, folder: Path) -> list[str]:
    return [split.fingerprint for split in open_data(spec(kind, folder))]


def test_a_copy_elsewhere_has_the_same_fingerprint(kind, folder, splits, tmp_path):
    copy = tmp_path / "else where é"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    assert prints(kind, copy) == [split.fingerprint for split in splits]
    assert list(open_data(spec(kind, copy)).train.ids) == list(splits.train.ids)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if "torchvision" in k else k for k in SETS], scope="module"
)
def test_another_process_finds_the_same_fingerprint(kind, folder, splits, tmp_path):
    code = (
        "import sys; from bench.data.opening import open_data; print(*(s.fingerprint for s in open_data(sys.argv[1])))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, spec(kind, folder)],
        cwd=ROOT,
        env={**os.environ, "BENCH_CACHE": str(tmp_path), "PYTHONHASHSEED": "5"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == [split.fingerprint for split in splits]


def test_remembered_fingerprints_are_the_same(kind, folder):
    assert prints(kind, folder) == prints(kind, folder)


def rewrite_parquet(folder: Path, column: str) -> None:
    import datasets

    file = folder / "train-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(folder.with_name("cache")))
    kinds = rows.features
    rows = rows.cast_column("image", datasets.Image(decode=False)).to_list()
    rows[5][column] = {"bytes": encoded(999), "path": "5.png"} if column == "image" else 0
    datasets.Dataset.from_list(rows, features=kinds).to_parquet(str(file))


def change_image(kind: str, folder: Path) -> None:
    if kind == "fashion-mnist":
        path = folder / "train-images-idx3-ubyte.gz"
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[-1] ^= 1
        path.write_bytes(gzip.compress(content))
    elif kind == "torchvision:MNIST":
        path = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif kind == "hf":
        rewrite_parquet(folder, "image")
    elif kind == "webdataset":
        path = folder / "train-001.tar"
        path.write_bytes(path.read_bytes().replace(encoded(8), encoded(8)[:-20] + bytes(20)))
    else:
        path = sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".jpg"))[0]
        if "test" in path.parts:
            path = sorted((folder / "train").rglob("*.png"))[0]
        content = bytearray(path.read_bytes())
        content[-30] ^= 1
        path.write_bytes(content)


def change_label(kind: str, folder: Path) -> None:
    if kind == "fashion-mnist":
        path = folder / "train-labels-idx1-ubyte.gz"
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[-1] = 7
        path.write_bytes(gzip.compress(content))
    elif kind == "torchvision:MNIST":
        path = folder / "MNIST" / "raw" / "train-labels-idx1-ubyte"
        path.write_bytes(path.read_bytes()[:-1] + b"\7")
    elif kind == "hf":
        rewrite_parquet(folder, "label")
    elif kind == "webdataset":
        path = folder / "train-001.tar"
        content = path.read_bytes()
        at = content.index(b"s0008.cls") + 512
        path.write_bytes(content[:at] + b"1" + content[at + 1 :])
    elif kind == "torchvision:DTD":
        (folder / "dtd/dtd/images/banded/0000.jpg").rename(folder / "dtd/dtd/images/dotted/0000.jpg")
        path = folder / "dtd/dtd/labels/train1.txt"
        path.write_text(path.read_text().replace("banded/0000", "dotted/0000"))
    else:
        (folder / "train/cat/train00.png").rename(folder / "train/dog/train00.png")


@pytest.mark.parametrize("change", [change_image, change_label])
@pytest.mark.parametrize("kind", [k for k in SETS if k != "hf:saved"], scope="module")
def test_one_change_shows(kind, folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = prints(kind, copy)
    change(kind, copy)
    after = prints(kind, copy)
    assert after[0] != before[0]
    assert after[1] == before[1]


DAMAGED = {
    "imagefolder": "train/cat/train00.png",
    "torchvision:DTD": "dtd/dtd/images/banded/0000.jpg",
}
"""The first image of the sets whose images are files of their own."""


@pytest.mark.parametrize("content", [b"", b"not an image", encoded(0)[:60]], ids=["empty", "text", "truncated"])
@pytest.mark.parametrize("kind", list(DAMAGED), scope="module")
def test_a_damaged_image_is_named_and_the_others_go_on(kind, folder, tmp_path, content):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    put(copy / DAMAGED[kind], content)
    train = open_data(spec(kind, copy)).train
    with pytest.raises(DecodeError) as caught:
        train.image(0)
    assert caught.value.path == str(copy / DAMAGED[kind])
    assert train.image(1).mode == "RGB"
    assert train.fingerprint.startswith("sha256:")
