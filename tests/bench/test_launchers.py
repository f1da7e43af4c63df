"""Runs carried out elsewhere end with the records of the local launcher, whatever dies on the way."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import bench
from bench import launchers
from bench.launchers import sending, slurm, torchrun
from bench.ranks import Ranks, of_torchrun

ROOT = Path(__file__).resolve().parents[2]
RUN = [
    "run", "--model", "demo:trio-kd", "--teacher", "demo:trio-plain", "--suite", "knn,linear,agreement", "--data",
    "demo", "--limit", "100", "--workers", "0", "--set", "linear.points=5",
]  # fmt: skip


def environment(cache: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "BENCH_CACHE": str(cache), **more}


def go(command: list[str], cache: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment(cache, **more), capture_output=True, text=True, timeout=300, check=False
    )


def measured(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """name -> what every record of the ledger measured, without what may differ between two runs."""
    found = {}
    for path in runs.glob("*.json"):
        record = json.loads(path.read_text())
        for m in record["measurements"]:
            m.pop("seconds")
            m["outcomes"] = bool(m["outcomes"])
        assert record["name"] not in found, "a record was doubled"
        found[record["name"]] = record["measurements"]
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("local")
    done = go([sys.executable, "-m", "bench", *RUN, "--runs", str(folder / "runs")], folder / "cache")
    assert done.returncode == 0, done.stderr
    return measured(folder / "runs")


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_of_torchrun_share_a_run(tmp_path: Path, local: dict[str, Any], count: int) -> None:
    done = go(
        [sys.executable, "-m", "bench", *RUN, "--runs", str(tmp_path / "runs"), "--launcher", "torchrun", "--json"],
        tmp_path / "cache", BENCH_PROCESSES=str(count),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{count} processes share" in done.stderr
    assert "failed" not in done.stderr
    assert json.loads(done.stdout)["environment"]["images_forwarded"] == 0
    assert measured(tmp_path / "runs") == local


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_under_torchrun_one_record_is_made(tmp_path: Path, local: dict[str, Any], count: int) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "bench"]
    done = go([*start, *RUN, "--runs", str(tmp_path / "runs"), "--launcher", "torchrun"], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert measured(tmp_path / "runs") == local
    assert done.stdout.count("knn/dino@1") == 1


def test_a_process_that_is_killed_costs_nothing(tmp_path: Path, local: dict[str, Any]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *RUN, "--runs", str(tmp_path / "runs"), "--launcher", "torchrun"],
        env=environment(tmp_path / "cache", BENCH_PROCESSES="2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    killed = False
    deadline = time.monotonic() + 120
    while not killed and time.monotonic() < deadline and process.poll() is None:
        # Processes come and go while they are looked at.
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                command = child.cmdline()
                if "bench.launchers.sharing" in command and "torch.distributed.run" not in command:
                    child.kill()
                    killed = True
                    break
        time.sleep(0.02)
    error = process.communicate(timeout=240)[1]
    assert killed
    assert process.returncode == 0, error
    assert "what it left to do is done here" in error
    assert measured(tmp_path / "runs") == local


def test_a_process_of_torchrun_that_was_not_told_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.progress import Progress
    from bench.request import Request

    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert of_torchrun() == Ranks(1, 2, 1)
    request = Request.of(model="demo:trio-kd", suites=["knn"])
    with pytest.raises(bench.BenchError, match="add --launcher torchrun"):
        sending.record_of("local", request, launchers.Place(Path("runs")), Progress(quiet=True))
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(bench.BenchError, match="not whole numbers"):
        of_torchrun()


def test_refusals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(bench.BenchError, match="unknown launcher 'tochrun'; nearest: torchrun"):
        bench.run("demo:trio-kd", ["knn"], "demo", launcher="tochrun")
    with pytest.raises(bench.BenchError, match="not a model in memory"):
        bench.run(bench.load("demo:trio-kd"), ["knn"], "demo", launcher="torchrun")
    with pytest.raises(bench.BenchError, match="sends runs elsewhere"):
        bench.run("demo:trio-kd", ["knn"], "demo", launcher="ray")
    monkeypatch.setenv("BENCH_PROCESSES", "many")
    with pytest.raises(bench.BenchError, match="BENCH_PROCESSES=many is no number"):
        torchrun.processes()
    monkeypatch.setenv("BENCH_SLURM", "partition=gpu,timeout_min=60")
    assert slurm.parameters() == {"partition": "gpu", "timeout_min": 60}
    monkeypatch.setenv("BENCH_SLURM", "gpu")
    with pytest.raises(bench.BenchError, match="takes name=value"):
        slurm.parameters()


SWEEP = """
suites: [knn, linear, quality]
data: demo
limit: 60
set: {knn.k: 3, linear.points: 5}
models: [demo:trio-plain, demo:trio-kd, demo:mobilenetv2@32, {model: demo:trio-kd, name: again, seed: 1}]
"""


def sweep(folder: Path, launcher: str, **more: str) -> list[str]:
    (folder / "sweep.yaml").write_text(SWEEP)
    runs = str(folder / launcher)
    return [sys.executable, "-m", "bench", "sweep", str(folder / "sweep.yaml"), "--runs", runs, "--launcher", launcher,
            "--workers", "0"]  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs submitit")
def test_jobs_of_submitit(tmp_path: Path) -> None:
    more = {"BENCH_SLURM_CLUSTER": "local", "BENCH_SLURM": "timeout_min=10"}
    refused = go(sweep(tmp_path, "slurm"), tmp_path / "cache", PATH="/nonexistent")
    assert refused.returncode == 2
    assert "finds no sbatch" in refused.stderr
    (tmp_path / "sweep.yaml").write_text("suites: [knn]\ndata: demo\nlimit: 30\nmodels: [demo:trio-kd, missing.pth]")
    command = [sys.executable, "-m", "bench", "sweep", str(tmp_path / "sweep.yaml"), "--runs", str(tmp_path / "runs"),
               "--launcher", "slurm", "--workers", "0", "--json"]  # fmt: skip
    done = go(command, tmp_path / "cache", **more)
    assert done.returncode == 2, done.stderr
    good, bad = json.loads(done.stdout)["runs"]
    assert good["status"] == "done"
    assert (tmp_path / "runs" / f"{good['record']}.json").exists()
    assert "missing.pth" in bad["reason"]


@pytest.mark.slow  # Two raylets, five workers and two sweeps.
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
def test_a_ray_cluster_of_two_nodes_with_a_worker_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # Ray keeps its own files there.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    alone = go(sweep(tmp_path, "local"), tmp_path / "cache-local")
    assert alone.returncode == 0, alone.stderr
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        process = subprocess.Popen(
            sweep(tmp_path, "ray"), env=environment(tmp_path / "cache", RAY_ADDRESS=cluster.address),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        killed, deadline = False, time.monotonic() + 180
        while not killed and time.monotonic() < deadline and process.poll() is None:
            for worker in psutil.process_iter(["cmdline"]):
                if (worker.info["cmdline"] or [""])[0].startswith("ray::do"):
                    worker.kill()
                    killed = True
                    break
            time.sleep(0.05)
        error = process.communicate(timeout=280)[1]
    finally:
        cluster.shutdown()
    assert killed
    assert process.returncode == 0, error
    assert "ray: 2 nodes, 4 tasks" in error
    assert measured(tmp_path / "ray") == measured(tmp_path / "local")
    assert len(measured(tmp_path / "ray")) == 4
