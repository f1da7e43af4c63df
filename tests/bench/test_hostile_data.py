"""Data made to confuse: numbers beyond all measure, patterns without end, heads that lie. One sentence each."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.idx import read_idx
from bench.data.opening import open_data
from bench.data.webdataset import expanded
from bench.errors import BenchError


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def shards(root: Path, extension: str, *labels: bytes) -> str:
    root.mkdir(exist_ok=True)
    for split in ("train", "val"):
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            for i, label in enumerate(labels):
                for suffix, content in (("png", picture(i)), (extension, label)):
                    info = tarfile.TarInfo(f"{i}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return f"webdataset:{root}"


@pytest.mark.parametrize(
    ("extension", "label", "said"),
    [
        ("cls", str(2**63).encode(), "beyond 64 bits"),
        ("json", b'{"label": 99999999999999999999}', "beyond 64 bits"),
        ("json", b"[" * 100_000, "has no label"),
        ("json", b"9" * 6000, "has no label"),
        ("cls", b"x" * 100_000, "mixes labels"),
    ],
)
def test_labels_of_shards(tmp_path: Path, extension: str, label: bytes, said: str) -> None:
    with pytest.raises(BenchError, match=said) as refusal:
        open_data(shards(tmp_path, extension, label, b"1"))
    assert len(str(refusal.value)) < 500


def test_labels_that_only_python_takes_for_numbers_are_names(tmp_path: Path) -> None:
    splits = open_data(shards(tmp_path, "cls", b"1_0", "٣".encode()))
    assert splits.train.classes == ("1_0", "٣")


@pytest.mark.parametrize("kind", ["bytes", "folder"])
def test_class_names_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    spec = shards(tmp_path, "cls", b"0", b"1")
    if kind == "bytes":
        (tmp_path / "classnames.txt").write_bytes(b"\xff\xfe\n")
        with pytest.raises(BenchError, match=r"classnames\.txt cannot be read"):
            open_data(spec)
    else:
        os.mkfifo(tmp_path / "classnames.txt")
        assert open_data(spec).train.classes == ("0", "1")


@pytest.mark.parametrize("pattern", ["/x/{0..99999999999}.tar", "/x/" + "{a,b}" * 30, "/x/" + "{a,b}" * 300])
def test_patterns_without_end(pattern: str) -> None:
    with pytest.raises(BenchError, match="more than 100,000 shards"):
        expanded(pattern)


def test_patterns_with_an_end() -> None:
    assert expanded("{a,b}{9..11}-{a,a}") == [f"{x}{n}-a" for x in "ab" for n in (9, 10, 11)]
    assert expanded("{a}b{") == ["{a}b{"]


def idx(*shape: int, body: bytes | None = None) -> bytes:
    head = bytes([0, 0, 8, len(shape)]) + b"".join(struct.pack(">I", n) for n in shape)
    return head + (bytes(int(np.prod(shape))) if body is None else body)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an IDX file"),
        (b"\x1f\x8bxxxx", "cannot be read"),
        (gzip.compress(idx(3, 4, 4))[:-9], "cannot be read"),
        (gzip.compress(b""), "not an IDX file"),
        (idx(3, 0, 4), "images without pixels"),
        (idx(2**31, 2**31, 2**31, body=b""), "more than 2 GiB"),
        (gzip.compress(idx(2**31, 2**31, 2**31, body=b"")), "more than 2 GiB"),
        (idx(3, 4, 4) + b"x", "but holds more"),
        (idx(3, 4, 4)[:-1], "but holds only 47"),
    ],
)
def test_idx_files_that_lie(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=said):
        read_idx(path, ndim=3)


def test_an_idx_file_packed_or_not(tmp_path: Path) -> None:
    body = np.arange(48, dtype=np.uint8).tobytes()
    for content in (idx(3, 4, 4, body=body), gzip.compress(idx(3, 4, 4, body=body))):
        (tmp_path / "a").write_bytes(content)
        assert read_idx(tmp_path / "a", ndim=3).ravel().tolist() == list(range(48))


@pytest.mark.parametrize(
    ("labels", "choices", "said"),
    [
        ("beyond", "", "beyond 64 bits"),
        ("sound", "?train=test&test=test", "in the same split 'test'"),
    ],
)
def test_parquet(tmp_path: Path, labels: str, choices: str, said: str) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    numbers = pa.array([2**63 + i if labels == "beyond" else i for i in range(2)], pa.uint64())
    images = pa.array([{"bytes": picture(i), "path": None} for i in range(2)])
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": images, "label": numbers}), tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(BenchError, match=said):
        open_data(f"hf:{tmp_path}{choices}")


@pytest.mark.parametrize("place", ["images/train/0.jpg", "masks/train/0.png"])
def test_a_pipe_among_masks(tmp_path: Path, place: str) -> None:
    for split in ("train", "val"):
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            (tmp_path / kind / split).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / kind / split / f"0.{suffix}")
    (tmp_path / place).unlink()
    os.mkfifo(tmp_path / place)
    with pytest.raises(BenchError, match="is a pipe"):
        open_data(f"segfolder:{tmp_path}").train.mask(0)  # type: ignore[attr-defined]


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    main = tmp_path / "ImageSets/Main"
    main.mkdir(parents=True)
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir()
    for split in ("train", "val", "trainval", "test"):
        (main / f"{split}.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(BenchError, match="not UTF-8"):
        open_data(f"voc:{tmp_path}")


def test_a_pipe_of_few_shot_lists(tmp_path: Path) -> None:
    from bench.featureset import ArrayFeatureSet
    from suites.fewshot import listed

    train = ArrayFeatureSet({}, np.arange(2), dataset="d", split="train", fingerprint="f")
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(BenchError, match="is a pipe"):
        listed(train, tmp_path / "list.txt")


@pytest.mark.parametrize("inside", [True, False])
def test_an_arrow_pipe(tmp_path: Path, inside: bool) -> None:
    os.mkfifo(tmp_path / "train.arrow")
    with pytest.raises(BenchError, match="is a pipe"):
        open_data(f"hf:{tmp_path if inside else tmp_path / 'train.arrow'}")
