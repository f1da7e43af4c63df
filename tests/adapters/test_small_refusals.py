"""What users mistype or hand over wrongly: one sentence each, with the remedy."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch

import bench
from adapters import demo, nearby, timm_models, torchvision_models
from adapters.networks import build
from bench.backbone import Backbone
from bench.errors import BenchError


@pytest.fixture(scope="module", params=["resnet10t", "wrn_16_1", "torchvision:squeezenet1_1"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    name = request.param
    torch.manual_seed(0)
    if name.startswith("torchvision:"):
        network = torchvision_models.build(name.removeprefix("torchvision:"))
    else:
        network = build(name) if name.startswith("wrn") else timm.create_model(name)
    file = tmp_path_factory.mktemp("files") / "net.pth"
    torch.save(network.state_dict(), file)
    found = bench.load(file, arch=name)
    assert isinstance(found, Backbone)
    return found


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (None, "not from None"),
        (np.zeros((1, 3, 32, 32), np.float32), "not from a ndarray"),
        ([[1.0]], "not from a list"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "images of uint8"),
        (torch.zeros(3, 32, 32), r"shape \[3, 32, 32\]"),
        (torch.zeros(1, 32, 32, 3), r"shape \[1, 32, 32, 3\]"),
        (torch.zeros(1, 3, 4, 32, 32), r"shape \[1, 3, 4, 32, 32\]"),
    ],
)
def test_what_are_no_images(backbone: Backbone, images: Any, words: str) -> None:
    for read in (backbone.features, backbone.pyramid, backbone):
        with pytest.raises(BenchError, match=rf"{words}: images are normalised, float \[B, 3, H, W\]"):
            read(images)


@pytest.mark.parametrize("arch", ["resnet18 ", " resnet18", "resnet18\t", "resnet18 (num_classes=10)", "resnet 18"])
def test_spaces_in_an_architecture_s_name(arch: str, tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "net.pth")
    with pytest.raises(BenchError, match="--arch|arch holds"):
        bench.load(tmp_path / "net.pth", arch=arch)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vits16", "vit_small_patch16_224"),
        ("rn50", "resnet50"),
        ("dinov2-vits14", "vit_small_patch14_dinov2"),
        ("convnext-v2-tiny", "convnextv2_tiny"),
        ("resnet5O", "resnet50"),
        ("", ""),
        ("q" * 5000, ""),
    ],
)
def test_the_nearest_names(name: str, expected: str) -> None:
    text = nearby.nearest(name, timm.list_models())
    assert expected in text
    assert len(text) < 200


def test_an_unknown_model_of_timm_has_near_names() -> None:
    with pytest.raises(BenchError, match="timm has no model 'vits16'; nearest: vit_small_patch16_224"):
        timm_models.load("vits16")


@pytest.mark.parametrize("size", ["9999", "4097", "99999"])
def test_an_input_without_measure(size: str) -> None:
    with pytest.raises(BenchError, match="too large, 4,096 are the most"):
        demo.load(f"mobilenetv2@{size}")


def test_broken_weights_of_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = torch.load(demo._file("mobilenetv2", demo.ENCODERS["mobilenetv2"]), weights_only=True)
    name = next(iter(broken))
    broken[name] = broken[name] * float("nan")
    monkeypatch.setattr(demo.torch, "load", lambda *_, **__: broken)
    with pytest.raises(BenchError, match=r"demo:mobilenetv2: 1 of its tensors \(conv_stem.weight\) have NaN"):
        demo.load("mobilenetv2")
    network = timm.create_model("resnet10t")
    torch.nn.init.constant_(network.conv1[0].weight, float("inf"))
    monkeypatch.setattr(timm_models, "_config", lambda _: {"architecture": "resnet10t"})
    monkeypatch.setattr(timm_models, "_pretrained", lambda *_: network)
    with pytest.raises(BenchError, match=r"timm:resnet10t: 1 of its tensors \(conv1.0.weight\) have NaN"):
        timm_models.load("resnet10t")
    state = torchvision_models.build("squeezenet1_1").state_dict()
    state["features.0.bias"] = state["features.0.bias"] * float("nan")
    with warnings.catch_warnings(), pytest.raises(BenchError, match=r"torchvision:squeezenet1_1: 1 of its tensors"):
        warnings.simplefilter("ignore")
        torchvision_models.assemble("squeezenet1_1", state, SimpleNamespace())  # type: ignore[arg-type]
