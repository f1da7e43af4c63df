"""The contract of a Backbone over every registered architecture."""

from __future__ import annotations

import re
from typing import Any

import pytest
from contracthelp import check_contract
from layouthelp import filled, images, values
from test_timm_backbone import KINDS as TIMM
from test_torchvision import KINDS as TORCHVISION

from adapters import torchvision_models
from adapters.network_backbone import NetworkBackbone
from adapters.networks import TABLE, build
from adapters.timm_backbone import TimmBackbone, create
from bench.card import Card, Transform

# Seconds each, or large inputs; the others take 32 pixels and a fraction of a second.
_HEAVY = re.compile(
    r"wrn_\d+_(?:4|10)|wrn_(?:28|40)_\d+|cifar_densenet\w+|resnet\d+w\d|clip_resnet\w+|align\w+|mvit\w+|alexnet\w+|"
    r"resnet\d+_small\w*|cifar_resnet(?:18|34|50|56|110|32x4)|cifar_vgg1\d|"
    r"simclrv2_r(?:1\d+_\dx|50_[23]x)_sk\d|resnet50_vissl_\w+"
)
# Over 100 million numbers: no copies in other types.
_LARGE = re.compile(r"clip_resnet50x(?:16|64)|resnet(?:50w[345]|101w2|152w2|200w2)|simclrv2_\w+_3x_\w+")
# Up to 795 million numbers: one block of every stage stands for the others, which are the same.
_SHORT = re.compile(r"simclrv2_\w+")


def _card(name: str, size: int = 224) -> Card:
    return Card(
        name=name, spec=name, architecture=name, family="module", dims={}, feature="", weight_digest="",
        transform=Transform(resize=size, crop=size),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if _HEAVY.fullmatch(name) else ()) for name in TABLE]
)
def test_architectures_of_ours(name: str) -> None:
    short = _SHORT.fullmatch(name) is not None
    network = filled(build(name, blocks=(1, 1, 1, 1)) if short else build(name))
    size = 64 if short else network.input_size
    batch = images(size, 2)
    if network.family == "video":
        batch = values("clips", (2, 3, 16, size, size)) * size
    check_contract(NetworkBackbone(network, _card(name, size)), batch, moves=not _LARGE.fullmatch(name))


@pytest.mark.parametrize("kind", [pytest.param(kind, id=f"{kind[0]}-{i}") for i, kind in enumerate(TIMM)])
def test_kinds_of_timm_s_architectures(kind: Any) -> None:
    name, arguments, size, *_ = kind
    network = filled(create(name, pretrained=False, num_classes=7, **arguments))
    check_contract(TimmBackbone(network, _card(name)), images(size), moves="swin" not in name)


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind[0], marks=pytest.mark.slow) for kind in TORCHVISION])
def test_kinds_of_torchvision_s_architectures(kind: Any) -> None:
    name, arguments, size, *_ = kind
    state = filled(torchvision_models.build(name, **arguments)).state_dict()
    check_contract(torchvision_models.assemble(name, state, _card(name, size)), images(size))
