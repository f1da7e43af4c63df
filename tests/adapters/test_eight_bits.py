"""Eight-bit floating-point weights: exact where nothing scales them, refused where something does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import filled, images
from safetensors.torch import save_file

import bench
from bench.errors import BenchError

SMALL: dict[str, Any] = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2}
ARCH = "vit_small_patch16_224(img_size=32, embed_dim=64, depth=2, num_heads=2)"


def _network() -> Any:
    network = timm.create_model("vit_small_patch16_224", num_classes=0, **SMALL)
    return filled(network).requires_grad_(False)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("container", ["safetensors", "torch"])
def test_numbers_without_a_scale_are_read_as_they_are(kind: torch.dtype, container: str, tmp_path: Path) -> None:
    network = _network()
    tensors = {n: t.to(kind) if t.ndim == 2 else t for n, t in network.state_dict().items()}
    path = tmp_path / "weights"
    if container == "torch":
        torch.save({"state_dict": tensors}, path)
    else:
        save_file(tensors, path)
    backbone = bench.load(path, arch=ARCH)
    network.load_state_dict({n: t.float() for n, t in tensors.items()})
    own = backbone.network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in network.state_dict().items())
    assert bool(backbone.features(images(32))["pooled"].isfinite().all())
    name = str(kind).removeprefix("torch.")
    assert f"8 tensors are {name}: read as they are, with no scale (the file has none)" in backbone.card.notes


def test_every_eight_bit_number_is_one_of_the_wider_type() -> None:
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):
        every = torch.arange(256, dtype=torch.uint8).view(kind)
        finite = every.float().isfinite()
        assert torch.equal(every.float()[finite], every.to(torch.float16).float()[finite])


@pytest.mark.parametrize(
    "scale",
    [
        "blocks.0.attn.qkv.weight_scale",
        "blocks.0.attn.qkv.scale_weight",
        "scaled_fp8",
        "head.weight_scale_inv",
        "blocks.0.mlp.fc1.scale",
    ],
)
def test_numbers_that_wait_for_a_scale_are_refused(scale: str, tmp_path: Path) -> None:
    tensors = {n: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for n, t in _network().state_dict().items()}
    torch.save({**tensors, scale: torch.ones(1)}, tmp_path / "weights.pth")
    with pytest.raises(BenchError, match=rf"float8_e4m3fn numbers and scales \({scale}\).*before the quantisation"):
        bench.load(tmp_path / "weights.pth", arch=ARCH)


def test_temperatures_and_layer_scales_are_no_scales_of_numbers(tmp_path: Path) -> None:
    tensors = {n: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for n, t in _network().state_dict().items()}
    scales = {"logit_scale": torch.ones(()), "head.norm.scale": torch.ones(8)}
    torch.save({**tensors, **scales}, tmp_path / "weights.pth")
    assert any("float8" in note for note in bench.load(tmp_path / "weights.pth", arch=ARCH).card.notes)
