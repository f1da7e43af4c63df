"""What every Backbone promises, checked on one of them."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import Tensor

from bench.backbone import Backbone, weight_digest
from bench.card import Card

# What torch says on a CPU of an operation that it has not in a type of half the width.
_UNAVAILABLE = ("not implemented for", "must have the same dtype", "expected scalar type", "Input type")


def check_contract(backbone: Backbone, images: Tensor, *, moves: bool = True) -> None:
    """Eval mode, no gradients, the card's dims, strides and channels, each image by itself, types and devices.

    ``images``: at least two, of a size that the network takes. ``moves``: also in float64 and bfloat16.
    """
    card = backbone.card
    assert not any(part.training for part in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert pickle.loads(pickle.dumps(card)) == card
    assert Card.model_validate_json(card.model_dump_json()) == card
    out = backbone.features(images)
    assert not any(value.requires_grad for value in out.values())
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        name: (len(images), width) for name, width in card.dims.items()
    }
    assert all(value.dtype == torch.float32 and bool(torch.isfinite(value).all()) for value in out.values())
    again = backbone.features(images)
    assert all(torch.equal(value, again[name]) for name, value in out.items())
    assert float((out["pooled"][0] - out["pooled"][1]).abs().max()) > 0, "two images have one feature"
    _each_by_itself(backbone, images, out)
    _pyramid(backbone, images)
    if backbone.depth:
        _blocks(backbone, images)
    network = backbone.network
    assert weight_digest(network.state_dict()) == card.weight_digest, "reading features changed the weights"
    _on_meta(backbone, images, out)
    if moves:
        _in_other_types(backbone, images, out)


def _each_by_itself(backbone: Backbone, images: Tensor, out: dict[str, Tensor]) -> None:
    turned = backbone.features(images.flip(0))
    for index in range(len(images)):
        alone = backbone.features(images[index : index + 1])
        for name, value in out.items():
            assert _near(alone[name][0], value[index]), f"{name} of an image alone"
            assert _near(turned[name][len(images) - 1 - index], value[index]), f"{name} in another order"


def _pyramid(backbone: Backbone, images: Tensor) -> None:
    card, maps = backbone.card, backbone.pyramid(images)
    assert [level.shape[1] for level in maps] == card.channels
    assert len(maps) == len(card.strides)
    assert card.strides == sorted(card.strides)
    for level, stride in zip(maps, card.strides, strict=True):
        for found, size in zip(level.shape[-2:], images.shape[-2:], strict=True):
            assert abs(found - size / stride) <= max(1, 0.15 * size / stride), f"stride {stride}"


def _blocks(backbone: Backbone, images: Tensor) -> None:
    count = min(2, backbone.depth)
    blocks = backbone.blocks(images, n=count)
    assert len(blocks) == count
    tokens = (images.shape[2] // backbone.card.strides[0]) * (images.shape[3] // backbone.card.strides[0])
    for patches, token in blocks:
        assert patches.shape[:2] == (len(images), tokens)
        assert token is None or token.shape == (len(images), patches.shape[2])


def _on_meta(backbone: Backbone, images: Tensor, out: dict[str, Tensor]) -> None:
    moved = copy.deepcopy(backbone).to("meta")
    shapes = {name: value.shape for name, value in moved.features(images.to("meta")).items()}
    assert shapes == {name: value.shape for name, value in out.items()}
    assert all(value.device.type == "cpu" for value in backbone.features(images).values())


def _in_other_types(backbone: Backbone, images: Tensor, out: dict[str, Tensor]) -> None:
    wide = copy.deepcopy(backbone).double().features(images.double())
    for name, value in out.items():
        assert wide[name].dtype == torch.float64
        assert _near(wide[name].float(), value, 1e-4), f"{name} in float64"
    try:
        half = copy.deepcopy(backbone).bfloat16().features(images.bfloat16())
    except RuntimeError as error:
        if any(words in str(error) for words in _UNAVAILABLE):
            return
        raise
    assert all(value.dtype == torch.bfloat16 for value in half.values())
    # Eight bits of mantissa, many layers: the direction of the feature is what must remain.
    near = torch.nn.functional.cosine_similarity(half["pooled"].float(), out["pooled"])
    assert float(near.min()) > 0.9


def _near(ours: Tensor, theirs: Tensor, tolerance: float = 3e-5) -> bool:
    return float((ours - theirs).abs().max()) <= tolerance * max(float(theirs.abs().max()), 1e-6)
