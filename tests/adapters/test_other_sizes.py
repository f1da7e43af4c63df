"""Other input sizes than a network's own, computed as the method's code does: against transformers, or its formula."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hfhelp import PLAIN, made, saved
from layouthelp import close, filled, images
from torch import Tensor, nn

import bench
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
