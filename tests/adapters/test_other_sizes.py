"""Other input sizes than a network's own, computed as the method's code does: against transformers, or its formula."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hfhelp import PLAIN, made, saved
from layouthelp import close, filled, images
from torch import Tensor, nn

import bench
from adapters.layout import BICUBIC
from adapters.layouts import OFFICIAL, recognise
from adapters.matching import match
from adapters.positions import resized
from adapters.weightsets import WeightSet
from bench.backbone import Backbone

transformers = pytest.importorskip("transformers", reason="the extra huggingface is not installed")

# Heads of 64, as these classes have them where nothing states another number.
FIELDS = {**PLAIN, "hidden_size": 64, "num_attention_heads": 1, "image_size": 32}


@pytest.mark.parametrize("kind", ["vit", "deit", "vit_msn", "ijepa", "clip_vision_model", "siglip_vision_model"])
@pytest.mark.parametrize("size", [48, 24])
def test_positions_are_resized_as_transformers_does(tmp_path: Path, kind: str, size: int) -> None:
    model = made(kind, FIELDS)
    backbone = bench.load(saved(model, tmp_path))
    assert isinstance(backbone, Backbone)
    pixels = images(size)
    with torch.no_grad():
        theirs = model(pixels, interpolate_pos_encoding=True).last_hidden_state
        (patches, token), out = backbone.blocks(pixels, n=1)[0], backbone.features(pixels)
    prefix = theirs.shape[1] - patches.shape[1]
    if kind == "clip_vision_model":  # its last norm is for the class token
        theirs = getattr(model, "vision_model", model).post_layernorm(theirs)
    assert close(patches, theirs[:, prefix:])
    if token is not None:
        assert close(token, theirs[:, 0])
        assert close(out["cls"], theirs[:, 0])


def _msn(network: Any, pixels: Tensor) -> Tensor:
    """The class token that msn's forward_blocks gives: that of the last block, before the norm."""
    tokens = network.patch_embed.proj(pixels).flatten(2).transpose(1, 2)
    positions, side = network.pos_embed, math.isqrt(network.pos_embed.shape[1] - 1)
    if tokens.shape[1] != side**2:
        grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, scale_factor=math.sqrt(tokens.shape[1] / side**2), mode="bicubic")
        positions = torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    tokens = torch.cat([network.cls_token.expand(len(tokens), -1, -1), tokens], 1) + positions
    for block in network.blocks:
        tokens = block(tokens)
    token: Tensor = tokens[:, 0]
    return token


@pytest.mark.parametrize("size", [32, 64])
def test_msn_is_evaluated_before_its_final_norm(tmp_path: Path, size: int) -> None:
    small = {"embed_dim": 64, "num_heads": 1, "depth": 2, "img_size": 32}
    network = filled(timm.create_model("vit_tiny_patch16_224", num_classes=0, **small))
    tensors = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"target_encoder": tensors, "encoder": {}, "prototypes": torch.ones(2, 2)}, tmp_path / "msn.pth")
    backbone = bench.load(tmp_path / "msn.pth")
    assert isinstance(backbone, Backbone)
    assert (backbone.card.method, backbone.card.feature) == ("msn", "cls before norm")
    with torch.no_grad():
        out, expected = backbone.features(images(size)), _msn(network, images(size))
        assert close(out["pooled"], expected)
        assert close(out["cls"], network.norm(expected))


def test_a_folder_of_msn_too(tmp_path: Path) -> None:
    model = made("vit_msn", FIELDS)
    backbone = bench.load(saved(model, tmp_path))
    assert isinstance(backbone, Backbone)
    with torch.no_grad():
        hidden = model(images(32), output_hidden_states=True).hidden_states[-1]
        assert close(backbone.features(images(32))["pooled"], hidden[:, 0])


def test_distilled_transformers_keep_their_second_token(tmp_path: Path) -> None:
    sizes = {"hidden_size": 192, "num_attention_heads": 3, "num_hidden_layers": 12, "image_size": 32, "num_labels": 3}
    model = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**sizes, intermediate_size=768))
    backbone = bench.load(saved(filled(model), tmp_path))
    assert isinstance(backbone, Backbone)
    assert backbone.card.architecture.startswith("deit_tiny_distilled")
    with torch.no_grad():
        theirs = model(images(48), interpolate_pos_encoding=True).logits
        assert close(backbone.features(images(48))["logits"], theirs)


def _grid(side: int = 5, width: int = 7) -> Tensor:
    return torch.randn(1, side * side, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [3, 8])
def test_positions_of_other_codes(size: int) -> None:
    """torchvision's own function; scipy's zoom by splines of degree 1, as the JAX ViTs' code has it."""
    from scipy.ndimage import zoom
    from torchvision.models.vision_transformer import interpolate_embeddings

    grid = _grid()
    state = {"encoder.pos_embedding": torch.cat([torch.zeros(1, 1, 7), grid], 1)}
    theirs = interpolate_embeddings(16 * size, 16, OrderedDict(state))["encoder.pos_embedding"]
    torch.testing.assert_close(resized(grid, size, size, "corners"), theirs[:, 1:])
    spline = zoom(grid.reshape(5, 5, 7).numpy(), (size / 5, size / 5, 1), order=1)
    ours = resized(grid, size, size, "linear corners").reshape(size, size, 7)
    torch.testing.assert_close(ours, torch.from_numpy(spline), rtol=1e-4, atol=1e-5)
    volume = grid.reshape(1, 1, 5, 5, 7).permute(0, 4, 1, 2, 3)
    trilinear = nn.functional.interpolate(volume, size=(1, size, size), mode="trilinear")
    torch.testing.assert_close(resized(grid, size, size, "linear"), trilinear.reshape(1, 7, -1).permute(0, 2, 1))


@pytest.mark.parametrize(
    ("name", "how"),
    [("torchvision ViT", "corners"), ("JAX ViT", "linear corners"), ("MaskFeat", "linear"), ("DINO", "scaled")],
)
def test_whose_positions_are_resized_how(name: str, how: str) -> None:
    assert {layout.positions for layout in OFFICIAL if layout.name == name} == {how}


def test_beit_of_imagenet_1k(tmp_path: Path) -> None:
    """Absolute positions instead of relative ones, no layer scale, and ImageNet's mean and deviation."""
    arguments: dict[str, Any] = {"use_abs_pos_emb": True, "use_rel_pos_bias": False, "init_values": 0.0}
    small = {"embed_dim": 64, "num_heads": 1, "depth": 2, "img_size": 80, "num_classes": 0, "global_pool": "token"}
    network = filled(timm.create_model("beit_base_patch16_224", **arguments, **small))
    tensors = {**network.state_dict(), "mask_token": torch.ones(1, 1, 64), "lm_head.weight": torch.ones(9, 64)}
    torch.save({"model": tensors}, tmp_path / "beit.pth")
    backbone = bench.load(
        tmp_path / "beit.pth", arch="beit_base_patch16_224(embed_dim=64, num_heads=1, depth=2, img_size=80)"
    )
    assert isinstance(backbone, Backbone)
    assert (backbone.card.method, backbone.card.transform, backbone.card.feature) == ("beit", BICUBIC, "avg")
    with torch.no_grad():
        assert close(backbone.features(images(80))["pooled"], network.forward_features(images(80))[:, 1:].mean(1))
    # The released size is found without a name.
    with torch.device("meta"):
        whole = timm.create_model("beit_base_patch16_224", num_classes=0, global_pool="token", **arguments).state_dict()
        whole |= {"mask_token": torch.empty(1, 1, 768), "lm_head.weight": torch.empty(8192, 768)}
    layout = recognise({f"model/{key}": tuple(tensor.shape) for key, tensor in whole.items()})
    found = match([WeightSet("model", whole)], arch=None, weights_key=None, file="beit.pth", layout=layout)
    assert (found.architecture.name, layout.transform) == ("beit_base_patch16_224", BICUBIC)
