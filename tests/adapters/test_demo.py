"""The bundled encoders: right weights, right transform, every tensor accounted for."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from adapters import demo
from bench.card import Transform
from bench.errors import BenchError
from bench.transform import apply

PHOTOS = sorted((Path(next(iter(find_spec("foolbox").submodule_search_locations))) / "data").glob("imagenet_*.jpg"))  # type: ignore[union-attr, arg-type]


def _photos(transform: Transform | None) -> tuple[torch.Tensor, torch.Tensor]:
    assert transform is not None
    labels = torch.tensor([int(re.fullmatch(r"imagenet_\d+_(\d+)", path.stem)[1]) for path in PHOTOS])  # type: ignore[index]
    return torch.stack([apply(transform, Image.open(path)) for path in PHOTOS]), labels


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"])
def test_classifies_labelled_imagenet_photos(name: str) -> None:
    backbone = demo.load(name)
    images, labels = _photos(backbone.card.transform)
    assert len(images) == 20
    with torch.no_grad():
        out = backbone.features(images)
    right = int((out["logits"].argmax(1) == labels).sum())
    assert right >= 17
    torch.testing.assert_close(out["pooled"], out["avg"])
    assert out["pooled"].shape == (20, 1280)


def test_mobilenetv2_equals_torchvisions_twin() -> None:
    import torchvision

    backbone = demo.load("mobilenetv2")
    file = demo._file("mobilenetv2", demo.ENCODERS["mobilenetv2"])
    twin = torchvision.models.mobilenet_v2().eval()
    keys = twin.load_state_dict(_torchvision_names(torch.load(file, weights_only=True), twin), strict=False)
    assert set(keys.missing_keys) == {"classifier.1.weight", "classifier.1.bias"}
    images, _ = _photos(backbone.card.transform)
    with torch.no_grad():
        ours = backbone.features(images[:4])
        theirs = twin.features(images[:4]).mean((2, 3))
    assert set(ours) == {"pooled", "avg"}
    torch.testing.assert_close(ours["pooled"], theirs, rtol=1e-4, atol=1e-5)


def _torchvision_names(weights: dict[str, torch.Tensor], twin: torch.nn.Module) -> dict[str, torch.Tensor]:
    # The file has a flat Sequential per block; torchvision nests convolution and norm, in the same order.
    names = [name for name in twin.state_dict() if not name.startswith("classifier")]
    return dict(zip(names, weights.values(), strict=True))


def test_card_accounts_for_everything() -> None:
    card = demo.load("efficientnet-lite0").card
    assert card.coverage is not None
    assert card.coverage.filled == card.coverage.total == 296 - 49 - 2  # less counters and the classifier
    assert not card.coverage.unused
    assert card.dims == {"pooled": 1280, "avg": 1280, "logits": 1000}
    assert card.strides == [4, 8, 16, 32]
    assert (card.method, card.classes, card.feature) == ("supervised", "imagenet-1k", "avg")
    assert card.weight_digest.startswith("sha256:")
    assert card.weight_digest == demo.load("efficientnet-lite0").card.weight_digest
    assert card.parameters == 4652008 - 1281000  # the published count less the classifier


def test_another_resolution_is_named_and_noted() -> None:
    backbone = demo.load("mobilenetv2@96")
    assert backbone.card.name == "mobilenetv2@96"
    assert backbone.card.spec == "demo:mobilenetv2@96"
    assert backbone.card.transform is not None
    assert (backbone.card.transform.resize, backbone.card.transform.crop) == (110, 96)
    assert "96" in backbone.card.notes[0]
    assert backbone.card.weight_digest == demo.load("mobilenetv2").card.weight_digest
    maps = backbone.pyramid(torch.zeros(1, 3, 96, 96))
    assert [m.shape[-1] for m in maps] == [24, 12, 6, 3]
    assert [m.shape[1] for m in maps] == backbone.card.channels


@pytest.mark.parametrize(
    ("rest", "options", "words"),
    [
        ("efficientnet-lite7", {}, "nearest: efficientnet-lite"),
        ("mobilenetv2@big", {}, "input size in pixels"),
        ("mobilenetv2@0", {}, "input size in pixels"),
        ("mobilenetv2", {"arch": "resnet50"}, "--arch"),
        ("mobilenetv2", {"weights_key": "model"}, "--weights-key"),
    ],
)
def test_refusals(rest: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        demo.load(rest, **options)  # type: ignore[arg-type]


def test_a_missing_package_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    with pytest.raises(BenchError, match=re.escape("pip install 'bench-representations[demo]'")):
        demo.load("mobilenetv2")
