"""timm's releases and released files without signs are evaluated as their papers do it, and the card says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import close, filled, images, timm_network
from timm.data import resolve_data_config
from torch import nn

import bench
from adapters import papers, timm_models
from adapters.layout import BICUBIC, BILINEAR, PLAIN
from adapters.positions import resized
from adapters.timm_backbone import transform_from
from bench.backbone import Backbone
from bench.card import Card

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("vit_small_patch16_224.dino", "scaled"),
        ("vit_base_patch16_224.mae", "plain"),
        ("vit_small_patch14_dinov2.lvd142m", "scaled"),
        ("vit_small_patch14_reg4_dinov2.lvd142m", "antialiased"),
        ("vit_small_patch16_dinov3.lvd1689m", "antialiased"),
        ("convnext_tiny.dinov3_lvd1689m", "antialiased"),
    ],
)
def test_timm_s_tags(name: str, positions: str) -> None:
    config = timm.get_pretrained_cfg(name).to_dict()
    paper = papers.of_tag(timm_models.method_of(config), config["architecture"], config["tag"], None)
    assert paper is not None
    assert (paper.transform, paper.feature, paper.positions) == (BICUBIC, "cls", positions)
    assert (paper.transform.resize, paper.transform.crop) == (256, 224)
    assert (paper.transform.mean, paper.transform.std) == IMAGENET


@pytest.mark.parametrize(
    "name",
    ["vit_small_patch16_224.augreg_in21k_ft_in1k", "resnet50.a1_in1k", "hiera_tiny_224.mae", "convnextv2_tiny.fcmae"],
)
def test_others_keep_timm_s(name: str) -> None:
    config = timm.get_pretrained_cfg(name).to_dict()
    assert papers.of_tag(timm_models.method_of(config), config["architecture"], config["tag"], None) is None


def test_satellites() -> None:
    config = timm.get_pretrained_cfg("vit_large_patch16_dinov3.sat493m").to_dict()
    paper = papers.of_tag(timm_models.method_of(config), config["architecture"], config["tag"], None)
    assert paper is not None
    assert (paper.transform.mean, paper.transform.std) == ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143))


@pytest.mark.parametrize(
    ("name", "resize", "crop"),
    [
        ("vit_base_patch16_clip_224.openai", 224, 224),
        ("vit_large_patch14_clip_336.openai", 336, 336),
        ("vit_base_patch16_siglip_256.webli", (256, 256), None),
    ],
)
def test_clip_and_siglip(name: str, resize: Any, crop: int | None) -> None:
    """Whatever share of the image timm crops; the tags' mean and deviation stay."""
    config = timm.get_pretrained_cfg(name).to_dict()
    own = transform_from(resolve_data_config({}, pretrained_cfg=config))
    paper = papers.of_tag(timm_models.method_of(config), config["architecture"], config["tag"], own)
    assert paper is not None
    assert (paper.transform.resize, paper.transform.crop, paper.feature) == (resize, crop, "head")
    assert (paper.transform.mean, paper.transform.std) == (own.mean, own.std)
    assert paper.transform.interpolation == "bicubic"


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m"])
def test_a_model_of_timm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DINOv2 at 224 of its 518 pixels, with its positions; DINOv3's class token where timm takes the mean."""
    small: dict[str, Any] = {"depth": 1, "embed_dim": 64, "num_heads": 1}
    network = filled(timm.create_model(name.partition(".")[0], num_classes=0, dynamic_img_size=True, **small))
    monkeypatch.setattr(timm_models, "_pretrained", lambda *_: network)
    backbone = timm_models.load(name)
    card: Card = backbone.card
    assert (card.transform, card.feature) == (BICUBIC, "cls")
    (note,) = card.notes
    assert "own evaluation, not timm's (resize" in note
    with torch.no_grad():
        out = backbone.features(images(224, 1))
        tokens = network.patch_embed(images(224, 1))
        if "dinov2" in name:
            grid = resized(network.pos_embed[:, 1:], 16, 16, "scaled")
            tokens = tokens.flatten(1, 2) + grid
            tokens = torch.cat([network.cls_token + network.pos_embed[:, :1], tokens], 1)
            assert close(out["pooled"], network.norm(network.blocks(tokens))[:, 0])
        else:
            assert close(out["pooled"], network.forward_features(images(224, 1))[:, 0])


def _released(folder: Path, name: str, **changed: Any) -> Backbone:
    network = filled(timm.create_model(name.partition(".")[0], num_classes=0))
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] = timm.get_pretrained_cfg(name).to_dict() | changed
    path.write_text(json.dumps({**config, "num_classes": 0}, default=str))
    backbone = bench.load(folder)
    assert isinstance(backbone, Backbone)
    return backbone


def test_a_folder_of_timm_s_release(tmp_path: Path) -> None:
    backbone = _released(tmp_path / "own", "vit_small_patch16_224.dino")
    assert (backbone.card.transform, backbone.card.feature, backbone.card.method) == (BICUBIC, "cls", "dino")
    assert any("not timm's (resize 248" in note for note in backbone.card.notes)
    other = _released(tmp_path / "other", "vit_small_patch16_224.dino", crop_pct=0.5)
    assert other.card.transform is not None
    assert (other.card.transform.resize, other.card.method) == (448, None)


@pytest.mark.parametrize(
    ("file", "method", "transform", "positions"),
    [
        ("dino_deitsmall16_pretrain.pth", "dino", BICUBIC, "scaled"),
        ("dino-vitb8.pth", "dino", BICUBIC, "scaled"),
        ("dino_resnet50_pretrain.pth", "dino", BICUBIC, "scaled"),
        ("mae_pretrain_vit_huge.pth", "mae", BICUBIC, "plain"),
        ("ibot-vitb16-rand.pth", "ibot", BICUBIC, "scaled"),
        ("barlow-resnet50.pth", "barlow-twins", BILINEAR, "antialiased"),
        ("dino_resnet50_pretrain_full_checkpoint.pth", None, None, "antialiased"),
        ("resnet50.pth", None, None, "antialiased"),
    ],
)
def test_names_of_released_files(file: str, method: str | None, transform: Any, positions: str, tmp_path: Path) -> None:
    told = papers.of_file(PLAIN, tmp_path / file)
    assert (told.method, told.transform, told.positions) == (method, transform, positions)
    assert (told.note is None) == (method is None)


def test_a_released_file_without_a_sign(tmp_path: Path) -> None:
    """DINO's ResNet-50: torchvision's names, and an evaluation that no other ResNet-50 of the kind has."""
    network: nn.Module = timm_network("resnet50")
    torch.save(network.state_dict(), tmp_path / "dino_resnet50_pretrain.pth")
    card = bench.load(tmp_path / "dino_resnet50_pretrain.pth").card
    assert (card.method, card.transform, card.feature) == ("dino", BICUBIC, "avg")
    assert any("told by the file's name" in note for note in card.notes)
    assert not any("assumed" in note for note in card.notes)
