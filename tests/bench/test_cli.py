"""The command line: cheap to start, one sentence for every refusal, stdout for the result alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from faulthelp import command

ROOT = Path(__file__).resolve().parents[2]


def bench(*args: str, **environment: str) -> subprocess.CompletedProcess:
    return command(*args, **{"COLUMNS": "100", **environment})


def refused(result: subprocess.CompletedProcess) -> str:
    """The one sentence of a refusal."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert "Traceback" not in result.stderr
    assert lines[-1].startswith("bench: ")
    assert "a defect in bench" not in lines[-1]
    return lines[-1]


def test_the_module_of_the_commands_is_one_too():
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == bench("--version").stdout.split()
    assert done.stdout.strip()


HEAVY = {
    "torch", "numpy", "pandas", "faiss", "sklearn", "scipy", "timm", "torchvision", "PIL", "datasets", "ray",
    "submitit", "transformers", "yaml", "rich", "jinja2", "altair",
}  # fmt: skip
BUDGETS = [
    (["--version"], set(), 350),
    (["--help"], {"rich"}, 420),
    (["run", "--help"], {"rich"}, 540),
    (["list", "data"], set(), 360),
    (["list", "suites"], {"yaml", "numpy", "PIL"}, 640),
    (["inspect", "--model", "no-such-file.pth"], {"yaml", "numpy", "torch", "scipy", "PIL", "torchvision"}, 4000),
]
"""Arguments -> heavy packages that they may import, and the most modules in all: seconds depend on the machine."""


@pytest.mark.parametrize(("args", "allowed", "most"), BUDGETS)
def test_starting_keeps_its_budget_of_imports(args, allowed, most):
    code = (
        "import sys\n"
        f"sys.argv = ['bench', *{args!r}]\n"
        "try:\n"
        "    from bench.__main__ import main; main()\n"
        "except SystemExit: pass\n"
        "print('MODULES', *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    modules = done.stdout.split("MODULES", 1)[1].split()
    assert {name.split(".")[0] for name in modules} & HEAVY <= allowed
    assert len(modules) < most


def test_listing_suites_and_data_imports_no_framework():
    code = (
        "import sys\n"
        "from bench.listing import LISTINGS\n"
        "[LISTINGS[what]() for what in ('suites', 'protocols', 'data')]\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert not set(done.stdout.split()) & {"torch", "faiss", "pandas", "timm", "sklearn"}


@pytest.mark.parametrize("what", ["models", "suites", "protocols", "data"])
def test_lists(what):
    table = bench("list", what)
    assert table.returncode == 0, table.stderr
    rows = json.loads(bench("list", what, "--json").stdout)
    assert len(table.stdout.splitlines()) == len(rows) + 1
    assert rows


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run"], ["--model"]),
        (["run", "--model", "demo:mobilenetv2"], ["--suite"]),
        (["run", "--model", "x.pth", "--suite", "knnn"], ["unknown suite 'knnn'", "nearest: knn"]),
        (["run", "--model", "x.pth", "--suite", "knn", "--protocol", "knn=dinoo"], ["knn/dino"]),
        (["run", "--model", "x.pth", "--suite", "knn", "--protocol", "linear=logreg"], ["suite 'linear' is not run"]),
        (["run", "--model", "x.pth", "--suite", "knn", "--set", "knn.kk=3"], ["no option 'kk'"]),
        (["run", "--model", "x.pth", "--suite", "knn", "--set", "knn.k=ten"], ["knn.k", "whole number"]),
        (["run", "--model", "x.pth", "--suite", "knn", "--set", "k=3"], ["--set takes suite.option=value"]),
        (["run", "--model", "missing.pth", "--suite", "knn", "--data", "demo"], ["missing.pth"]),
        (["run", "--model", "dem:x", "--suite", "knn", "--data", "demo"], ["nearest: demo"]),
        (["run", "--model", "demo:mobilenetv2", "--suite", "knn", "--data", "demoo"], ["demoo", "demo"]),
        (["run", "--model", "demo:mobilenetv2", "--suite", "knn", "--data", "imagefolder:/no/such"], ["/no/such"]),
        (["run", "--model", "x", "--suite", "knn", "--limit", "0"], ["--limit"]),
        (["run", "--model", "", "--suite", "knn"], ["--model"]),
        (["run", "--model", "x", "--suite", ""], ["--suite"]),
        (["run", "--model", "x", "--suite", "knn", "--data", ""], ["data is empty"]),
        (["run", "--model", "x", "--suite", "knn", "--runs", ""], ["--runs", "empty"]),
        (["run", "--model", "x", "--suite", "knn", "--name", b"\xff"], ["name", "UTF-8"]),
        (
            ["run", "--model", "demo:mobilenetv2", "--suite", "knn", "--data", "demo", "--runs", "/dev/null/runs"],
            ["/dev/null"],
        ),
        (["run", "--model", "timm:qqqq", "--suite", "knn", "--data", "demo"], ["qqqq"]),
        (["run", "--model", "x", "--suite", "knn", "--precision", "fp8"], ["precision"]),
        (["run", "--model", "x", "--suite", "knn", "--device", "tpu", "--data", "demo"], ["tpu"]),
        (["run", "--from", "no-record.json"], ["no-record.json"]),
        (["run", "--from", "r.json", "--model", "x"], ["--model cannot go with it"]),
        (["list", "modles"], ["nearest: models"]),
        (["publish", "--runs", "no-such-ledger", "--out", "site"], ["no-such-ledger"]),
        (["publish", "--runs", ".", "--out", ""], ["--out", "empty"]),
        (["frobnicate"], ["frobnicate"]),
        (["inspect", "--model", "README.md"], ["README.md"]),
    ],
)
def test_refusals_are_one_sentence(args, words, tmp_path):
    sentence = refused(bench(*args, BENCH_CACHE=str(tmp_path)))
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("args", [["list", "suites"], ["list", "models", "--json"], ["--version"], ["--help"]])
def test_an_output_that_takes_no_more_is_one_sentence(args):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bench", *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, cwd=ROOT
        )
    assert done.returncode == 2
    [sentence] = done.stderr.strip().splitlines()
    assert "could not be read or written: No space left" in sentence


def test_json_prints_the_record_alone(features_dir, tmp_path):
    done = bench("run", "--model", f"features:{features_dir}", "--suite", "knn", "--runs", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["schema"] == 1
    assert json.loads((tmp_path / f"{record['run']}.json").read_text()) == record


def test_a_record_can_be_run_again(features_dir, tmp_path):
    args = ["--suite", "knn,linear", "--set", "linear.C=0.01", "--set", "knn.k=5", "--seed", "3", "--json"]
    first = json.loads(bench("run", "--model", f"features:{features_dir}", "--runs", str(tmp_path), *args).stdout)
    again = bench("run", "--from", str(tmp_path / f"{first['run']}.json"), "--runs", str(tmp_path), "--json")
    assert again.returncode == 0, again.stderr
    second = json.loads(again.stdout)
    assert second["run"] != first["run"]
    for record in (first, second):
        for measurement in record["measurements"]:
            measurement.pop("seconds")
            measurement.pop("outcomes")
    assert second["measurements"] == first["measurements"]
    assert {m["protocol"] for m in first["measurements"]} == {"knn/dino@1+k=5", "linear/logreg@1+C=0.01"}


def test_a_record_is_not_repeated_on_other_features(features_dir, tmp_path):
    import numpy as np

    first = json.loads(
        bench("run", "--model", f"features:{features_dir}", "--suite", "knn", "--runs", str(tmp_path), "--json").stdout
    )
    with np.load(features_dir / "test.npz") as stored:
        x, y = stored["x"] + 1, stored["y"]
    np.savez(features_dir / "test.npz", x=x, y=y)
    sentence = refused(bench("run", "--from", str(tmp_path / f"{first['run']}.json"), "--runs", str(tmp_path)))
    assert "the weights of the model are not those of the record" in sentence
