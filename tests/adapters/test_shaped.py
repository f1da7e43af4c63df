"""Transformers without a name of their own: arguments from shapes, and what shapes cannot tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import close, filled, images

import bench
from adapters.architecture import Architecture
from adapters.matching import match
from adapters.weightsets import WeightSet
from bench.errors import BenchError


def _whole(name: str, **arguments: Any) -> dict[str, tuple[int, ...]]:
    return {n: tuple(s) for n, s in Architecture(name).with_arguments(**arguments).outline().needed.items()}


def _match(shapes: dict[str, tuple[int, ...]]) -> Any:
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return match([WeightSet("model", tensors)], arch=None, weights_key=None, file="weights.pth")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_base_patch16_224", {"embed_dim": 320, "depth": 7, "num_heads": 5}),
        ("vit_base_patch16_224", {"patch_size": 4, "img_size": 224}),
        ("vit_large_patch16_224", {"patch_size": 7, "img_size": 224}),
        ("vit_small_patch16_224", {"qkv_bias": False}),
        ("vit_giant_patch14_dinov2", {"embed_dim": 384, "depth": 12, "num_heads": 6, "img_size": 98}),
        ("vit_base_patch14_reg4_dinov2", {"embed_dim": 128, "depth": 4, "num_heads": 2, "img_size": 224}),
        ("beit_base_patch16_224", {"embed_dim": 128, "depth": 4, "num_heads": 2}),
    ],
)
def test_the_arguments_are_those_of_the_shapes(name: str, arguments: dict[str, Any]) -> None:
    found = _match(_whole(name, **arguments))
    assert found.fit.complete
    meant = {**dict(found.architecture.arguments), "num_classes": 0, **arguments}
    assert dict(found.outline.needed) == _whole(name, **{k: v for k, v in meant.items() if k in arguments})
    assert dict(found.architecture.arguments)["num_heads"] == (
        arguments.get("num_heads") or dict(Architecture(name).arguments).get("num_heads", _heads(name))
    )


def _heads(name: str) -> int:
    return {"vit_small": 6, "vit_base": 12, "vit_large": 16}["_".join(name.split("_")[:2])]


def test_its_features_are_timm_s_and_the_guess_is_told(tmp_path: Path) -> None:
    network = timm.create_model(
        "vit_base_patch16_224", embed_dim=128, depth=3, num_heads=2, patch_size=8, img_size=32, num_classes=0
    )
    filled(network).requires_grad_(False)
    torch.save({"model": network.state_dict()}, tmp_path / "mine.pth")
    backbone = bench.load(tmp_path / "mine.pth")
    assert close(backbone.features(images(32))["cls"], network.forward_features(images(32))[:, 0])
    assert any("2 heads, of 64, are assumed" in note for note in backbone.card.notes)


def test_half_of_the_blocks_is_no_design_of_its_own() -> None:
    whole = _whole("vit_small_patch16_224")
    shapes = {name: shape for name, shape in whole.items() if not re.match(r"blocks\.(?:[6-9]|1\d)\.", name)}
    with pytest.raises(BenchError, match=r"fill 78 of 150 .*such as vit_small_patch16_224\(depth=6\)"):
        _match(shapes)


def test_a_wrong_architecture_is_refused_with_the_arguments_of_the_right_one() -> None:
    tensors = {
        name: torch.empty(shape, device="meta")
        for name, shape in _whole("vit_base_patch16_224", embed_dim=320, depth=7, num_heads=5).items()
    }
    with pytest.raises(BenchError) as refusal:
        match([WeightSet("model", tensors)], arch="vit_small_patch16_224", weights_key=None, file="weights.pth")
    offered = re.search(r"use --arch '(.*)'$", str(refusal.value))
    assert offered is not None
    found = match([WeightSet("model", tensors)], arch=offered[1], weights_key=None, file="weights.pth")
    assert found.fit.complete


def test_a_hole_among_the_blocks_is_no_design_of_its_own() -> None:
    shapes = _whole("vit_base_patch16_224", embed_dim=320, depth=7, num_heads=5)
    with pytest.raises(BenchError):
        _match({name: shape for name, shape in shapes.items() if not name.startswith("blocks.3.")})
