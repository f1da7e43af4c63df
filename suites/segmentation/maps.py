"""The maps of a backbone that segmentation heads read: its last ones, frozen, or four that are trained."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import Backbone
from bench.errors import BenchError


class Maps(nn.Module):
    """``forward(images [B, 3, H, W])`` gives a list of [B, C_i, ~H/s_i, ~W/s_i], finest first.

    Images are padded with zeros (the mean colour) to multiples of ``multiple``, so maps may cover more than the image.
    A network of one input size (BEiT's relative positions) is a copy whose positions are interpolated to ``size``, and
    its images, none of which may be larger, are padded to that square.
    """

    channels: list[int]
    strides: list[float]
    multiple: int

    def __init__(self, backbone: Backbone, *, frozen: bool, size: int = 0, even: bool = False) -> None:
        """``even``: the map of half the patches' size of a plain transformer has to cover them all, so their number is
        even."""
        super().__init__()
        if not backbone.card.strides:
            raise BenchError(f"'{backbone.card.name}' ({backbone.card.architecture}) has no maps to segment with")
        self.frozen = frozen
        self.multiple = max(backbone.card.strides) * (2 if even and backbone.depth else 1)
        fixed = bool(size) and _has_one_size(backbone)
        # A network that is changed is a copy: the caller's stays as the checkpoint has it.
        self.backbone = backbone if frozen and not fixed else copy.deepcopy(backbone).requires_grad_(not frozen)
        self.side = math.ceil(size / self.multiple) * self.multiple if fixed else 0
        """Of the square that images are padded to; 0: they may have any size."""
        if fixed:
            _resize(self.trunk, self.side)
        self.rescale: nn.ModuleList | None = None

    @property
    def trunk(self) -> nn.Module:
        """The network itself, whose layers are counted."""
        found: nn.Module = getattr(self.backbone, "network", self.backbone)
        return found

    def train(self, mode: bool = True) -> Maps:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        padding = [
            max(0, self.side - side) if self.side else (-side) % self.multiple
            for side in (images.shape[3], images.shape[2])
        ]
        if any(padding):
            images = F.pad(images, [0, padding[0], 0, padding[1]])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self._read(images)
        return maps if self.rescale is None else [scale(m) for scale, m in zip(self.rescale, maps, strict=True)]

    def _read(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError


class FrozenMaps(Maps):
    """The frozen last ``layers``: of a plain transformer, the patch tokens of its last blocks through the final norm;
    of any other network, maps of its pyramid.

    ``spread``: of a plain transformer those of four blocks from its first third on (`spread_of`), as UperNet reads.
    """

    def __init__(self, backbone: Backbone, layers: int, *, spread: bool = False, size: int = 0) -> None:
        super().__init__(backbone, frozen=True, size=size)
        card = backbone.card
        available = backbone.depth or len(card.channels)
        if layers > available:
            raise BenchError(f"'{card.name}' has {available} maps to read, and ade20k.layers asks for {layers}")
        if spread and layers != 4:
            raise BenchError(f"ade20k.blocks=spread reads four layers, not ade20k.layers={layers}: set one of them")
        self.numbers = spread_of(backbone.depth) if spread else range(backbone.depth - layers, backbone.depth)
        self.layers = layers
        self.channels = [card.channels[-1]] * layers if backbone.depth else list(card.channels[-layers:])
        self.strides = [float(s) for s in ([card.strides[-1]] * layers if backbone.depth else card.strides[-layers:])]

    def _read(self, images: Tensor) -> list[Tensor]:
        if self.backbone.depth:
            return _tokens(self.backbone, images, self.numbers, norm=True)
        return self.backbone.pyramid(images)[-self.layers :]


class FourMaps(Maps):
    """Four maps for UperNet, trained. Of a plain transformer those of four blocks (`spread_of`), scaled by 4, 2, 1 and
    1/2 with transposed convolutions and pooling as BEiT does; of any other network the four coarsest of its pyramid."""

    def __init__(self, backbone: Backbone, *, even: bool = False, size: int = 0) -> None:
        super().__init__(backbone, frozen=False, size=size, even=even)
        card = backbone.card
        if backbone.depth:
            patch = card.strides[-1]
            self.channels = [card.channels[-1]] * 4
            self.rescale = _rescaling(self.channels[0])
            self.strides = [patch / 4, patch / 2, patch, patch * 2]
        else:
            if len(card.channels) < 4:
                raise BenchError(
                    f"'{card.name}' has {len(card.channels)} maps, and UperNet reads four: use ade20k/linear"
                )
            self.channels = list(card.channels[-4:])
            self.strides = [float(s) for s in card.strides[-4:]]

    def _read(self, images: Tensor) -> list[Tensor]:
        if self.rescale is None:
            return self.backbone.pyramid(images)[-4:]
        return _tokens(self.backbone, images, spread_of(self.backbone.depth), norm=False)


def spread_of(depth: int) -> list[int]:
    """The blocks that BEiT's, MAE's and iBOT's segmentation reads (0 the first), at a third, a half, two thirds and the
    end of a plain transformer: 3, 5, 7 and 11 of 12, 7, 11, 15 and 23 of 24."""
    return [max(0, depth * sixths // 6 - 1) for sixths in (2, 3, 4, 6)]


def beside(maps: list[Tensor]) -> Tensor:
    """The maps scaled to the first one and put side by side (mmsegmentation's ``resize_concat``)."""
    finest = maps[0].shape[2:]
    same = [F.interpolate(m, finest, mode="bilinear", align_corners=False) if m.shape[2:] != finest else m
            for m in maps]  # fmt: skip
    return torch.cat(same, dim=1)


def _has_one_size(backbone: Backbone) -> bool:
    """Whether the network takes images of one size alone, and can be made for another one."""
    network = getattr(backbone, "network", backbone)
    strict = getattr(getattr(network, "patch_embed", None), "strict_img_size", False)
    return bool(strict) and hasattr(network, "set_input_size")


def _resize(network: Any, side: int) -> None:
    """Positions interpolated to squares of ``side`` pixels (BEiT's relative ones by its own geometric progression)."""
    wanted = [p.requires_grad for p in network.parameters()]
    with warnings.catch_warnings():
        # PyTorch's advice to timm's authors.
        warnings.simplefilter("ignore")
        network.set_input_size((side, side))
    # Tables that were resized are new parameters.
    for parameter, grad in zip(network.parameters(), wanted, strict=True):
        parameter.requires_grad_(grad)


def _tokens(backbone: Backbone, images: Tensor, numbers: Sequence[int], *, norm: bool) -> list[Tensor]:
    """Patch tokens [B, D, h, w] of the blocks ``numbers`` (0 the first)."""
    depth, stride = backbone.depth, backbone.card.strides[-1]
    shape = (images.shape[2] // stride, images.shape[3] // stride)
    read = backbone.blocks(images, n=depth - min(numbers), norm=norm)
    found = []
    for number in numbers:
        tokens = read[number - min(numbers)][0]
        if tokens.shape[1] != shape[0] * shape[1]:
            raise BenchError(
                f"'{backbone.card.name}' gives {tokens.shape[1]} tokens for {shape[0]}x{shape[1]} patches: "
                f"it cannot be read as a map"
            )
        found.append(tokens.transpose(1, 2).reshape(len(tokens), -1, *shape))
    return found


def _rescaling(width: int) -> nn.ModuleList:
    return nn.ModuleList(
        [
            nn.Sequential(
                nn.ConvTranspose2d(width, width, 2, 2), nn.BatchNorm2d(width), nn.GELU(),
                nn.ConvTranspose2d(width, width, 2, 2),
            ),
            nn.ConvTranspose2d(width, width, 2, 2),
            nn.Identity(),
            nn.MaxPool2d(2),
        ]
    )  # fmt: skip
