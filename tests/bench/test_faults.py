"""Whatever befalls a run: the record of an undisturbed one in the end, or one sentence and nothing lost."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import faulthelp
import numpy as np
import pytest
from faulthelp import (
    ROOT,
    STAGES,
    SWEEP,
    Run,
    clock_moved,
    closable,
    close_at,
    delete_at,
    error_at,
    evaluation,
    file_size,
    hold,
    mistaken_at,
    read_only,
    run,
    side_by_side,
)
from faulthelp import signal_at as at
from PIL import Image

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
MOST_RESTARTS = 5
"""How often one sweep is stopped at random before it may end."""


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of an undisturbed run."""
    folder = tmp_path_factory.mktemp("calm")
    ended = run(folder, evaluation(folder / "runs"))
    assert ended.code == 0, ended.error
    return folder / "runs"


@pytest.fixture(scope="module")
def calm_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The ledger of an undisturbed sweep, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("calm-sweep")
    run(folder, ["--version"])  # The first process waits for what all others find imported.
    begun = time.monotonic()
    ended = run(folder, sweep(folder))
    assert ended.code == 0, ended.error
    return folder / "runs", time.monotonic() - begun


def sweep(folder: Path) -> list[str]:
    (folder / "sweep.yaml").write_text(SWEEP)
    return ["sweep", str(folder / "sweep.yaml"), "--runs", str(folder / "runs"), "--workers", "0", "--batch", "8"]


def stopped(ended: faulthelp.Ended, number: int) -> None:
    """A process ended by a signal says one sentence where it can say anything."""
    if number == signal.SIGKILL:
        assert ended.code == -signal.SIGKILL
        return
    assert "interrupted; stored features and finished suites are kept" in ended.sentence()


def to_the_end(folder: Path, args: list[str], **variables: str) -> None:
    ended = run(folder, args, **variables)
    assert ended.code == 0, ended.error
    assert "Traceback" not in ended.error


def test_one_fault_after_the_other(tmp_path: Path, calm: Path) -> None:
    chance = random.Random(3)
    stages = ["a shard is written", "features are read", "a finished suite is kept", "outcomes are written"]
    for stage, number in zip(stages, [*SIGNALS, signal.SIGKILL], strict=True):
        stopped(run(tmp_path, evaluation(tmp_path / "runs"), at(stage, number, chance.choice([1, 2]))), number)
        assert not list((tmp_path / "runs").glob("*.json"))
    to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    hold(tmp_path / "runs", calm, restarts=len(stages), tries=len(stages))


def test_a_run_that_is_stopped_at_its_very_end_is_not_recorded_again(tmp_path: Path, calm: Path) -> None:
    at_the_end = at("the record is in its place", signal.SIGKILL)
    assert run(tmp_path, evaluation(tmp_path / "runs"), at_the_end).code == -signal.SIGKILL
    (record,) = (tmp_path / "runs").glob("*.json")
    to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    assert list((tmp_path / "runs").glob("*.json")) == [record]
    hold(tmp_path / "runs", calm, restarts=1)


def test_a_writer_that_is_killed_beside_its_record_leaves_nothing(tmp_path: Path, calm: Path) -> None:
    """Between the record's two names, the unfinished and the true one: what is left goes with the next command."""
    runs = tmp_path / "runs"
    assert run(tmp_path, evaluation(runs), partial(killed_beside, runs)).code == -signal.SIGKILL
    assert list(runs.glob("*.json"))
    assert list(runs.glob(".partial-*.json.*"))
    to_the_end(tmp_path, evaluation(runs))
    hold(runs, calm, restarts=1)


def killed_beside(runs: Path) -> None:
    import bench.files

    before = bench.files._sync_folder

    def killed(folder: Path) -> None:
        if folder == runs:
            os.kill(os.getpid(), signal.SIGKILL)
        before(folder)

    bench.files._sync_folder = killed


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_to_the_whole_session(number: int, tmp_path: Path, calm: Path) -> None:
    """As a terminal and a job scheduler send it: workers get it too, and say nothing."""
    args = evaluation(tmp_path / "runs", "--workers", "2")
    stopped(run(tmp_path, args, at("a shard is written", number, 2, session=True)), number)
    to_the_end(tmp_path, args)
    hold(tmp_path / "runs", calm, restarts=1)


def pictures(folder: Path) -> list[Path]:
    """Eighty small images of two classes to learn from, and as many to test."""
    rng = np.random.default_rng(0)
    paths = [folder / split / name / f"{i}.png" for split in ("train", "val") for name in ("a", "b") for i in range(40)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    return paths


def over_pictures(folder: Path, *more: str) -> list[str]:
    args = evaluation(folder / "runs", *more)
    args[args.index("demo")] = f"imagefolder:{folder / 'images'}"
    return args


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # A process or two for each of 14 stages and 3 signals.
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_every_stage(number: int, tmp_path: Path, calm: Path) -> None:
    def trial(stage: str) -> None:
        folder = tmp_path / stage.replace(" ", "-")
        stopped(run(folder, evaluation(folder / "runs"), at(stage, number)), number)
        to_the_end(folder, evaluation(folder / "runs"))
        hold(folder / "runs", calm, restarts=1)

    side_by_side(trial, STAGES)


@pytest.mark.parametrize(
    ("stage", "nth"),
    [
        ("the data are opened", 1),  # the plan
        pytest.param("the data are opened", 2, marks=pytest.mark.slow),
        pytest.param("the model is loaded", 1, marks=pytest.mark.slow),
        ("a suite begins", 2),
    ],
)
def test_a_signal_that_a_library_makes_another_error_of(
    stage: str, nth: int, tmp_path: Path, calm_sweep: tuple[Path, float]
) -> None:
    """The runs of a sweep did not fail: it was interrupted, and says so."""
    stopped(run(tmp_path, sweep(tmp_path), mistaken_at(stage, signal.SIGINT, nth)), signal.SIGINT)
    assert not list((tmp_path / "runs").glob("*.json"))
    to_the_end(tmp_path, sweep(tmp_path))
    hold(tmp_path / "runs", calm_sweep[0], restarts=1)


@pytest.mark.slow  # A hundred sweeps.
@pytest.mark.parametrize(("number", "tries"), [(signal.SIGKILL, 100), (signal.SIGTERM, 15), (signal.SIGINT, 15)])
def test_signals_at_random(number: int, tries: int, tmp_path: Path, calm_sweep: tuple[Path, float]) -> None:
    """A sweep, stopped at a random instant and started again until it says that it is done."""
    ledger, seconds = calm_sweep

    def trial(which: int) -> int:
        chance = random.Random(f"{int(number)}, {which}")
        folder = tmp_path / f"trial{which}"
        folder.mkdir()
        restarts = 0
        while True:
            running = Run(folder, sweep(folder))
            if restarts < MOST_RESTARTS:
                running.alive(chance.uniform(0, 0.9 * seconds))
                running.send(number)
            ended = running.ended()
            if ended.code == 0:
                break
            restarts += 1
            if running.begun:
                stopped(ended, number)
        hold(folder / "runs", ledger, restarts=restarts, tries=restarts)
        return restarts

    stops = begun = 0
    while stops < tries:
        trials = range(begun, begun + max(1, (tries - stops) // MOST_RESTARTS))
        begun = trials.stop
        stops += sum(side_by_side(trial, trials))
        assert begun < 2 * tries, "the signals come after the end"


@pytest.mark.slow  # Interpreters of their own: a dozen starts.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_while_the_command_starts(number: int, tmp_path: Path) -> None:
    """From the first import on: one sentence, and never a traceback."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BENCH_CACHE": str(tmp_path / "cache")}
    chance = random.Random(0)

    def trial(seconds: float) -> bool:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *evaluation(tmp_path / "runs")], env=environment, stderr=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        time.sleep(seconds)
        os.killpg(process.pid, number)
        out, error = process.communicate(timeout=120)
        if process.returncode in (2, 0):
            assert "defect" not in error
            assert "Traceback" not in error or "/site.py" in error  # before a line of bench ran
            assert process.returncode == 0 or (out == "" and "bench: interrupted" in error), error
        else:
            # Python itself was still starting.
            assert process.returncode in (-number, 1), error
            assert process.returncode == -number or "site" in error, error
        return process.returncode == 2

    assert sum(side_by_side(trial, [chance.uniform(0.05, 4) for _ in range(12)])) >= 6


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [pytest.param(3_000, marks=pytest.mark.slow), 11_000])
def test_files_that_cannot_grow(limit: int, tmp_path: Path, calm: Path) -> None:
    """A quota: the first shard, or the record, does not fit."""
    sentence = run(tmp_path, evaluation(tmp_path / "runs"), partial(file_size, limit)).sentence()
    assert "could not be written: File too large" in sentence or "disk is full" in sentence
    assert not list((tmp_path / "runs").glob("*.json"))
    to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    hold(tmp_path / "runs", calm, restarts=1)


@pytest.mark.slow  # Mounts small file systems: several runs each.
@pytest.mark.parametrize("full", ["cache", "runs"])
@pytest.mark.parametrize("size", ["4k", "24k", "48k", "96k"])
def test_a_full_disk(full: str, size: str, tmp_path: Path, calm: Path) -> None:
    small = tmp_path / full
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (not root)")
    try:
        ended = run(tmp_path, evaluation(tmp_path / "runs"))
        if ended.code:
            assert "disk is full" in ended.sentence()
            assert not list((tmp_path / "runs").glob("*.json"))
            assert not list(small.rglob(".partial-*"))
            subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
            to_the_end(tmp_path, evaluation(tmp_path / "runs"))
        hold(tmp_path / "runs", calm, restarts=1)
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.slow  # Several runs each.
@pytest.mark.parametrize("closed", ["runs", "cache"])
def test_a_folder_that_cannot_be_written(closed: str, tmp_path: Path, calm: Path) -> None:
    (tmp_path / closed).mkdir()
    with read_only(tmp_path / closed):
        sentence = run(tmp_path, evaluation(tmp_path / "runs")).sentence()
        assert "not writable" in sentence
        assert closed in sentence
    to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    hold(tmp_path / "runs", calm, restarts=1)


@pytest.mark.parametrize(
    ("number", "nth", "says"),
    [
        (errno.EDQUOT, 3, "the disk is full (your quota on it is used up): "),
        pytest.param(errno.EDQUOT, 9, "the disk is full (your quota on it is used up): ", marks=pytest.mark.slow),
        # A file system that closed itself: no mount does while files on it are open for writing, as locks are.
        pytest.param(errno.EROFS, 3, "is not writable", marks=pytest.mark.slow),
        pytest.param(errno.EROFS, 9, "is not writable", marks=pytest.mark.slow),
    ],
)
def test_a_file_that_meets_an_error(number: int, nth: int, says: str, tmp_path: Path, calm: Path) -> None:
    assert says in run(tmp_path, evaluation(tmp_path / "runs"), error_at(number, nth)).sentence()
    assert not list((tmp_path / "runs").glob("*.json"))
    assert not list(tmp_path.rglob(".partial-*"))
    to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    hold(tmp_path / "runs", calm, restarts=1)


@pytest.mark.slow  # Several runs each.
@pytest.mark.parametrize("stage", ["images are forwarded", "features are read"])
def test_a_ledger_that_closes_during_the_run(stage: str, tmp_path: Path, calm: Path) -> None:
    (tmp_path / "runs").mkdir()
    with closable(tmp_path / "runs"):
        sentence = run(tmp_path, evaluation(tmp_path / "runs"), close_at(stage, tmp_path / "runs")).sentence()
        assert "not writable" in sentence
        assert "runs" in sentence
        assert not list((tmp_path / "runs").glob("*.json"))
    to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    hold(tmp_path / "runs", calm, restarts=1)


@pytest.mark.slow  # Several runs each.
@pytest.mark.parametrize("stage", ["", "images are forwarded"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_data_that_can_only_be_read(stage: str, workers: str, tmp_path: Path) -> None:
    """From the beginning, or from the middle of the run on: nothing is written beside the images."""
    pictures(tmp_path / "images")
    args = over_pictures(tmp_path, "--workers", workers)
    to_the_end(tmp_path / "calm", [*args, "--runs", str(tmp_path / "calm-runs")])
    before = sorted(tmp_path.glob("images/**/*"))
    with closable(tmp_path / "images") if stage else read_only(tmp_path / "images"):
        ended = run(tmp_path, args, close_at(stage, tmp_path / "images") if stage else None)
        assert ended.code == 0, ended.error
        with pytest.raises(OSError, match="ead-only|ermission"):
            (tmp_path / "images" / "train" / "more").touch()
    assert sorted(tmp_path.glob("images/**/*")) == before
    hold(tmp_path / "runs", tmp_path / "calm-runs")


@pytest.mark.slow  # Several runs each.
def test_stored_features_are_read_where_nothing_can_be_written(tmp_path: Path, calm: Path) -> None:
    to_the_end(tmp_path, evaluation(tmp_path / "first"))
    with read_only(tmp_path / "cache"):
        to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    hold(tmp_path / "runs", calm)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # Several runs each.
@pytest.mark.parametrize("kind", ["truncated", "emptied", "a bit flipped", "removed"])
def test_a_shard_that_is_damaged_between_two_runs(kind: str, tmp_path: Path, calm: Path) -> None:
    stopped(run(tmp_path, evaluation(tmp_path / "runs"), at("a finished suite is kept", 9)), 9)
    chance = random.Random(kind)
    for path in chance.sample(sorted((tmp_path / "cache").rglob("[0-9]*.safetensors")), 3):
        content = bytearray(path.read_bytes())
        if kind == "a bit flipped":
            content[chance.randrange(len(content) // 2, len(content))] ^= 1 << chance.randrange(8)
        size = {"truncated": len(content) // 2, "emptied": 0}.get(kind, len(content))
        path.write_bytes(content[:size])
        if kind == "removed":
            path.unlink()
    to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    hold(tmp_path / "runs", calm, restarts=1, tries=3)


@pytest.mark.slow  # Several runs each.
@pytest.mark.parametrize("kind", ["truncated", "a bit flipped"])
def test_damage_to_what_an_interrupted_run_left(kind: str, tmp_path: Path, calm: Path) -> None:
    stopped(run(tmp_path, evaluation(tmp_path / "runs"), at("outcomes are written", 9, 2)), 9)
    for path in sorted((tmp_path / "runs" / ".unfinished").rglob("*.npz")):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10 if kind == "a bit flipped" else 0
        path.write_bytes(content if kind == "a bit flipped" else content[: len(content) // 2])
    to_the_end(tmp_path, evaluation(tmp_path / "runs"))
    hold(tmp_path / "runs", calm, restarts=1)


@pytest.mark.slow  # Several runs each.
def test_a_decoding_process_that_dies(tmp_path: Path, calm: Path) -> None:
    dying = at("bench.loader:Decoder.__getitems__", signal.SIGKILL, 3, worker=True)
    sentence = run(tmp_path, evaluation(tmp_path / "runs", "--workers", "2"), dying).sentence()
    assert "a process that decodes images died" in sentence
    to_the_end(tmp_path, evaluation(tmp_path / "runs", "--workers", "2"))
    hold(tmp_path / "runs", calm, restarts=1)


@pytest.mark.slow  # Several runs each.
@pytest.mark.parametrize("stage", ["the run is begun", "images are forwarded", "a shard is in its place"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_images_that_are_deleted_during_the_run(stage: str, workers: str, tmp_path: Path) -> None:
    images = pictures(tmp_path / "images")
    args = over_pictures(tmp_path, "--workers", workers)
    assert run(tmp_path / "calm", [*args, "--runs", str(tmp_path / "calm-runs")]).code == 0
    gone = [path for path in images if path.stem == "39"]
    kept = {path: (path.read_bytes(), path.stat()) for path in gone}
    ended = run(tmp_path, args, delete_at(stage, gone))
    assert "moved or deleted" in ended.sentence() or str(tmp_path / "images") in ended.sentence()
    assert not list((tmp_path / "runs").glob("*.json"))
    for path, (content, status) in kept.items():
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    to_the_end(tmp_path, args)
    hold(tmp_path / "runs", tmp_path / "calm-runs", restarts=1)


# --- company and time -------------------------------------------------------------------------------------------------


@pytest.mark.slow  # Up to four sweeps at once.
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("killed", [False, True])
def test_processes_on_one_store_and_one_ledger(
    count: int, killed: bool, tmp_path: Path, calm_sweep: tuple[Path, float]
) -> None:
    ledger, seconds = calm_sweep
    running = [Run(tmp_path, sweep(tmp_path)) for _ in range(count)]
    if killed:
        time.sleep(random.Random(count).uniform(0.2, 0.8) * seconds)
        running.pop().send(signal.SIGKILL)
    for one in running:
        ended = one.ended(300)
        assert ended.code == 0, ended.error
    if killed:
        # What it had finished is of use to nobody when another process recorded the run: the next command removes it.
        to_the_end(tmp_path, sweep(tmp_path))
    hold(tmp_path / "runs", ledger, restarts=int(killed))


def test_what_a_killed_process_left_of_a_run_that_another_recorded(
    tmp_path: Path, calm_sweep: tuple[Path, float]
) -> None:
    """Two at once: the second recorded the run and tidied up, then the first kept a suite more and was killed."""
    left = tmp_path / "runs" / ".unfinished"
    run(tmp_path, sweep(tmp_path), at("a finished suite is kept", signal.SIGKILL, 2))
    suites = {path: path.read_bytes() for path in left.rglob("*.npz")}
    assert suites
    to_the_end(tmp_path, sweep(tmp_path))
    assert not left.exists()
    for path, content in suites.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    to_the_end(tmp_path, sweep(tmp_path))
    hold(tmp_path / "runs", calm_sweep[0], restarts=2)


@pytest.mark.slow  # Several runs each.
def test_a_clock_that_goes_backwards(tmp_path: Path, calm: Path) -> None:
    runs = tmp_path / "runs"
    stopped(run(tmp_path, evaluation(runs), at("a finished suite is kept", 9)), 9)
    future = time.time() + 400 * 86_400
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (future, future))
    ended = Run(tmp_path, evaluation(runs), partial(clock_moved, -800)).ended()
    assert ended.code == 0, ended.error
    hold(runs, calm, restarts=1)
    listed = run(tmp_path, ["list", "features", "--json"], partial(clock_moved, -4000))
    assert listed.code == 0
    assert listed.out.count('"complete": true') == 2
    cleaned = run(tmp_path, ["clean", "--verify", "--keep-gb", "1"], partial(clock_moved, -4000))
    assert cleaned.code == 0, cleaned.error
    assert "0 damaged" in cleaned.out
    assert "2 stores, " in cleaned.out
