"""The contract of `features`, `pyramid` and `blocks`, over the kinds of architecture that timm has."""

from __future__ import annotations

import pickle

import pytest
import torch

from adapters.timm_backbone import TimmBackbone, create, transform_of
from bench.card import Card
from bench.errors import BenchError

# (architecture, arguments, input size, family, feature)
KINDS = [
    ("resnet10t", {}, 64, "cnn", "avg"),
    ("tf_efficientnet_lite0", {}, 64, "cnn", "avg"),
    ("mobilenetv3_small_050", {}, 64, "cnn", "pre_logits"),
    ("convnext_atto", {}, 64, "cnn", "pre_logits"),
    ("densenet121", {}, 64, "cnn", "avg"),
    ("regnety_002", {}, 64, "cnn", "avg"),
    ("hrnet_w18_small", {}, 64, "cnn", "avg"),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 5}, 64, "vit", "cls"),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 5, "global_pool": "avg"}, 64, "vit", "avg"),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 5, "reg_tokens": 4}, 64, "vit", "cls"),
    ("deit_tiny_distilled_patch16_224", {"img_size": 64, "depth": 5}, 64, "vit", "pre_logits"),
    ("beit_base_patch16_224", {"img_size": 64, "depth": 4, "embed_dim": 96, "num_heads": 3}, 64, "vit", "avg"),
    ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 2, 1), "embed_dim": 48}, 224, "vit", "avg"),
    ("maxvit_rmlp_pico_rw_256", {"img_size": 64}, 64, "hybrid", "avg"),
    ("mixer_s32_224", {"img_size": 64}, 64, "vit", "avg"),
]
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(KINDS)]


def _card(name: str) -> Card:
    return Card(name=name, spec=name, architecture=name, family="module", dims={}, feature="", weight_digest="")


@pytest.fixture(scope="module", params=KINDS, ids=IDS)
def kind(request: pytest.FixtureRequest) -> tuple[TimmBackbone, int, str, str]:
    name, arguments, size, family, feature = request.param
    torch.manual_seed(0)
    return TimmBackbone(create(name, pretrained=False, num_classes=7, **arguments), _card(name)), size, family, feature


Kind = tuple[TimmBackbone, int, str, str]


def test_features_are_what_the_card_says(kind: Kind) -> None:
    backbone, size, family, feature = kind
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        out = backbone.features(images)
        assert {name: value.shape[1] for name, value in out.items()} == backbone.card.dims
        assert all(value.shape[0] == 3 and torch.isfinite(value).all() for value in out.values())
        torch.testing.assert_close(out["logits"], backbone.network(images))
        # One image alone has the features that it has among others.
        alone = backbone.features(images[1:2])
    torch.testing.assert_close(alone["pooled"], out["pooled"][1:2], rtol=1e-4, atol=1e-5)
    assert (backbone.card.family, backbone.card.feature) == (family, feature)
    if feature in out:
        torch.testing.assert_close(out["pooled"], out[feature])


def test_frozen_in_eval_mode(kind: Kind) -> None:
    backbone = kind[0]
    assert not any(part.training for part in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert pickle.loads(pickle.dumps(backbone.card)) == backbone.card


def test_pyramid_is_what_the_card_says(kind: Kind) -> None:
    backbone, size, *_ = kind
    with torch.no_grad():
        maps = backbone.pyramid(torch.randn(2, 3, size, size))
    assert [size // level.shape[2] for level in maps] == backbone.card.strides
    assert [size // level.shape[3] for level in maps] == backbone.card.strides
    assert [level.shape[1] for level in maps] == backbone.card.channels
    assert backbone.card.strides == sorted(backbone.card.strides)


def test_blocks(kind: Kind) -> None:
    backbone, size, family, _ = kind
    images = torch.randn(2, 3, size, size)
    if family != "vit" or len(backbone.card.strides) > 1:
        with pytest.raises(BenchError, match="no token blocks"):
            backbone.blocks(images)
        return
    with torch.no_grad():
        out = backbone.features(images)
        tokens = backbone.blocks(images, n=2)
    assert len(tokens) == 2
    patches, token = tokens[-1]
    assert patches.shape[:2] == (2, (size // backbone.card.strides[0]) ** 2)
    if backbone.traits.prefix:
        assert token is not None
        torch.testing.assert_close(token, out["cls"])
    else:
        assert token is None
    if type(backbone.network.norm) is not torch.nn.Identity:
        torch.testing.assert_close(patches.mean(1), out["avg"])
    with torch.no_grad():
        raw = backbone.blocks(images, n=1, norm=False)[0][0]
    if type(backbone.network.norm) is not torch.nn.Identity:
        torch.testing.assert_close(backbone.network.norm(raw), patches)
    with pytest.raises(BenchError, match="blocks"):
        backbone.blocks(images, n=99)


def test_registers_are_left_out_of_avg() -> None:
    torch.manual_seed(0)
    name = "vit_tiny_patch16_224"
    backbone = TimmBackbone(create(name, pretrained=False, img_size=32, depth=2, reg_tokens=4), _card(name))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = backbone.network.forward_features(images)
        torch.testing.assert_close(backbone.features(images)["avg"], tokens[:, 5:].mean(1))
    assert tokens.shape[1] == 1 + 4 + 4


def test_other_input_sizes() -> None:
    backbone = TimmBackbone(create("vit_tiny_patch16_224", pretrained=False, depth=2), _card("vit"))
    with torch.no_grad():
        assert backbone.pyramid(torch.zeros(1, 3, 96, 160))[0].shape == (1, 192, 6, 10)
        with pytest.raises(BenchError, match="cannot take images of 100x100 pixels"):
            backbone.features(torch.zeros(1, 3, 100, 100))


def test_digest_depends_on_weights_alone() -> None:
    def make(seed: int) -> str:
        torch.manual_seed(seed)
        return TimmBackbone(create("resnet10t", pretrained=False), _card(f"n{seed}")).card.weight_digest

    first, other = make(0), make(1)
    assert first == make(0) != other


def test_transform_is_timms_own() -> None:
    resnet = transform_of(create("resnet18", pretrained=False, num_classes=0))
    assert (resnet.resize, resnet.crop, resnet.interpolation) == (235, 224, "bicubic")
    lite = transform_of(create("tf_efficientnet_lite1", pretrained=False, num_classes=0))
    assert (lite.resize, lite.crop, lite.interpolation, lite.mean) == (272, 240, "bicubic", (0.5, 0.5, 0.5))


def test_unknown_architecture_has_nearest_names() -> None:
    with pytest.raises(BenchError, match="resnet50"):
        create("resnet5o", pretrained=False)
