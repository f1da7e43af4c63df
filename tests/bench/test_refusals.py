"""Bad input from the command line: one sentence that says what, where and how to mend it, and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faulthelp import command
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def refusal(*args, cwd=ROOT, **environment):
    return refused(command(*args, cwd=cwd, **environment))


def refused(done):
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("bench: ")
    assert "defect" not in sentence
    return sentence


def features(folder, train=None, test=None, **extra):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for split, n, given in (("train", 20, train), ("test", 10, test)):
        arrays = {"x": rng.standard_normal((n, 4)).astype(np.float32), "y": np.arange(n) % 2, **(given or {})}
        np.savez(folder / f"{split}.npz", **{k: v for k, v in arrays.items() if v is not None})
    return f"features:{folder}"


def on_features(tmp_path, **given):
    return refusal(
        "run", "--model", features(tmp_path / "f", **given), "--suite", "knn,linear", "--runs", tmp_path / "runs"
    )


def test_nan_features_are_counted_and_located(tmp_path):
    x = np.zeros((20, 4), dtype=np.float32)
    x[6, 1], x[7, 0] = np.nan, np.inf
    sentence = on_features(tmp_path, train={"x": x})
    assert "2" in sentence
    assert "6" in sentence
    assert "train" in sentence


def test_widths_that_differ(tmp_path):
    sentence = on_features(tmp_path, test={"x": np.zeros((10, 5), dtype=np.float32)})
    assert "4" in sentence
    assert "5" in sentence


def test_one_class(tmp_path):
    assert "single class" in on_features(tmp_path, train={"y": np.ones(20, dtype=int)})


def test_labels_that_are_not_whole_numbers(tmp_path):
    assert "y" in on_features(tmp_path, train={"y": np.linspace(0, 1, 20)})


def test_lengths_that_differ(tmp_path):
    sentence = on_features(tmp_path, train={"y": np.arange(19) % 2})
    assert "19" in sentence
    assert "20" in sentence


def test_objects_are_never_unpickled(tmp_path):
    on_features(tmp_path, train={"y": np.array([print] * 20, dtype=object)})


def test_labels_from_five_with_gaps_are_no_error(tmp_path):
    spec = features(tmp_path / "f", {"y": 5 + 7 * (np.arange(20) % 3)}, {"y": 5 + 7 * (np.arange(10) % 3)})
    done = command("run", "--model", spec, "--suite", "knn,linear", "--runs", tmp_path / "r")
    assert done.returncode == 0, done.stderr


def pictures(root, **counts):
    for place, count in counts.items():
        folder = root / place.replace("__", "/")
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(folder / f"{i}.png")
    return f"imagefolder:{root}"


def test_an_empty_class_folder(tmp_path):
    spec = pictures(tmp_path / "p", train__a=2, train__b=2, val__a=2, val__b=0)
    sentence = refusal("run", "--model", "demo:mobilenetv2@32", "--suite", "knn", "--data", spec, cwd=tmp_path)
    assert "val/b" in sentence
    assert not (tmp_path / "runs").exists()


def test_one_class_of_pictures(tmp_path):
    spec = pictures(tmp_path / "p", train__a=4, val__a=2)
    sentence = refusal("run", "--model", "demo:mobilenetv2@32", "--suite", "knn", "--data", spec, cwd=tmp_path)
    assert "single class" in sentence


def test_a_ledger_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    spec = features(tmp_path / "f")
    assert "file" in refusal("run", "--model", spec, "--suite", "knn", "--runs", tmp_path / "file")
    assert "file" in refusal("run", "--model", spec, "--suite", "knn", "--runs", tmp_path / "file" / "below")


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    spec = pictures(tmp_path / "p", train__a=4, train__b=4, val__a=2, val__b=2)
    refusal(
        "run", "--model", "demo:mobilenetv2@32", "--suite", "knn", "--data", spec, "--runs", tmp_path / "runs",
        BENCH_CACHE=str(tmp_path / "file" / "cache"),
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"<html><body>404</body></html>", b"\x80\x04K\x01.", b"PK\x03\x04 cut"])
def test_what_is_not_a_checkpoint(tmp_path, content):
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content)
    assert "checkpoint.pth" in refusal("inspect", "--model", path, "--arch", "resnet18")


def test_another_distribution_named_adapters(tmp_path):
    other = tmp_path / "site" / "adapters"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--model", "demo:mobilenetv2", "--suite", "knn", "--data", "demo"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"}, cwd=tmp_path, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    sentence = refused(done)
    assert "'adapters'" in sentence
    assert "virtual environment" in sentence
