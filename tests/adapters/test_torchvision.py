"""torchvision classifiers: the same contract, found by structure; the names' refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from adapters import torchvision_models
from bench.card import Card, Transform
from bench.errors import BenchError

# (name, arguments, input size, channels of the pyramid, pooled width)
KINDS: list[tuple[str, dict[str, Any], int, list[int], int]] = [
    ("resnet18", {}, 64, [64, 128, 256, 512], 512),
    ("densenet121", {}, 64, [256, 512, 1024, 1024], 1024),
    ("efficientnet_b0", {}, 64, [24, 40, 112, 1280], 1280),
    ("mobilenet_v2", {}, 64, [24, 32, 96, 1280], 1280),
    ("mobilenet_v3_small", {}, 64, [16, 24, 48, 576], 1024),
    ("regnet_y_400mf", {}, 64, [48, 104, 208, 440], 440),
    ("convnext_tiny", {}, 64, [96, 192, 384, 768], 768),
    ("shufflenet_v2_x0_5", {}, 64, [24, 48, 96, 1024], 1024),
    ("swin_t", {}, 64, [96, 192, 384, 768], 768),
    ("squeezenet1_1", {}, 64, [128, 256, 512], 512),
    ("vgg11", {}, 64, [256, 512, 512, 512], 4096),
    ("googlenet", {"init_weights": False}, 64, [192, 480, 832, 1024], 1024),
]


def _card(name: str, size: int) -> Card:
    transform = Transform(resize=size, crop=size)
    return Card(
        name=name,
        spec=name,
        architecture=name,
        family="module",
        dims={},
        feature="",
        weight_digest="",
        transform=transform,
    )


FAST = {"resnet18", "mobilenet_v3_small", "regnet_y_400mf", "squeezenet1_1"}
PARAMETERS = [pytest.param(*kind, id=kind[0], marks=() if kind[0] in FAST else pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize(("name", "arguments", "size", "channels", "width"), PARAMETERS)
def test_contract(name: str, arguments: dict[str, Any], size: int, channels: list[int], width: int) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, **arguments).eval()
    backbone = torchvision_models.assemble(name, network.state_dict(), _card(name, size))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        out = backbone.features(images)
        maps = backbone.pyramid(images)
        expected = network(backbone.network._transform_input(images) if name == "googlenet" else images)
    torch.testing.assert_close(out["logits"], expected)
    assert {key: value.shape[1] for key, value in out.items()} == backbone.card.dims
    assert out["pooled"].shape == (2, width)
    assert [level.shape[1] for level in maps] == backbone.card.channels == channels
    assert all(abs(level.shape[2] - size / s) <= 1 for level, s in zip(maps, backbone.card.strides, strict=True))
    if backbone.card.feature == "avg":
        torch.testing.assert_close(out["avg"], out["pooled"])
    assert backbone.card.coverage is not None
    assert backbone.card.coverage.filled == backbone.card.coverage.total > 0
    assert backbone.card.family == ("vit" if name == "swin_t" else "cnn")
    assert not any(part.training for part in backbone.modules())
    with pytest.raises(BenchError, match="no token blocks"):
        backbone.blocks(images)


@pytest.mark.slow
def test_vit_under_timms_names_computes_the_same() -> None:
    torch.manual_seed(0)
    network = torchvision.models.vit_b_32().eval()
    for parameter in network.parameters():  # the class token and head start at zero
        torch.nn.init.normal_(parameter, std=0.05)
    backbone = torchvision_models.assemble("vit_b_32", network.state_dict(), _card("vit_b_32", 224))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        out = backbone.features(images)
        torch.testing.assert_close(out["logits"], network(images), rtol=1e-4, atol=1e-4)
        assert len(backbone.blocks(images, n=3)) == 3
    assert backbone.card.architecture == "vit_base_patch32_224"
    assert backbone.card.feature == "cls"


def test_transform_is_that_of_the_weights() -> None:
    weights = torchvision.models.get_model_weights("resnet50").DEFAULT
    transform = torchvision_models.transform_of(weights)
    assert (transform.resize, transform.crop, transform.interpolation) == (232, 224, "bilinear")


def test_weights_from_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(BenchError, match="BENCH_OFFLINE is set"):
        torchvision_models.load("resnet18")
    torch.manual_seed(0)
    weights = torchvision.models.resnet18().state_dict()
    url = torchvision.models.get_model_weights("resnet18").DEFAULT.url
    (tmp_path / "checkpoints").mkdir()
    torch.save(weights, tmp_path / "checkpoints" / url.rpartition("/")[2])
    card = torchvision_models.load("resnet18@96").card
    assert card.name == "resnet18@96"
    assert card.transform is not None
    assert (card.transform.resize, card.transform.crop, card.classes) == (110, 96, "imagenet-1k")


@pytest.mark.parametrize(
    ("rest", "options", "words"),
    [("resnet5O", {}, "nearest: resnet50"), ("resnet50", {"arch": "resnet18"}, "--arch")],
)
def test_refusals(rest: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        torchvision_models.load(rest, **options)  # type: ignore[arg-type]
