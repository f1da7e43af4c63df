"""Segmentation networks over a backbone: a linear head on frozen maps, and UperNet with its auxiliary head."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import Backbone
from bench.errors import BenchError

AUXILIARY = 0.4
"""Weight of the auxiliary head's loss."""


class Segmenter(nn.Module):
    """``forward((images, labels))`` gives the losses; `logits` gives [B, C, H, W] for images of any size."""

    def __init__(self, backbone: Backbone, *, frozen: bool) -> None:
        super().__init__()
        if not backbone.card.strides:
            raise BenchError(f"'{backbone.card.name}' ({backbone.card.architecture}) has no maps to segment with")
        self.frozen = frozen
        # A network that is trained is a copy: the caller's stays as the checkpoint has it.
        self.backbone = backbone if frozen else copy.deepcopy(backbone).requires_grad_(True)
        self.stride = max(backbone.card.strides)

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        return {name: loss_of(_resized(logits, images), labels) * weight
                for name, (logits, weight) in self._heads(images).items()}  # fmt: skip

    def logits(self, images: Tensor) -> Tensor:
        """[B, C, H, W] for normalised images [B, 3, H, W]."""
        return _resized(self._main(self._maps(images)), images)

    def _heads(self, images: Tensor) -> dict[str, tuple[Tensor, float]]:
        return {"loss": (self._main(self._maps(images)), 1.0)}

    def _maps(self, images: Tensor) -> list[Tensor]:
        # Zeros are the mean colour: sides become multiples of the coarsest stride, as every architecture takes them.
        padding = [(-side) % self.stride for side in (images.shape[3], images.shape[2])]
        padded = F.pad(images, [0, padding[0], 0, padding[1]])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._read(padded)

    def _read(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def _main(self, maps: list[Tensor]) -> Tensor:
        """Logits that cover the padded image."""
        raise NotImplementedError


def _tokens(backbone: Backbone, images: Tensor, numbers: list[int], *, norm: bool) -> list[Tensor]:
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


class LinearSegmenter(Segmenter):
    """Batch norm and a 1x1 convolution on the frozen last map, or on the last ``layers`` side by side.

    Of a plain transformer, the patch tokens of its last blocks through the final norm; of any other network, the maps
    of its pyramid, scaled to the finest of those read (DINOv2, section 7.4; mmsegmentation's ``resize_concat``).
    """

    def __init__(self, backbone: Backbone, classes: int, *, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__(backbone, frozen=True)
        available = backbone.depth or len(backbone.card.channels)
        if layers > available:
            raise BenchError(
                f"'{backbone.card.name}' has {available} maps to read, and ade20k.layers asks for {layers}"
            )
        self.layers = layers
        widths = [backbone.card.channels[-1]] * layers if backbone.depth else backbone.card.channels[-layers:]
        self.norm = nn.BatchNorm2d(sum(widths))
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(sum(widths), classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def _read(self, images: Tensor) -> list[Tensor]:
        depth = self.backbone.depth
        if depth:
            return _tokens(self.backbone, images, list(range(depth - self.layers, depth)), norm=True)
        return self.backbone.pyramid(images)[-self.layers :]

    def _main(self, maps: list[Tensor]) -> Tensor:
        finest = maps[0].shape[2:]
        same = [F.interpolate(m, finest, mode="bilinear", align_corners=False) if m.shape[2:] != finest else m
                for m in maps]  # fmt: skip
        logits: Tensor = self.head(self.dropout(self.norm(torch.cat(same, dim=1))))
        return F.interpolate(logits, scale_factor=self._factor(), mode="bilinear", align_corners=False)

    def _factor(self) -> int:
        return self.backbone.card.strides[-1 if self.backbone.depth else -self.layers]


class UperNet(Segmenter):
    """UperNet (Xiao et al. 2018) over four maps, with an auxiliary convolutional head on the third.

    The decoder is segmentation-models-pytorch's. Of a plain transformer the maps are those of four blocks at even
    distances, scaled by 4, 2, 1 and 1/2 with transposed convolutions and pooling as BEiT does; of any other network the
    four coarsest of its pyramid.
    """

    def __init__(self, backbone: Backbone, classes: int, *, width: int = 512, frozen: bool = False) -> None:
        super().__init__(backbone, frozen=frozen)
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

        card = backbone.card
        if backbone.depth:
            channels = [card.channels[-1]] * 4
            self.rescale: nn.ModuleList | None = _rescaling(channels[0])
            self._strides = [card.strides[-1] / 4, card.strides[-1] / 2, card.strides[-1], card.strides[-1] * 2]
            # The map at half the patches' size needs an even number of them.
            self.stride = 2 * card.strides[-1]
        else:
            if len(card.channels) < 4:
                raise BenchError(
                    f"'{card.name}' has {len(card.channels)} maps, and UperNet reads four: use ade20k/linear"
                )
            channels = list(card.channels[-4:])
            self.rescale = None
            self._strides = [float(s) for s in card.strides[-4:]]
        self.decoder: Any = UPerNetDecoder([0, 0, *channels], decoder_channels=width)
        self.head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))
        self.auxiliary = nn.Sequential(
            nn.Conv2d(channels[2], 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(256, classes, 1),
        )

    def _read(self, images: Tensor) -> list[Tensor]:
        if self.rescale is None:
            return self.backbone.pyramid(images)[-4:]
        depth = self.backbone.depth
        numbers = [max(0, depth * quarter // 4 - 1) for quarter in (1, 2, 3, 4)]
        return _tokens(self.backbone, images, numbers, norm=False)

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps = super()._maps(images)
        return maps if self.rescale is None else [scale(m) for scale, m in zip(self.rescale, maps, strict=True)]

    def _main(self, maps: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.decoder([None, None, *maps]))
        return F.interpolate(logits, scale_factor=self._strides[0], mode="bilinear", align_corners=False)

    def _heads(self, images: Tensor) -> dict[str, tuple[Tensor, float]]:
        maps = self._maps(images)
        beside = F.interpolate(
            self.auxiliary(maps[2]), scale_factor=self._strides[2], mode="bilinear", align_corners=False
        )
        # The decoder normalises the list it is given in place.
        return {"loss": (self._main(list(maps)), 1.0), "auxiliary": (beside, AUXILIARY)}


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


def _resized(logits: Tensor, images: Tensor) -> Tensor:
    """The logits of a padded image, cut to the image."""
    return logits[:, :, : images.shape[2], : images.shape[3]]


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, the mean over all pixels (those that count nowhere add 0, as in mmsegmentation's default)."""
    return F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="none").mean()
