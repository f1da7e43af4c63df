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
    record["environment"].pop("peak_memory_mb")
    for measurement in record["measurements"]:
        measurement.pop("seconds")
        with np.load(runs / measurement.pop("outcomes")) as table:
            measurement["outcomes"] = {name: table[name].tobytes() for name in table.files}
    return record


def disturbed(tmp_path: Path, kills: int, seed: int, limit: int) -> None:
    calm = tmp_path / "calm"
    started = time.monotonic()
    subprocess.run(command(calm / "runs", limit), env=environment(calm / "cache"), check=True, capture_output=True)
    whole = time.monotonic() - started
    expected = finished(calm / "runs")
    instants = random.Random(seed)
    for trial in range(kills):
        folder = tmp_path / f"trial{trial}"
        process = subprocess.Popen(
            command(folder / "runs", limit),
            env=environment(folder / "cache"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(instants.uniform(0, whole))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        left = list((folder / "runs").glob("*.json")) if (folder / "runs").exists() else []
        if not left:
            again = subprocess.run(
                command(folder / "runs", limit), env=environment(folder / "cache"), capture_output=True, text=True
            )
            assert again.returncode == 0, again.stderr
        assert finished(folder / "runs") == expected
        assert not (folder / "runs" / ".unfinished").exists()


@pytest.mark.slow
def test_ten_kills(tmp_path):
    disturbed(tmp_path, kills=10, seed=20, limit=400)


def test_a_kill(tmp_path):
    disturbed(tmp_path, kills=1, seed=4, limit=100)
