"""The benchmarks' own arithmetic, and every workload at a size that takes no time."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """A module of ``benchmarks/``, forgotten afterwards: its names are common ones."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_pairs_tell_slower_from_faster_from_neither(load):
    judge = load("compare").judge
    quiet = [1.0, 1.1, 0.9, 1.05, 1.3]
    slower = judge(quiet, [1.1 * a * noise for a, noise in zip(quiet, (1, 1.01, 0.99, 1.02, 1), strict=True)])
    assert slower.word == "SLOWER"
    assert slower.low < 1.1 < slower.high
    assert judge(quiet, [0.8 * a for a in quiet]).word == "faster"
    same = judge(quiet, [a * noise for a, noise in zip(quiet, (1.3, 0.8, 1.1, 0.9, 1.0), strict=True)])
    assert same.word == "no difference shown"
    assert same.low < 1 < same.high
    # A difference that is certain and too small to count.
    assert judge(quiet, [1.01 * a for a in quiet]).word == "no difference shown"
    assert judge([1.0], [2.0]).word == "cannot be told from one pair"


def test_the_interval_is_students(load):
    first, second = np.array([1.0, 2.0, 3.0, 1.5]), np.array([1.2, 2.1, 3.9, 1.6])
    found = load("compare").judge(first, second)
    other = ttest_rel(np.log(second), np.log(first)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((np.exp(other.low), np.exp(other.high)))


def test_two_files_are_compared(load, tmp_path, capsys, monkeypatch):
    compare = load("compare")
    for name, factor in (("a", 1.0), ("b", 1.5)):
        rounds = [{"name": "knn", "n": 10, "cpu": factor * t, "peak": 1.0} for t in (1.0, 1.1, 1.2)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"rounds": rounds}))
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    with pytest.raises(SystemExit) as leaving:
        compare.main()
    assert leaving.value.code == 1
    assert "1.500 (1.500 to 1.500) SLOWER" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "b.json"), str(tmp_path / "a.json")])
    with pytest.raises(SystemExit) as leaving:
        compare.main()
    assert leaving.value.code == 0


def test_two_references_are_measured_in_turn_and_leave_nothing(load, monkeypatch):
    compare = load("compare")
    if subprocess.run(["git", "-C", str(BENCHMARKS.parent), "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("no git checkout")
    trees = []

    def apart(name, n, root):
        assert (root / "bench" / "cli.py").is_file()
        trees.append(root)
        return {"name": name, "n": n, "cpu": 2.0 if root.name == "second" else 1.0, "peak": 1.0}

    monkeypatch.setattr(compare, "apart", apart)
    first, second = compare.in_turn("HEAD", "HEAD", ["knn", "store"], 2, 0.5)
    assert [tree.name for tree in trees] == ["first", "second", "second", "first"] * 2
    assert set(first) == set(second) == {("knn", 100_000), ("store", 100_000)}
    assert [one["cpu"] for one in second["knn", 100_000]] == [2.0, 2.0]
    listed = subprocess.run(
        ["git", "-C", str(BENCHMARKS.parent), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert not any(tree.exists() or str(tree) in listed.stdout for tree in trees)
    with pytest.raises(SystemExit, match="no-such-reference"):
        compare.in_turn("HEAD", "no-such-reference", ["knn"], 1, 1)


def test_a_line_says_whether_doubling_the_data_doubles_the_time(load):
    line = load("scaling").line
    rounds = [{"n": n, "cpu": t, "peer": 1.0, "peak": 1.0} for n, t in ((10, 1.0), (20, 2.1), (10, 1.0), (20, 2.1))]
    assert "1.05 of twice, 1.05 without the system's part (doubles)" in line("knn", rounds)
    rounds[1]["cpu"] = rounds[3]["cpu"] = 2.4
    assert "1.20 of twice, 1.20 without the system's part (DOES NOT DOUBLE)" in line("knn", rounds)
    # Of the larger size 0.3 s, of the smaller nothing went into the system's giving out memory.
    rounds[1]["system"] = rounds[3]["system"] = 0.3
    assert "1.20 of twice, 1.05 without the system's part (doubles but for the system's part)" in line("knn", rounds)
    rounds[1]["cpu"] = rounds[3]["cpu"] = 1.5
    assert "(less: fixed costs)" in line("knn", rounds)


@pytest.mark.parametrize("name", ["store", "knn", "ridge", "heads", "logistic"])
def test_a_workload_does_its_work(name, load, tmp_path, monkeypatch):
    workloads = load("workloads")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    found = workloads.measure(name, 256 if name == "logistic" else 2048)
    assert found["cpu"] > 0
    assert found["peak"] > 0
    assert 0 <= found["system"] <= found["cpu"]


@pytest.mark.slow  # A gigabyte of features and two processes that import everything.
def test_a_large_bank_stays_on_disk(tmp_path):
    """A third of the million rows of `benchmarks/outofcore.py`, in a third of its 3 GB and what torch itself takes."""
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "outofcore.py"), "--bank", "330000", "--queries", "500", "--classes", "100"],
        capture_output=True, text=True, timeout=800, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peaks = dict(re.findall(r"(\w+): .* peak ([\d.]+) GB", done.stdout))
    assert set(peaks) == {"knn", "ridge"}
    assert float(peaks["knn"]) < 1.9
    # Never the half gigabyte of the bank, which ridge reads block by block.
    assert float(peaks["ridge"]) < 0.9
