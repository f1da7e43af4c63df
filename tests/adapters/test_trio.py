"""The distilled trio: small, found by shape, as good as recorded, and a teacher's head that fits its encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bench
from bench.data.opening import open_data

FOLDER = Path(bench.__file__).parents[1] / "adapters" / "trio"
SEEDS = json.loads((FOLDER / "seeds.json").read_text())


def test_below_one_megabyte_together() -> None:
    files = sorted(path.name for path in FOLDER.glob("*.safetensors"))
    assert files == ["student_kd.safetensors", "student_plain.safetensors", "teacher_head.safetensors"]
    assert sum((FOLDER / name).stat().st_size for name in files) < 1_000_000


def test_trained_on_the_demo_images() -> None:
    test = open_data("demo").test
    assert SEEDS["images"] == len(open_data("demo").train)
    assert len(SEEDS["test_top1"]["kd"]) == len(SEEDS["test_top1"]["plain"]) >= 5
    assert len(test) == 1000


@pytest.mark.parametrize("arm", ["kd", "plain"])
def test_students_load_by_path_and_classify_as_recorded(arm: str) -> None:
    backbone = bench.load(FOLDER / f"student_{arm}.safetensors")
    assert backbone.card.architecture == SEEDS["student"]
    assert backbone.card.dims == {"pooled": 64, "avg": 64, "logits": 10}
    test = open_data("demo").test
    with torch.inference_mode():
        images = torch.stack([backbone.preprocess(test.image(i)) for i in range(len(test))])
        predicted = backbone.features(images)["logits"].argmax(1).numpy()
    # 1 000 of the 10 000 test images on which seed 0 was recorded.
    assert 100 * np.mean(predicted == test.labels) == pytest.approx(SEEDS["test_top1"][arm][0], abs=3.0)


def test_head_fits_the_encoder() -> None:
    head = load_file(FOLDER / "teacher_head.safetensors")
    encoder = bench.load(SEEDS["encoder"])
    assert head["weight"].shape == (10, encoder.card.dims["pooled"])
    assert head["bias"].shape == (10,)
