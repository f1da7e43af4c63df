"""``torchvision:NAME``: a torchvision classifier with its default weights and their own transform."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adapters import resolution, values
from adapters.dialects import readings
from adapters.network import offline
from adapters.options import refuse
from adapters.timm_backbone import TimmBackbone, backbone_tensors, create
from adapters.torchvision_backbone import TorchvisionBackbone, classifier_name
from adapters.unfilled import without_random_init
from bench.backbone import Backbone
from bench.card import Card, Coverage, Transform
from bench.errors import BenchError
from bench.registry import nearest

# torchvision's ViT computes what timm's does; under timm's names it has token outputs and other input sizes.
VIT = {
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
}
# Their released weights expect the input in another range, which these networks then mend themselves.
_INCEPTIONS = ("googlenet", "inception_v3")


def load(rest: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False) -> Backbone:
    """torchvision's classifier ``rest`` (optionally ``@SIZE``) with its default weights, never random ones."""
    refuse("torchvision", arch=arch, weights_key=weights_key)
    name, size = resolution.split(rest)
    check(name)
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    tensors = _weights(name, weights)
    card = Card(
        name=name,
        spec=f"torchvision:{rest}",
        method="supervised",
        architecture=f"torchvision:{name}",
        family="module",
        dims={},
        feature="",
        transform=transform_of(weights),
        weight_digest="",
        container="torchvision hub",
        layout="torchvision",
        weights_key=weights.name,
        classes="imagenet-1k" if len(weights.meta.get("categories", ())) == 1000 else None,
    )
    return resolution.at(assemble(name, tensors, card), size)


def assemble(name: str, tensors: dict[str, Tensor], card: Card) -> Backbone:
    """The Backbone of torchvision's own weights ``tensors``; every one has its place (strict)."""
    values.check(tensors, f"the weights of torchvision:{name}")
    if name in VIT:
        card = card.model_copy(update={"architecture": VIT[name]})
        crop = card.transform.crop if card.transform is not None else 224
        with without_random_init():
            network = create(VIT[name], pretrained=False, img_size=crop)
        network.load_state_dict(dict(readings(tensors)[-1][1]), strict=True)
        return TimmBackbone(network, _covered(card, len(backbone_tensors(network))))
    with without_random_init():
        network = build(name, transform_input=True) if name in _INCEPTIONS else build(name)
    network.load_state_dict(tensors, strict=True)
    heads = (f"{classifier_name(network)}.", "aux1.", "aux2.", "AuxLogits.")
    filled = sum(tensor.is_floating_point() and not key.startswith(heads) for key, tensor in tensors.items())
    return TorchvisionBackbone(network, _covered(card, filled))


def _covered(card: Card, filled: int) -> Card:
    return card.model_copy(update={"coverage": Coverage(filled=filled, total=filled)})


def check(name: str) -> None:
    """Refuse a name that is no torchvision classifier."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise BenchError(f"torchvision has no classifier '{name}'{nearest(name, known)}")


def build(name: str, **arguments: Any) -> nn.Module:
    """The torchvision classifier ``name`` without weights."""
    check(name)
    from torchvision import models

    if name in _INCEPTIONS:
        arguments.setdefault("init_weights", False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return models.get_model(name, weights=None, **arguments)  # type: ignore[no-any-return]


def transform_of(weights: Any) -> Transform:
    """The evaluation transform that comes with torchvision's weights."""
    own = weights.transforms()
    return Transform(
        resize=own.resize_size[0],
        crop=own.crop_size[0],
        interpolation=own.interpolation.value,
        mean=tuple(own.mean),
        std=tuple(own.std),
    )


def _weights(name: str, weights: Any) -> dict[str, Tensor]:
    import torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    remedy = (
        f"run once where that can be reached, put the file at {file}, or give the weight file itself with "
        f"--arch torchvision:{name}"
    )
    if offline() and not file.is_file():
        raise BenchError(f"the weights of torchvision:{name} are not at {file} and BENCH_OFFLINE is set: {remedy}")
    try:
        tensors: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # urllib, the hash check and the reader have no common base
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BenchError(
            f"the weights of torchvision:{name} cannot be had from {weights.url} ({reason}): {remedy}"
        ) from error
    return tensors
