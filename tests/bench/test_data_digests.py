"""The memory of content digests: right, cheap, and harmless when damaged or impossible to write."""

import hashlib
import os

import pytest
from datahelp import put, samples, tar

from bench.cache import cache_root
from bench.data import digests
from bench.data.digests import file_digests
from bench.data.opening import open_data
from bench.errors import BenchError


@pytest.fixture
def files(tmp_path):
    names = [f"f{i:03d}" for i in range(600)]
    for name in names:
        put(tmp_path / name, name.encode() * 50)
    return tmp_path, names


def expected(root, names):
    return [hashlib.sha256((root / name).read_bytes()).digest() for name in names]


def test_equals_sha256_in_order(files):
    root, names = files
    assert list(file_digests(root, names)) == expected(root, names)
    assert list(file_digests(root, names[::-1])) == expected(root, names[::-1])


def test_the_second_time_reads_only_what_changed(files, monkeypatch):
    root, names = files
    list(file_digests(root, names))
    read = []
    real = digests._digest
    monkeypatch.setattr(digests, "_digest", lambda stream: (read.append(stream.name), real(stream))[1])
    list(file_digests(root, names))
    assert read == []
    put(root / "f300", b"changed")
    assert list(file_digests(root, names)) == expected(root, names)
    assert read == [str(root / "f300")]


def test_same_size_other_time_is_read_again(files):
    root, names = files
    list(file_digests(root, names))
    put(root / "f000", b"X" + (root / "f000").read_bytes()[1:])
    os.utime(root / "f000", ns=(5, 5))
    assert list(file_digests(root, names)) == expected(root, names)


def test_reading_again_can_be_forced(files, monkeypatch):
    root, names = files
    list(file_digests(root, names))
    stat = (root / "f000").stat()
    put(root / "f000", b"X" + (root / "f000").read_bytes()[1:])
    os.utime(root / "f000", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert list(file_digests(root, names)) != expected(root, names)
    monkeypatch.setenv("BENCH_REHASH", "1")
    assert list(file_digests(root, names)) == expected(root, names)
    monkeypatch.delenv("BENCH_REHASH")
    assert list(file_digests(root, names)) == expected(root, names)


@pytest.mark.parametrize(
    "damage",
    [lambda c: b"", lambda c: c[:-1], lambda c: c[:40] + b"\0" + c[41:], lambda c: c + b"\0", lambda c: b"x" * 99],
)
def test_a_damaged_memory_is_made_again(files, damage):
    root, names = files
    list(file_digests(root, names))
    (memory,) = (cache_root() / "fingerprints").iterdir()
    memory.write_bytes(damage(memory.read_bytes()))
    assert list(file_digests(root, names)) == expected(root, names)


def test_an_unwritable_memory_costs_time_only(files, monkeypatch):
    root, names = files
    put(root / "a-file", b"")
    monkeypatch.setenv("BENCH_CACHE", str(root / "a-file" / "cache"))
    assert list(file_digests(root, names)) == expected(root, names)
    tar(root / "set" / "train.tar", samples(0, 0, 4))
    tar(root / "set" / "val.tar", samples(9, 0, 4))
    assert open_data(f"webdataset:{root / 'set'}").train.fingerprint.startswith("sha256:")


def test_a_file_that_is_gone_is_named(files):
    root, names = files
    (root / "f100").unlink()
    with pytest.raises(BenchError, match="f100 cannot be read"):
        list(file_digests(root, names))


def test_samples_inside_files_are_read_once(tmp_path, monkeypatch):
    from bench.data.webdataset import TarDataset

    tar(tmp_path / "train.tar", samples(0, 0, 4))
    tar(tmp_path / "val.tar", samples(9, 0, 4))
    first = open_data(f"webdataset:{tmp_path}").train.fingerprint
    with monkeypatch.context() as m:
        m.setattr(TarDataset, "_bytes", lambda *a: pytest.fail("read again"))
        assert open_data(f"webdataset:{tmp_path}").train.fingerprint == first
    for memory in (cache_root() / "fingerprints").iterdir():
        memory.write_bytes(memory.read_bytes()[:50])
    assert open_data(f"webdataset:{tmp_path}").train.fingerprint == first
