"""Names of features turned into arrays, from one forward of a Backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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

_BLOCKS = re.compile(r"(blocks?)([1-9]\d{0,5})\.(cls|avg)")


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
    first (`Backbone.blocks`); ``block7.cls`` and ``block7.avg`` are those of the seventh block alone. A network without
    blocks has the means of its pyramid's maps instead, finest first, and no class token. ``layers`` is the mean patch
    token of every block as it leaves the block, or the mean of every map of the pyramid where there are no blocks, side
    by side. Raises `BenchError` for an output that is missing or is not [B, D].
    """
    found: dict[str, Tensor] = {}
    levels = {name: _BLOCKS.fullmatch(name) for name in names}
    if any(match is None and name != LAYERS for name, match in levels.items()):
        found.update(backbone.features(images))
    found.update(_of_blocks(backbone, images, {name: match for name, match in levels.items() if match}))
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


def _of_blocks(backbone: Backbone, images: Tensor, asked: Mapping[str, re.Match[str]]) -> dict[str, Tensor]:
    """``blocks4.cls``, ``block7.avg``...: one forward as far back as any of them reaches."""
    if not asked:
        return {}
    who = f"'{backbone.card.name}' ({backbone.card.architecture})"
    depth = backbone.depth
    levels: list[tuple[Tensor, Tensor | None]]
    if depth or any(match[3] == "cls" for match in asked.values()):
        wanted = [(match[1], int(match[2])) for match in asked.values()]
        beyond = max((number for kind, number in wanted if kind == "block"), default=0)
        if depth and beyond > depth:
            raise BenchError(f"{who} has {depth} blocks: there is no block {beyond}")
        levels = backbone.blocks(
            images, n=max(number if kind == "blocks" else depth - number + 1 for kind, number in wanted), norm=True
        )
    else:
        levels = [(level.flatten(2).transpose(1, 2), None) for level in backbone.pyramid(images)]
        depth = len(levels)
        beyond = max(int(match[2]) for match in asked.values())
        if beyond > depth:
            raise BenchError(f"{who} has no blocks but {depth} maps: there is no map {beyond}")
    first = depth - len(levels)
    found = {}
    for name, match in asked.items():
        number = int(match[2])
        chosen = levels[-number:] if match[1] == "blocks" else [levels[number - 1 - first]]
        found[name] = _side_by_side(backbone, chosen, match[3])
    return found


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
