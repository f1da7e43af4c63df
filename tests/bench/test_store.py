from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from storehelp import Arrays, Tiny, extracted, finished, process, reference, stored

from bench import housekeeping, store
from bench.errors import BenchError
from bench.housekeeping import clean, stores, sweep, trim
from bench.locks import LockFile
from bench.store import create_store, open_store, shard_size

SMALL = {"batch": 4, "shard": 8}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def only(cache: Path) -> Path:
    (folder,) = (cache / "features").iterdir()
    return folder


def undisturbed(data: Arrays, monkeypatch, tmp_path, **options) -> dict[str, bytes]:
    with monkeypatch.context() as context:
        context.setenv("BENCH_CACHE", str(tmp_path / "calm"))
        finished(lambda: extracted(data, **options))
    return stored(tmp_path / "calm")


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tries", [8, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_extraction_goes_on_and_ends_with_the_same_bits(tries, workers, cache, monkeypatch, tmp_path):
    data = Arrays(150, delay=0.001, broken=(17, 90), log=tmp_path / "log")
    options = {**SMALL, "workers": workers, "max_corrupt": 0.1}
    expected = undisturbed(data, monkeypatch, tmp_path, **options)
    chance = random.Random(tries + workers)
    kills, lost = 0, 0
    (tmp_path / "log").unlink()
    for _ in range(tries):
        before = set(cache.rglob("[0-9]*.safetensors"))
        with process(lambda: extracted(data, **options)) as child:
            child.join(chance.uniform(0.0, 0.3))
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
        lost += bool(before - set(cache.rglob("[0-9]*.safetensors")))
        if len(list(cache.rglob("[0-9]*.safetensors"))) == 19:
            # Complete: take a random part away and go on killing.
            for path in chance.sample(sorted(cache.rglob("[0-9]*.safetensors")), 12):
                path.unlink()
    finished(lambda: extracted(data, **options))
    assert kills >= tries // 2
    assert lost == 0
    assert stored(cache) == expected
    print(f"{tries} tries, {kills} kills, {lost} shards lost")


def test_a_resumed_run_decodes_only_what_is_missing(cache, tmp_path):
    data = Arrays(160, delay=0.002, log=tmp_path / "log")
    with process(lambda: extracted(data, **SMALL)) as child:
        while len(list(cache.rglob("[0-9]*.safetensors"))) < 5:
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
    there = len(list(cache.rglob("[0-9]*.safetensors")))
    got = extracted(data, **SMALL)
    assert got.decoded == 160 - 8 * there
    assert got.reused == 8 * there
    np.testing.assert_allclose(got.features.array("pooled"), reference(Tiny(), data, "pooled"), atol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_extraction_leaves_whole_shards_and_no_worker(number, cache, tmp_path):
    data = Arrays(400, delay=0.005)
    with process(lambda: extracted(data, **SMALL, workers=2)) as child:
        while len(list(cache.rglob("[0-9]*.safetensors"))) < 3:
            time.sleep(0.005)
        import psutil

        workers = psutil.Process(child.pid).children()
        assert len(workers) == 2
        os.kill(child.pid, number)
        child.join(20)
        assert child.exitcode not in {0, None}
        psutil.wait_procs(workers, timeout=20)
        assert not any(worker.is_running() for worker in workers)
    folder = open_store(only(cache))
    assert folder.verify(again=True) == []
    assert extracted(data, **SMALL).reused >= 24


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("ranks", [False, True])
def test_processes_that_share_a_store_divide_the_work(count, ranks, cache, monkeypatch, tmp_path):
    log = tmp_path / "log"
    data = Arrays(203, delay=0.005, log=log)
    expected = undisturbed(Arrays(203), monkeypatch, tmp_path, **SMALL)
    together = multiprocessing.get_context("fork").Barrier(count)

    def work(rank):
        together.wait(60)
        extra = {"rank": rank, "world": count} if ranks else {}
        got = extracted(data, **SMALL, workers=rank % 2, **extra)
        np.testing.assert_allclose(got.features.array("pooled"), reference(Tiny(), data, "pooled"), atol=1e-5)
        (tmp_path / f"decoded{rank}").write_text(str(got.decoded))

    from contextlib import ExitStack

    with ExitStack() as stack:
        children = [stack.enter_context(process(lambda rank=rank: work(rank))) for rank in range(count)]
        for child in children:
            child.join(60)
            assert child.exitcode == 0
    assert sorted(map(int, log.read_text().split())) == list(range(203)), "an image was decoded twice or never"
    assert stored(cache) == expected
    shares = [int((tmp_path / f"decoded{rank}").read_text()) for rank in range(count)]
    assert sum(shares) == 203
    assert min(shares) > 0


def test_the_work_of_a_process_that_dies_is_taken_over_at_once(cache, tmp_path):
    data = Arrays(64, delay=0.01)
    slow = Arrays(64, delay=1000.0)
    with process(lambda: extracted(slow, **SMALL)) as holder:
        while not cache.exists() or not list(cache.rglob("lock")):
            time.sleep(0.01)
        time.sleep(0.2)  # it holds the first shard by now and will never finish it
        with process(lambda: extracted(data, **SMALL)) as other:
            other.join(3)
            assert other.is_alive(), "it should wait for the shard that is held"
            assert [path.name for path in cache.rglob("[0-9]*.safetensors")].count("00000.safetensors") == 0
            assert len(list(cache.rglob("[0-9]*.safetensors"))) == 7
            os.kill(holder.pid, signal.SIGKILL)
            other.join(20)
            assert other.exitcode == 0
    assert len(list(cache.rglob("[0-9]*.safetensors"))) == 8


def test_without_locks_processes_do_no_harm(cache, monkeypatch, tmp_path):
    data = Arrays(100, delay=0.002)
    expected = undisturbed(Arrays(100), monkeypatch, tmp_path, **SMALL)

    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("bench.locks.fcntl.lockf", none)
    with process(lambda: extracted(data, **SMALL)) as one, process(lambda: extracted(data, **SMALL)) as two:
        for child in (one, two):
            child.join(60)
            assert child.exitcode == 0
    assert stored(cache) == expected


# --- damage -----------------------------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(bytes(content))


def damage(path: Path, kind: str) -> None:
    size = path.stat().st_size
    if kind == "truncated":
        os.truncate(path, size - 40)
    elif kind == "empty":
        os.truncate(path, 0)
    elif kind == "data":
        flip(path, size - 40)
    elif kind == "header":
        flip(path, path.read_bytes().index(b'"corrupt') - 3)
    elif kind == "length":
        flip(path, 1)
    elif kind == "swapped":
        path.write_bytes(path.with_name("00003.safetensors").read_bytes())


@pytest.mark.parametrize("kind", ["truncated", "empty", "data", "header", "length", "swapped"])
def test_a_damaged_shard_is_found_and_made_again(kind, cache, monkeypatch, tmp_path):
    data = Arrays(50)
    expected = undisturbed(data, monkeypatch, tmp_path, **SMALL)
    finished(lambda: extracted(data, **SMALL))
    damage(only(cache) / "00002.safetensors", kind)

    def work():
        assert extracted(data, features=("logits", "pooled")).decoded == 8

    finished(work)
    assert stored(cache) == expected


def test_damage_is_found_anew_in_the_process_that_made_the_shard(cache):
    data = Arrays(50)
    extracted(data, **SMALL)
    damage(only(cache) / "00002.safetensors", "data")
    assert extracted(data, features=("logits", "pooled")).decoded == 8


def test_every_flipped_bit_of_a_shard_is_found(cache):
    data = Arrays(8)
    folder = extracted(data, **SMALL).folders[0]
    path = folder / "00000.safetensors"
    whole = path.read_bytes()
    chance = random.Random(0)
    opened = open_store(folder)
    silent = []
    for offset in sorted(chance.sample(range(len(whole)), 400)):
        flip(path, offset)
        found = opened.verify(again=True)
        if found != [0]:
            # Padding of the header says nothing; whatever else changes must be found.
            silent.append(whole[offset : offset + 1])
        path.write_bytes(whole)
    assert set(silent) <= {b" "}


def test_a_damaged_manifest_starts_the_store_afresh(cache):
    data = Arrays(50)
    folder = extracted(data, **SMALL).folders[0]
    (folder / "store.json").write_text('{"format": 1')

    def work():
        assert extracted(data, **SMALL).decoded == 50

    import gc

    gc.collect()
    finished(work)
    assert stores()[0].complete


def test_a_disk_that_damages_everything_is_blamed(monkeypatch):
    monkeypatch.setattr(store, "verify_shard", lambda *_: (_ for _ in ()).throw(store.DamagedShard("no")))
    with pytest.raises(BenchError, match="damaged as soon as they are written: check the disk"):
        extracted(Arrays(20), **SMALL)


# --- housekeeping -----------------------------------------------------------------------------------------------------


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


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_locks_exclude_others_and_die_with_their_owner(tmp_path):
    path = tmp_path / "lock"
    mine, again = LockFile(path), LockFile(path)
    assert mine.hold(3)
    assert not again.hold(3), "another holder in the same process"
    assert not again.hold(3, shared=True)
    assert again.hold(4)

    def other():
        theirs = LockFile(path)
        assert not theirs.hold(3)
        assert not theirs.hold(4)
        assert theirs.hold(5)
        theirs.close()

    finished(other)
    again.close()
    assert not LockFile(path).hold(3), "closing one holder must not drop the locks of another"
    finished(lambda: _assert(not LockFile(path).hold(3)))
    mine.close()
    finished(lambda: _assert(LockFile(path).hold(3)))


def test_shared_locks_are_counted(tmp_path):
    path = tmp_path / "lock"
    one, two = LockFile(path), LockFile(path)
    assert one.hold(0, shared=True)
    assert two.hold(0, shared=True)
    assert not LockFile(path).hold(0)
    one.close()
    finished(lambda: _assert(LockFile(path).hold(0, shared=True) and not LockFile(path).hold(0)))
    two.close()
    finished(lambda: _assert(LockFile(path).hold(0)))


def _assert(truth: bool) -> None:
    assert truth


def test_the_lock_of_a_removed_folder_is_not_current(tmp_path):
    path = tmp_path / "lock"
    held = LockFile(path)
    assert held.is_current()
    path.unlink()
    assert not held.is_current()
    fresh = LockFile(path)
    assert held.hold(1)
    assert fresh.hold(1), "another file of the same name is another lock"


@pytest.mark.parametrize("n", [1, 100, 1000, 60_000, 1_281_167])
@pytest.mark.parametrize("batch", [1, 7, 32, 256])
def test_shards_are_whole_batches_and_of_sane_size(n, batch):
    size = shard_size(n, batch, row_bytes=9120)
    assert size % batch == 0
    assert size * 9120 <= store.SHARD_BYTES + batch * 9120
    assert size <= max(store.SHARD_LEAST + batch, n / 100 + batch)


def test_the_first_creator_decides(cache):
    card, data = Tiny().card, Arrays(20)
    one = create_store(card, data, "fp32", ["pooled"], batch=4, shard=8)
    two = create_store(card, data, "fp32", ["pooled"], batch=2, shard=2)
    assert two.manifest == one.manifest
    assert two.key == one.key


def test_trim_without_limit_reports_a_size(cache):
    extracted(Arrays(20), **SMALL)
    import gc

    gc.collect()
    assert trim(10**12).removed == []
    assert housekeeping._size(123_456_789) == "0.12 GB"
    assert housekeeping._size(999) == "0.00 MB"
