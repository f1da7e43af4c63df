"""`bench run --from`: the same run again, and never something else that passes for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bench
from bench.api import repeat

MODEL = "demo:mobilenetv2@32"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for number, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = (rng.integers(0, 90, (32, 32, 3)) + 150 * number).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def record(pictures: Path, tmp_path: Path) -> Path:
    made = bench.run(
        MODEL, ["knn"], f"imagefolder:{pictures}", settings={"knn.k": 3}, runs=tmp_path / "runs", workers=0
    )
    return tmp_path / "runs" / f"{made.run}.json"


def test_the_same_inputs_give_the_same_numbers(record: Path) -> None:
    again = repeat(record, workers=0)
    then = json.loads(record.read_text())
    assert [m.value for m in again.measurements] == [m["value"] for m in then["measurements"]]
    assert again.inputs == then["inputs"]
    assert len(again.inputs) == 3


def _add_to_train(root: Path) -> None:
    shutil.copy(root / "train/dark/0.png", root / "train/light/copy.png")


def _add_to_test(root: Path) -> None:
    shutil.copy(root / "val/dark/0.png", root / "val/light/copy.png")


def _swap_labels(root: Path) -> None:
    (root / "train/dark").rename(root / "train/between")
    (root / "train/light").rename(root / "train/dark")
    (root / "train/between").rename(root / "train/light")


@pytest.mark.parametrize(
    ("change", "part"), [(_add_to_train, "training"), (_add_to_test, "test"), (_swap_labels, "training")]
)
def test_other_samples_are_refused(record: Path, pictures: Path, change: Callable[[Path], None], part: str) -> None:
    change(pictures)
    with pytest.raises(bench.BenchError, match=f"the {part} samples of the data are not those of the record"):
        repeat(record, workers=0)


def test_a_record_whose_data_set_has_another_name_is_still_checked(record: Path, pictures: Path) -> None:
    document = json.loads(record.read_text())
    for measurement in document["measurements"]:
        measurement["dataset"] = "renamed"
    record.write_text(json.dumps(document))
    _add_to_test(pictures)
    with pytest.raises(bench.BenchError, match="are not those of the record"):
        repeat(record, workers=0)


def test_a_record_that_does_not_say_what_it_read_is_refused(record: Path) -> None:
    document = json.loads(record.read_text())
    document["inputs"] = {}
    record.write_text(json.dumps(document))
    with pytest.raises(bench.BenchError, match="does not say what it read"):
        repeat(record, workers=0)


def test_weights_that_are_read_differently_are_refused(record: Path) -> None:
    document = json.loads(record.read_text())
    document["model"]["transform"]["crop"] = 31
    record.write_text(json.dumps(document))
    with pytest.raises(bench.BenchError, match=r"reads the model of the record .* differently: transform is .*crop 31"):
        repeat(record, workers=0)


def _features(folder: Path, seed: int, *, logits: bool = True) -> str:
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        y = np.arange(40) % 4
        x = rng.normal(size=(40, 6)).astype(np.float32) + y[:, None]
        np.savez(folder / f"{split}.npz", x=x, y=y, **({"logits": x[:, :4]} if logits else {}))
    return f"features:{folder}"


def _relabel(folder: Path, split: str) -> None:
    with np.load(folder / f"{split}.npz") as file:
        arrays = dict(file)
    arrays["y"] = arrays["y"][::-1]
    np.savez(folder / f"{split}.npz", **arrays)


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_labels_of_the_same_features_are_refused(tmp_path: Path, split: str) -> None:
    made = bench.run(_features(tmp_path / "x", 0), ["knn"], settings={"knn.k": 3}, runs=tmp_path / "runs")
    _relabel(tmp_path / "x", split)
    with pytest.raises(bench.BenchError, match=r"samples of the model are not those of the record"):
        repeat(tmp_path / "runs" / f"{made.run}.json")


@pytest.mark.parametrize("role", ["teacher", "baseline"])
def test_another_teacher_or_baseline_at_the_same_place_is_refused(tmp_path: Path, role: str) -> None:
    student, teacher, plain = (_features(tmp_path / name, i) for i, name in enumerate(("s", "teacher", "baseline")))
    made = bench.run(
        student, ["agreement"], teacher=teacher, settings={"agreement.baseline": plain}, runs=tmp_path / "runs"
    )
    path = tmp_path / "runs" / f"{made.run}.json"
    assert [m.value for m in repeat(path).measurements] == [m.value for m in made.measurements]
    _features(tmp_path / role, 9)
    with pytest.raises(bench.BenchError, match=rf"the weights of .*{role} are not those of the record"):
        repeat(path)
