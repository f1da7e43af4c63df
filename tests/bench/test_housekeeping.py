"""What becomes of the stores: listed, verified, trimmed, removed, and nothing else touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from storehelp import Arrays, Tiny, damage, extracted, finished, process

from bench import housekeeping
from bench.errors import BenchError
from bench.housekeeping import clean, stores, sweep, trim
from bench.store import open_store

SMALL = {"batch": 4, "shard": 8}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_stores_are_listed_with_what_they_hold(cache):
    extracted(Arrays(20), **SMALL)
    extracted(Arrays(30, split="test"), precision="bf16", **SMALL)
    (only_test, only_train) = stores()
    assert (only_train.model, only_train.dataset, only_train.split, only_train.n) == ("tiny", "noise", "train", 20)
    assert only_train.complete
    assert only_train.features == "avg,logits,pooled"
    assert only_test.precision == "bf16"
    folder = cache / "features" / only_train.key
    assert only_train.bytes == sum(path.stat().st_size for path in folder.iterdir())
    (folder / "00001.safetensors").unlink()
    assert [info.complete for info in stores()] == [True, False]


def test_nothing_is_listed_where_nothing_is(cache):
    assert stores() == []
    assert "0 stores" in str(clean())
    assert not cache.exists()


@pytest.mark.parametrize(("format_", "word"), [(0, "an older"), (99, "a newer")])
def test_another_format_is_named_and_never_read(format_, word, cache):
    data = Arrays(20)
    folder = extracted(data, **SMALL).folders[0]
    document = json.loads((folder / "store.json").read_text())
    document["format"] = format_
    document["identity"]["format"] = format_
    (folder / "store.json").write_text(json.dumps(document))
    (info,) = stores()
    assert f"format {format_} of {word} bench" in info.note
    assert not info.complete
    assert open_store(folder) is None


def clean_in_a_process(cache: Path, **options) -> dict[str, object]:
    """`clean` by a process that uses no store."""
    place = cache.parent / "report.json"

    def work():
        report = clean(**options)
        place.write_text(json.dumps({**vars(report), "folder": "", "text": str(report)}))

    finished(work)
    return json.loads(place.read_text())


def test_clean_removes_everything_and_nothing_else(cache, tmp_path):
    finished(lambda: extracted(Arrays(20), **SMALL))
    finished(lambda: extracted(Arrays(20, split="test"), **SMALL))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "store.json").write_text("mine")
    (cache / "features" / "link").symlink_to(outside)
    (cache / "features" / ("0" * 32 + "-" + "0" * 8)).symlink_to(outside)
    (cache / "other").mkdir()
    (cache / "features" / "note.txt").write_text("mine")
    total = sum(info.bytes for info in stores())
    report = clean_in_a_process(cache)
    assert len(report["removed"]) == 2
    assert report["freed"] == total
    assert "2 stores removed" in report["text"]
    assert (outside / "store.json").read_text() == "mine"
    assert sorted(path.name for path in (cache / "features").iterdir()) == [
        "0" * 32 + "-" + "0" * 8,
        "link",
        "note.txt",
    ]
    assert stores() == []


def test_a_store_in_use_is_left_alone(cache):
    finished(lambda: extracted(Arrays(20, split="test"), **SMALL))
    slow = Arrays(64, delay=1000.0)
    with process(lambda: extracted(slow, **SMALL)):
        while len(stores()) < 2:
            time.sleep(0.01)
        time.sleep(0.2)
        report = clean_in_a_process(cache)
        assert len(report["removed"]) == len(report["in_use"]) == 1
        assert "in use by running processes" in report["text"]
        assert [info.split for info in stores()] == ["train"]


def test_features_that_this_process_still_reads_are_left_alone():
    got = extracted(Arrays(20), **SMALL)
    assert clean().in_use == [got.folders[0].name]
    assert got.features.array("pooled").shape == (20, 24)
    del got
    import gc

    gc.collect()
    assert len(clean().removed) == 1


def test_trimming_takes_the_least_recently_used(cache):
    for seed in range(4):
        finished(lambda seed=seed: extracted(Arrays(64), Tiny(seed), **SMALL))
    by_model = {seed: extracted(Arrays(64), Tiny(seed)).folders[0] for seed in range(4)}
    for age, seed in enumerate((2, 0, 3, 1)):
        when = time.time() - 1000 * (age + 1)
        for name in ("lock", "store.json"):
            os.utime(by_model[seed] / name, (when, when))
    size = stores()[0].bytes
    report = clean_in_a_process(cache, keep_gb=2.5 * size / 1e9)
    assert set(report["removed"]) == {by_model[3].name, by_model[1].name}
    assert {info.key for info in stores()} == {by_model[2].name, by_model[0].name}
    # Using a store makes it the most recent.
    finished(lambda: extracted(Arrays(64), Tiny(0)))
    assert stores()[0].key == by_model[0].name
    assert clean_in_a_process(cache, keep_gb=1.0)["removed"] == []


def test_a_quota_is_kept_by_removing_the_least_recently_used(cache, monkeypatch):
    for seed in range(3):
        finished(lambda seed=seed: extracted(Arrays(64), Tiny(seed), **SMALL))
        newest = stores()[0].key
    monkeypatch.setenv("BENCH_CACHE_GB", str(2.5 * stores()[0].bytes / 1e9))
    got = extracted(Arrays(64), Tiny(3), **SMALL)
    assert {info.key for info in stores()} == {got.folders[0].name, newest}
    monkeypatch.setenv("BENCH_CACHE_GB", "1e-9")
    assert extracted(Arrays(64), Tiny(3)).features.array("pooled").shape == (64, 24), "a store in use stays"
    monkeypatch.setenv("BENCH_CACHE_GB", "much")
    with pytest.raises(BenchError, match="BENCH_CACHE_GB=much is no number"):
        extracted(Arrays(64), Tiny(3))


def test_clean_verify_removes_damaged_shards_alone(cache):
    finished(lambda: extracted(Arrays(40), **SMALL))
    finished(lambda: extracted(Arrays(40, split="test"), **SMALL))
    bad = next(cache.rglob("00003.safetensors"))
    damage(bad, "data")
    report = clean(verify=True)
    assert report.damaged == {bad.parent.name: [3]}
    assert report.checked == 2
    assert report.removed == []
    assert "1 damaged shards removed" in str(report)
    assert len(list(cache.rglob("[0-9]*.safetensors"))) == 9
    assert clean(verify=True).damaged == {}


def test_unfinished_files_of_dead_processes_are_removed(cache):
    folder = extracted(Arrays(20), **SMALL).folders[0]
    import gc

    gc.collect()
    leftover = folder / ".partial-00007.safetensors.12345-abcdef01"
    grave = cache / "features" / ".partial-gone.123-removed"
    leftover.write_bytes(b"x")
    grave.mkdir()
    (grave / "00000.safetensors").write_bytes(b"x")
    assert clean(verify=True).leftovers == 2
    assert not leftover.exists()
    assert not grave.exists()


def test_unfinished_files_of_a_living_process_stay_until_they_are_old(cache):
    got = extracted(Arrays(20), **SMALL)
    leftover = got.folders[0] / ".partial-00007.safetensors.12345-abcdef01"
    leftover.write_bytes(b"x")

    def other():
        assert sweep(leftover.parent) == 0
        os.utime(leftover, (0, 0))
        assert sweep(leftover.parent) == 1

    finished(other)
    assert got.features.array("pooled").shape == (20, 24)


def test_a_root_that_is_a_link_is_refused(cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    cache.mkdir()
    (cache / "features").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BenchError, match="symbolic link"):
        clean()


def test_listing_imports_no_torch():
    code = "import sys; from bench.housekeeping import stores; stores(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_trim_without_limit_reports_a_size(cache):
    extracted(Arrays(20), **SMALL)
    import gc

    gc.collect()
    assert trim(10**12).removed == []
    assert housekeeping._size(123_456_789) == "0.12 GB"
    assert housekeeping._size(999) == "0.00 MB"
