from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
from storehelp import Arrays, Tiny, damage, extracted, finished, flip, only, process, reference, stored

from bench import store
from bench.errors import BenchError
from bench.housekeeping import stores
from bench.store import create_store, open_store, shard_size

SMALL = {"batch": 4, "shard": 8}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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


# --- pieces -----------------------------------------------------------------------------------------------------------


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
