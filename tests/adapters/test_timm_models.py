"""``timm:NAME``: pretrained weights or a refusal, never random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from adapters import timm_models
from bench.errors import BenchError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("resnet5O", "nearest: resnet50"),
        ("resnet50.nonsense", "no weights 'nonsense' for resnet50"),
        ("resnet18", "cannot be had from timm/resnet18"),
        ("vit_small_patch16_18x2_224", "random ones are never evaluated"),
    ],
)
def test_refusals(rest: str, words: str) -> None:
    with pytest.raises(BenchError, match=words):
        timm_models.load(rest)


def test_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weights = timm.create_model("resnet18").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(weights))
    backbone = timm_models.load("resnet18@128")
    card = backbone.card
    assert (card.name, card.architecture, card.method, card.weights_key) == (
        "resnet18@128",
        "resnet18",
        "supervised",
        "a1_in1k",
    )
    assert card.transform is not None
    assert card.transform.crop == 128
    assert card.coverage is not None
    assert card.coverage.filled == card.coverage.total == 100
    assert all(torch.equal(backbone.network.state_dict()[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("vit_base_patch16_224.mae", "mae"),
        ("vit_small_patch16_224.dino", "dino"),
        ("vit_small_patch14_dinov2.lvd142m", "dinov2"),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", "supervised"),
        ("resnet50.a1_in1k", "supervised"),
        ("convnextv2_tiny.fcmae", "fcmae"),
        ("convnextv2_tiny.fcmae_ft_in1k", "supervised"),
    ],
)
def test_method_of_the_tag(name: str, method: str) -> None:
    config: dict[str, Any] = timm.get_pretrained_cfg(name).to_dict()
    assert timm_models.method_of(config) == method
