"""Tar shards: where they are found, how samples and labels are told, and damage."""

import gzip
import json
import os
import tarfile

import numpy as np
import pytest
from datahelp import encoded, pixels, put, samples, tar, write_shards

from bench.cache import cache_root
from bench.data.opening import open_data
from bench.data.tarindex import members
from bench.data.webdataset import expanded
from bench.dataset import DecodeError
from bench.errors import BenchError


def opened(path, tail=""):
    return open_data(f"webdataset:{path}{tail}")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("train-{000..003}.tar", ["train-000.tar", "train-001.tar", "train-002.tar", "train-003.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{train,val}-{0..1}", ["train-0", "train-1", "val-0", "val-1"]),
        ("plain{x}.tar", ["plain{x}.tar"]),
    ],
)
def test_braces(pattern, found):
    assert expanded(pattern) == found


def test_folder_pattern_and_glob_open_the_same_set(tmp_path):
    write_shards(tmp_path)
    prints = [s.fingerprint for s in opened(tmp_path)]
    assert [s.fingerprint for s in opened(tmp_path, "/*.tar")] == prints
    assert [s.fingerprint for s in opened(tmp_path, "/{train-{000..001},test-000}.tar")] == prints
    assert opened(tmp_path).test.split == "test"
    assert opened(tmp_path).train.ids[7] == "train-001.tar/s0007"


def test_folders_by_split_with_class_names(tmp_path):
    for split, n in (("train", 6), ("test", 3)):
        for shard in range(2):
            tar(tmp_path / split / f"{shard}.tar", samples(shard * 10, shard * n, (shard + 1) * n))
    put(tmp_path / "classnames.txt", b"tench\ngoldfish\ngreat white shark\nhammerhead\n")
    train, test = opened(tmp_path)
    assert (len(train), len(test)) == (12, 6)
    assert train.classes == ("tench", "goldfish", "great white shark", "hammerhead")
    assert train.class_ids == (0, 1, 2, 3)
    assert train.ids[0] == "train/0.tar/s0000"


def test_one_kind_of_shards_is_held_out_by_name(tmp_path):
    tar(tmp_path / "a-0.tar", samples(0, 0, 60))
    train, test = opened(tmp_path / "a-0.tar")
    assert test.split == "holdout"
    assert len(train) + len(test) == 60
    assert 3 <= len(test) <= 22
    assert not set(train.ids) & set(test.ids)
    assert train.fingerprint != test.fingerprint
    # A hold-out of the same samples in other shards is the same one.
    tar(tmp_path / "other" / "b-0.tar", samples(0, 0, 20))
    tar(tmp_path / "other" / "b-1.tar", samples(0, 20, 60))
    assert opened(tmp_path / "other").test.fingerprint == test.fingerprint


def test_labels_by_json_and_by_name(tmp_path):
    def sample(i, label):
        return [(f"{i}.jpg", encoded(i, "JPEG")), (f"{i}.json", json.dumps(label).encode()), (f"{i}.txt", b"a caption")]

    tar(tmp_path / "a" / "train.tar", sample(0, {"label": 7, "w": 3}) + sample(1, {"cls": 5, "w": 4}) + sample(2, 7))
    tar(tmp_path / "a" / "val.tar", sample(3, {"label": 9, "w": 4}))
    train, val = opened(tmp_path / "a")
    assert train.labels.tolist() == [7, 5, 7]
    assert train.class_ids == val.class_ids == (5, 7, 9)
    assert train.classes == ("5", "7", "9")
    tar(tmp_path / "b" / "train.tar", sample(0, {"label": 7, "sex": "m"}) + sample(1, {"label": 5, "sex": "f"}))
    tar(tmp_path / "b" / "val.tar", sample(3, {"label": 9, "sex": "m"}))
    train, val = opened(tmp_path / "b", "?label=sex")
    assert train.classes == ("f", "m")
    assert (train.labels.tolist(), val.labels.tolist()) == ([1, 0], [1])


def test_names_with_folders_and_dots(tmp_path):
    files = [("./n01/a.b.PNG", encoded(1)), ("./n01/a.b.cls", b"0\n"), ("./n02/a.PNG", encoded(2)), ("n02/a.cls", b"1")]
    files += [("n02/._a.png", b"rubbish of a file system"), ("n02/notes.md", b"")]
    tar(tmp_path / "train.tar", [(n.replace("a.b.", "ab."), c) for n, c in files])
    tar(tmp_path / "val.tar", samples(5, 0, 2))
    assert opened(tmp_path).train.ids == ["train.tar/n01/ab", "train.tar/n02/a"]


def test_long_names(tmp_path):
    name = "folder/" * 30 + "ü" * 60
    tar(tmp_path / "train.tar", [(f"{name}.png", encoded(1)), (f"{name}.cls", b"0")])
    tar(tmp_path / "val.tar", samples(5, 0, 2))
    train = opened(tmp_path).train
    assert train.ids == [f"train.tar/{name}"]
    assert train.image(0).tobytes() == pixels(1).tobytes()


def with_bytes(path, change):
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content) or content)


def cut_at_a_file(path):
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    with_bytes(path, lambda content: content[: last.offset])


DAMAGE = {
    "empty": (lambda p: p.write_bytes(b""), "no tar file, or is damaged"),
    "text": (lambda p: p.write_bytes(b"no tar" * 400), "no tar file, or is damaged"),
    "cut in a file": (lambda p: with_bytes(p, lambda c: c[:1400]), "cut off"),
    "cut in a head": (lambda p: with_bytes(p, lambda c: c[:1300]), "cut off"),
    "cut between files": (cut_at_a_file, "the end mark is missing"),
    "a damaged head": (
        lambda p: with_bytes(p, lambda c: c.__setitem__(slice(1024, 1030), b"\xff" * 6)),
        "damaged at byte",
    ),
    "gzip": (lambda p: p.write_bytes(gzip.compress(p.read_bytes())), "is compressed"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "is a folder, not a file"),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_damaged_shards_are_refused(tmp_path, name):
    write_shards(tmp_path)
    change, says = DAMAGE[name]
    change(tmp_path / "train-001.tar")
    with pytest.raises(BenchError, match=says) as caught:
        opened(tmp_path)
    assert "train-001.tar" in str(caught.value)
    assert "\n" not in str(caught.value)


def refused(tmp_path, files):
    tar(tmp_path / "train.tar", samples(0, 0, 2) + files)
    tar(tmp_path / "val.tar", samples(5, 0, 2))
    with pytest.raises(BenchError) as caught:
        opened(tmp_path)
    return str(caught.value)


def test_samples_that_are_not_whole_are_refused(tmp_path):
    assert "'x' in" in refused(tmp_path, [("x.cls", b"1")])
    assert "has no image" in refused(tmp_path, [("x.cls", b"1")])
    assert "has no label" in refused(tmp_path, [("x.png", encoded(1))])
    assert "has no label" in refused(tmp_path, [("x.png", encoded(1)), ("x.json", b'{"score": 1}')])
    assert "has no label" in refused(tmp_path, [("x.png", encoded(1)), ("x.json", b"{torn")])
    assert "has no label" in refused(tmp_path, [("x.png", encoded(1)), ("x.cls", b"")])
    assert "several images" in refused(tmp_path, [("x.a.png", encoded(1)), ("x.b.png", encoded(2)), ("x.cls", b"1")])
    assert "twice" in refused(tmp_path, [("x.png", encoded(1)), ("x.png", encoded(1)), ("x.cls", b"1")])
    assert "mixes labels" in refused(tmp_path, [("x.png", encoded(1)), ("x.cls", b"cat")])


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        ("/none.tar", "is not there"),
        ("", "holds no"),
        ("/none-{0..2}.tar", "none-0.tar is not there"),
        ("?lable=x", "nearest: label"),
    ],
)
def test_missing_shards_are_refused(tmp_path, tail, says):
    with pytest.raises(BenchError, match=says):
        opened(tmp_path, tail)


def test_a_mixture_of_splits_is_refused(tmp_path):
    tar(tmp_path / "train-0.tar", samples(0, 0, 2))
    tar(tmp_path / "extra-0.tar", samples(0, 0, 2))
    with pytest.raises(BenchError, match="of no split, train|of train, no split"):
        opened(tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    tar(tmp_path / "train.tar", [*samples(0, 0, 2), ("x.jpg", encoded(3, "JPEG", 64)[:300]), ("x.cls", b"1")])
    tar(tmp_path / "val.tar", samples(5, 0, 2))
    train = opened(tmp_path).train
    with pytest.raises(DecodeError, match="Truncated|truncated") as caught:
        train.image(2)
    assert caught.value.path == str(tmp_path / "train.tar" / "x")
    assert train.image(1).size == (8, 8)
    with_bytes(tmp_path / "train.tar", lambda c: c[:600])
    with pytest.raises(DecodeError, match="become shorter"):
        train.image(0)


def test_the_index_is_remembered_until_the_shard_changes(tmp_path, monkeypatch):
    write_shards(tmp_path)
    shard = tmp_path / "train-000.tar"
    first = members(shard)
    with monkeypatch.context() as m:
        m.setattr(tarfile, "open", lambda *a, **k: pytest.fail("read again"))
        assert members(shard) == first
    tar(shard, samples(0, 0, 6))
    assert len(members(shard)) == 12
    tar(shard, samples(0, 0, 5))
    os.utime(shard, ns=(1, 1))
    for file in (cache_root() / "webdataset").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert len(members(shard)) == 10


def test_the_index_agrees_with_tarfile(tmp_path):
    shard = tar(tmp_path / "a.tar", samples(0, 0, 9))
    with tarfile.open(shard) as archive:
        whole = {info.name: archive.extractfile(info).read() for info in archive}
    content = shard.read_bytes()
    assert {m.name: content[m.offset : m.offset + m.size] for m in members(shard)} == whole
    assert np.unique([m.offset for m in members(shard)]).size == 18
