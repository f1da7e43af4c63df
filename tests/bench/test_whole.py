"""All 70 000 images of Fashion-MNIST from the command line, once extracted and then from the store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.slow  # Minutes: 70 000 forward passes, 10 000 queries in 60 000 samples, a path of probes.
@pytest.mark.skipif(not ARCHIVE.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_kNN_and_linear_on_all_of_it(tmp_path):
    def run():
        done = subprocess.run(
            [
                sys.executable, "-m", "bench", "run", "--model", "demo:mobilenetv2@32", "--suite", "knn,linear",
                "--data", "fashion-mnist", "--runs", str(tmp_path / "runs"), "--set", "linear.points=5",
                "--set", "linear.low=-3", "--set", "linear.high=1", "--json",
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), "BENCH_CACHE": str(tmp_path / "cache")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    first, second = run(), run()
    assert first["environment"]["images_forwarded"] == 70_000
    assert second["environment"]["images_forwarded"] == 0
    headlines = {m["suite"]: m for m in first["measurements"] if m["headline"]}
    assert {m["n"] for m in headlines.values()} == {10_000}
    assert headlines["knn"]["value"] > 75
    assert headlines["linear"]["value"] > headlines["knn"]["value"] - 5
    # Everything else of a run takes as long from the store; extraction takes next to nothing.
    assert first["timings"]["extract"] > 50 * second["timings"]["extract"]
    print({stage: round(seconds, 1) for stage, seconds in first["timings"].items()})
    for record in (first, second):
        for m in record["measurements"]:
            m.pop("seconds")
            m.pop("outcomes")
    assert first["measurements"] == second["measurements"]
