"""`bench sweep`: one record per run, nothing computed twice, no failure stops the others, bad files in a sentence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulthelp import command

import bench
from bench import sweep

ROOT = Path(__file__).resolve().parents[2]


def written(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no mapping"),
        ("- a", "holds no mapping"),
        ("models: [a", "line 1: not YAML"),
        ("suites: [knn]\nmodels: []", r"line 2: models: List should have at least 1"),
        ("suites: [knn]\nmodles: [demo:trio-kd]\n", r"line 2: unknown key 'modles'; nearest: models"),
        ("suites: [knn]\n", r"line 1: `models` is missing"),
        ("suites: [knn]\nmodle: x\nmodels: [a.pth]", "line 2: unknown key 'modle'; nearest: models"),
        (
            "suites: [knn]\nmodels:\n  - a.pth\n  - {model: b.pth, arhc: x}",
            "line 4: unknown key 'models.1.arhc'; nearest: arch",
        ),
        ("suites: [knn]\nmodels:\n  - {name: x}", r"line 3: `models\.0\.model` is missing"),
        ("suites: [knn]\nmodels: [a.pth]\nseed: one", "line 3: seed"),
        ("suites: [knn]\nmodels: [a.pth]\nseed: [-1]", "model 'a.pth': seed: .*greater than or equal to 0"),
        ("models: [a.pth]", "no suites for a.pth"),
        ("suites: [knn]\nmodels: [a.pth]\nset: {linear.C: 1}", "'linear.C' is set, but suite 'linear' is not run"),
        ("suites: [knn]\nmodels: [a.pth, a.pth]", "runs 1 and 2 are the same"),
        ("suites: &x [knn]\nmodels: [{model: a.pth, suites: *x}]", "aliases"),
        ("suites: [knn]\nmodels: ['']", "model is empty"),
        ("a: " + "[" * 50_000, "nested over 100 deep"),
        ("suites: [knn]\nmodels: [a.pth]\nmodels: [b.pth]", "line 3: 'models' is there twice"),
        ("suites: [knn]\nmodels:\n  - {model: a.pth, arch: x, arch: y}", "line 3: 'arch' is there twice"),
        ("suites: [knn]\nmodels: [a.pth]\nlimit: 2020-13-45", "sweep.yaml"),
    ],
)
def test_a_file_at_fault_is_one_sentence_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(bench.BenchError, match=said) as refusal:
        sweep.read(written(tmp_path, text))
    assert "\n" not in " ".join(str(refusal.value).splitlines()[:1])


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(bench.BenchError, match="cannot be read"):
        sweep.read(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(bench.BenchError, match="no text"):
        sweep.read(tmp_path / "bytes.yaml")


def test_what_is_said_for_all_and_for_one(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/a.pth").touch()
    requests = sweep.read(
        written(
            tmp_path,
            """
            suites: knn, linear
            data: [demo, "imagefolder:nets"]
            seed: [0, 1]
            set: {knn.k: [3, 5], linear: {C: 0.5}}
            protocol: {knn: lightly}
            models:
              - nets/a.pth
              - {model: demo:mobilenetv2, name: small, suites: [knn], data: demo, seed: 7, set: {knn.k: 9}, limit: 50}
            """,
        )
    )
    assert len(requests) == 2 * 2 + 1
    first, last = requests[0], requests[-1]
    assert first.model == str(tmp_path / "nets/a.pth")
    assert first.suites == ["knn", "linear"]
    assert first.settings == {"knn.k": [3, 5], "linear.C": 0.5}
    assert {(r.data, r.seed) for r in requests[:4]} == {
        (data, seed) for data in ("demo", f"imagefolder:{tmp_path / 'nets'}") for seed in (0, 1)
    }
    assert (last.name, last.suites, last.data, last.seed, last.limit) == ("small", ["knn"], "demo", 7, 50)
    assert last.settings == {"knn.k": 9}  # What is set for linear does not concern it.
    assert last.protocols == {"knn": "lightly"}


def run(*args: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return command("sweep", *args, BENCH_CACHE=str(cache))


def features(folder: Path, seed: int) -> str:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for split in ("train", "test"):
        y = np.arange(40) % 4
        x = (rng.normal(size=(40, 6)) + y[:, None]).astype(np.float32)
        np.savez(folder / f"{split}.npz", x=x, y=y, logits=x[:, :4])
    return f"features:{folder.name}"


SWEEP = """
suites: [knn]
data: demo
limit: 30
set: {knn.k: 3}
models:
  - demo:trio-plain
  - {model: missing.pth, name: lost}
  - {model: demo:trio-kd, suites: [knn, agreement], teacher: demo:trio-plain}
  - {model: demo:trio-plain, name: elsewhere, data: "imagefolder:nowhere"}
  - "features:student"
"""


def test_from_the_command_line(tmp_path: Path) -> None:
    features(tmp_path / "student", 0)
    file, runs = written(tmp_path, SWEEP), tmp_path / "runs"

    def go(*more: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
        done = run(str(file), "--runs", str(runs), "--workers", "0", "--json", *more, cache=tmp_path / "cache")
        return done, json.loads(done.stdout)["runs"]

    planned, steps = go("--plan")
    assert planned.returncode == 2  # A run that cannot be is known before any work.
    assert [s["status"] for s in steps] == ["to do", "to do", "to do", "failed", "to do"]
    assert "180 images to forward" in planned.stderr  # trio-plain once, though two runs read it, trio-kd, the lost one
    assert not runs.exists()

    done, steps = go()
    assert done.returncode == 2
    assert "2 of 5 runs failed (2, 4)" in done.stderr.splitlines()[-1], done.stderr
    assert "\\n" not in done.stderr  # The plan is a line a run, not one line that spells its breaks.
    assert [s["status"] for s in steps] == ["done", "failed", "done", "failed", "done"]
    assert "missing.pth" in steps[1]["reason"]
    assert "nowhere" in steps[3]["reason"]
    records = {path.stem: json.loads(path.read_text()) for path in runs.glob("*.json")}
    assert sorted(records) == sorted(s["record"] for s in steps if s["record"])
    assert records[steps[2]["record"]]["environment"]["images_forwarded"] == 60  # The teacher's were in the store.
    alone = bench.run("demo:trio-plain", ["knn"], "demo", limit=30, settings={"knn.k": 3}, workers=0)
    assert [m["value"] for m in records[steps[0]["record"]]["measurements"]] == [m.value for m in alone.measurements]

    again, steps = go()
    assert again.returncode == 2
    assert [s["status"] for s in steps] == ["done before", "failed", "done before", "failed", "done before"]
    assert len(list(runs.glob("*.json"))) == 3

    # Other features at the same place are another run, although the file asks for the same.
    for split in ("train", "test"):
        (tmp_path / "student" / f"{split}.npz").unlink()
    (tmp_path / "student").rmdir()
    features(tmp_path / "student", 1)
    file.write_text(SWEEP.replace("  - {model: missing.pth, name: lost}\n", "").replace("imagefolder:nowhere", "demo"))
    last, steps = go()
    assert last.returncode == 0, last.stderr
    assert [s["status"] for s in steps] == ["done before", "done before", "done", "done"]
    assert "at the rates of earlier records" in last.stderr or "less what the store holds" in last.stderr


def test_a_launcher_that_is_not_there(tmp_path: Path) -> None:
    done = run(str(written(tmp_path, SWEEP)), "--launcher", "smoke-signals", cache=tmp_path)
    assert done.returncode == 2
    assert "unknown launcher" in done.stderr


def test_vary_is_a_grid_of_settings_and_axes(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        suites: [knn, cost]
        set: {knn.k: [5], cost.batch: 1}
        vary: {size: [32, 64], knn.block: [1, 2]}
        models: [demo:mobilenetv2, {model: demo:efficientnet-lite0, suites: [cost], vary: {cost.size: [32]}, set: {}}]
        """,
    )
    with pytest.raises(bench.BenchError, match=r"vary\.size: none of the suites \(cost\)"):
        sweep.read(path)
    path.write_text(path.read_text().replace("suites: [cost]", "suites: [ridge]").replace("cost.size", "ridge.points"))
    requests = sweep.read(path)
    first = [{k: v for k, v in r.settings.items() if k in ("knn.size", "knn.block")} for r in requests[:4]]
    assert first == [{"knn.size": s, "knn.block": b} for s in (32, 64) for b in (1, 2)]
    assert [r.settings for r in requests[4:]] == [{"ridge.size": s, "ridge.points": 32} for s in (32, 64)]
    steps = sweep.plan([r.model_copy(update={"data": "demo", "limit": 6}) for r in requests[:4]], tmp_path)
    assert [step.varied for step in steps] == [f"knn.size={s}, knn.block={b}" for s in (32, 64) for b in (1, 2)]
    # Of cost there is nothing to forward from data; kNN's two sizes are two passes, whatever the block.
    assert {one.size for step in steps for one in step.passes} >= {32, 64}


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ("{knn.k: 5}", "is a list of one or more values"),
        ("{size: []}", "is a list of one or more values"),
        ("{size: [32, 32]}", "gives a value twice"),
        ("{sise: [32]}", r"no axis .* and no suite\.option"),
        ("{linear.C: [1, 2]}", "'linear.C' is set, but suite 'linear' is not run"),
    ],
)
def test_vary_at_fault(tmp_path: Path, vary: str, said: str) -> None:
    with pytest.raises(bench.BenchError, match=said):
        sweep.read(written(tmp_path, f"suites: [knn]\nmodels: [demo:mobilenetv2]\nvary: {vary}"))
