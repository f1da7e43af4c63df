"""Killed at any instant and started again, a run ends with the record that an undisturbed run gives."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def command(runs: Path, limit: int) -> list[str]:
    return [
        sys.executable, "-m", "bench", "run", "--model", "demo:mobilenetv2@64", "--suite", "knn,linear",
        "--data", "demo", "--limit", str(limit), "--batch", "8", "--runs", str(runs), "--set", "linear.points=5",
    ]  # fmt: skip


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "BENCH_CACHE": str(cache)}


def finished(runs: Path) -> dict:
    """The one record of the ledger, without what may differ between two runs, its outcomes read in."""
    (path,) = runs.glob("*.json")
    record = json.loads(path.read_text())
    for key in ("run", "created", "timings", "artifacts"):
        record.pop(key, None)
    # What this process did itself: a resumed run forwards fewer images.
    record["environment"].pop("peak_memory_mb")
    record["environment"].pop("images_forwarded")
    for measurement in record["measurements"]:
        measurement.pop("seconds")
        with np.load(runs / measurement.pop("outcomes")) as table:
            measurement["outcomes"] = {name: table[name].tobytes() for name in table.files}
    return record


def disturbed(tmp_path: Path, kills: int, seed: int, limit: int) -> int:
    """Kill ``kills`` runs, start each again, hold its record to an undisturbed one; how many were killed in mid-work.

    The kills fall at random between the first stored shard and the end of an undisturbed run.
    """
    calm = tmp_path / "calm"
    started = time.monotonic()
    process = subprocess.Popen(command(calm / "runs", limit), env=environment(calm / "cache"), **QUIET)
    first = until_stored(calm / "cache", process) - started
    assert process.wait(timeout=300) == 0
    rest = time.monotonic() - started - first
    expected = finished(calm / "runs")
    instants = random.Random(seed)
    amid = 0
    for trial in range(kills):
        folder = tmp_path / f"trial{trial}"
        process = subprocess.Popen(
            command(folder / "runs", limit), env=environment(folder / "cache"), start_new_session=True, **QUIET
        )
        until_stored(folder / "cache", process)
        time.sleep(instants.uniform(0, rest))
        amid += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not list((folder / "runs").glob("*.json")):
            again = subprocess.run(
                command(folder / "runs", limit), env=environment(folder / "cache"), capture_output=True, text=True
            )
            assert again.returncode == 0, again.stderr
        assert finished(folder / "runs") == expected
        assert not (folder / "runs" / ".unfinished").exists()
    return amid


def until_stored(cache: Path, process: subprocess.Popen) -> float:
    """Wait for the first shard in the store; the moment when it was seen."""
    deadline = time.monotonic() + 240
    while not list(cache.glob("features/*/*.safetensors")):
        assert time.monotonic() < deadline, "no shard was stored"
        assert process.poll() is None, "the run ended before it stored anything"
        time.sleep(0.01)
    return time.monotonic()


@pytest.mark.slow
def test_ten_kills(tmp_path):
    # A busy machine may finish a run or two before the kill that was meant for it.
    assert disturbed(tmp_path, kills=10, seed=20, limit=400) >= 5


def test_a_kill_right_after_the_first_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(random.Random, "uniform", lambda *_: 0.0)
    assert disturbed(tmp_path, kills=1, seed=4, limit=100) == 1


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(tmp_path):
    process = subprocess.Popen(
        command(tmp_path / "runs", 400), env=environment(tmp_path / "cache"), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until_stored(tmp_path / "cache", process)
    # As a terminal does it: the whole process group, workers included.
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert error.strip().splitlines()[-1].startswith("bench: interrupted; stored features")
    assert "Traceback" not in error
    again = subprocess.run(
        command(tmp_path / "runs", 400), env=environment(tmp_path / "cache"), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "runs").glob("*.json"))) == 1


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    """A file system of 1 MB for the store: mounting one needs root, so elsewhere this test has nothing to run on."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (not root)")
    try:
        full = subprocess.run(command(tmp_path / "runs", 400), env=environment(small), capture_output=True, text=True)
        assert full.returncode == 2
        sentence = full.stderr.strip().splitlines()[-1]
        assert sentence.startswith("bench: ")
        assert "disk is full" in sentence
        assert "Traceback" not in full.stderr
        assert not list((tmp_path / "runs").glob("*.json"))
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        again = subprocess.run(command(tmp_path / "runs", 400), env=environment(small), capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
    finally:
        subprocess.run(["umount", small], check=True)
