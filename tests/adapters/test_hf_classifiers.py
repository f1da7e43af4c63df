"""Hugging Face folders with a classifier that reads more than the pooled feature: logits as transformers gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hfhelp import made, saved
from layouthelp import close, images

import bench
from bench.backbone import Backbone
from bench.errors import BenchError

pytest.importorskip("transformers", reason="the extra huggingface is not installed")

FIELDS = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 256, "image_size": 56,
    "patch_size": 14, "num_labels": 5,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2": ("Dinov2ForImageClassification", {}),
    "dinov2_with_registers": ("Dinov2WithRegistersForImageClassification", {"num_register_tokens": 4}),
    "ijepa": ("IJepaForImageClassification", {}),
}


@pytest.mark.parametrize("kind", CASES)
def test_logits_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    name, more = CASES[kind]
    model = made(kind, {**FIELDS, **more}, name)
    backbone = bench.load(saved(model, tmp_path))
    assert isinstance(backbone, Backbone)
    pixels = images(56)
    with torch.no_grad():
        out, expected = backbone.features(pixels), model(pixels).logits
    assert not backbone.card.architecture.startswith("transformers:")
    assert close(out["logits"], expected)
    assert backbone.card.dims["logits"] == 5
    assert backbone.card.coverage is not None
    assert not [left for left in backbone.card.coverage.heads if "head" in left]
    assert "logits" not in bench.load(_without(model, tmp_path / "base")).card.dims
    with torch.no_grad():
        model.classifier.weight[0, 0] += 1
    other = bench.load(saved(model, tmp_path / "other"))
    assert other.card.weight_digest != backbone.card.weight_digest
    assert other.card.parameters == backbone.card.parameters


def _without(model: Any, folder: Path) -> Path:
    return saved(getattr(model, model.base_model_prefix), folder)


def test_a_classifier_of_nan_is_refused(tmp_path: Path) -> None:
    model = made("dinov2", FIELDS, CASES["dinov2"][0])
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    with pytest.raises(BenchError, match=r"head\.bias\) have NaN"):
        bench.load(saved(model, tmp_path))
