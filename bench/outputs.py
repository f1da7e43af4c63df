"""Names of features turned into arrays, from one forward of a Backbone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.registry import nearest

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.card import Card

WIDE = 4096
"""An output wider than this (the logits of 21 000 classes) is stored only when a suite asks for it."""

LAYERS = "layers"
"""Every layer's mean over its positions, side by side, first layer first."""

_BLOCKS = re.compile(r"blocks([1-9]\d*)\.(cls|avg)")


def names_of(card: Card, wanted: Sequence[str]) -> tuple[str, ...]:
    """All names worth storing from a forward that must yield ``wanted``, sorted: every output comes at no further cost.

    Raises `BenchError` for a name that the network does not have. A card without ``dims`` (a live module) is believed.
    """
    for name in wanted:
        if card.dims and name not in card.dims and name != LAYERS and not _BLOCKS.fullmatch(name):
            raise BenchError(
                f"'{card.name}' ({card.architecture}) has no feature '{name}'{nearest(name, [*card.dims])}"
            )
    return tuple(sorted({*wanted, *(name for name, width in card.dims.items() if width <= WIDE)}))


def outputs(backbone: Backbone, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Each of ``names`` as float32 [B, D] for normalised ``images``.

    ``pooled``, ``cls``, ``avg`` and ``logits`` are `Backbone.features`; ``blocks4.cls`` and ``blocks4.avg`` are the
    class token and the mean patch token of each of the last four blocks through the final norm, side by side, oldest
    first (`Backbone.blocks`). ``layers`` is the mean patch token of every block as it leaves the block, or the mean of
    every map of the pyramid where there are no blocks, side by side. Raises `BenchError` for an output that is missing
    or is not [B, D].
    """
    found: dict[str, Tensor] = {}
    levels = {name: _BLOCKS.fullmatch(name) for name in names}
    if any(match is None and name != LAYERS for name, match in levels.items()):
        found.update(backbone.features(images))
    depth = max((int(match[1]) for match in levels.values() if match), default=0)
    tokens = backbone.blocks(images, n=depth, norm=True) if depth else []
    for name, match in levels.items():
        if match:
            found[name] = _side_by_side(backbone, tokens[-int(match[1]) :], match[2])
    if LAYERS in levels:
        found[LAYERS] = torch.cat(_layers(backbone, images), dim=1)
    result = {}
    for name in names:
        if name not in found:
            raise BenchError(f"'{backbone.card.name}' gives no feature '{name}'{nearest(name, [*found])}")
        value = found[name]
        if value.ndim != 2 or len(value) != len(images) or value.shape[1] == 0:
            raise BenchError(
                f"feature '{name}' of '{backbone.card.name}' has shape {tuple(value.shape)} for {len(images)} images: "
                f"one row of numbers per image is needed"
            )
        result[name] = value.float()
    return result


def _layers(backbone: Backbone, images: Tensor) -> list[Tensor]:
    if backbone.depth:
        return [patches.mean(dim=1) for patches, _ in backbone.blocks(images, n=backbone.depth, norm=False)]
    return [level.mean(dim=(2, 3)) for level in backbone.pyramid(images)]


def _side_by_side(backbone: Backbone, blocks: Sequence[tuple[Tensor, Tensor | None]], kind: str) -> Tensor:
    rows = []
    for patches, token in blocks:
        if kind == "avg":
            rows.append(patches.mean(dim=1))
        elif token is None:
            raise BenchError(f"'{backbone.card.name}' ({backbone.card.architecture}) has no class token")
        else:
            rows.append(token)
    return torch.cat(rows, dim=1)
