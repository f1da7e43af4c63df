"""Segmentation networks over a backbone's maps: a linear head on frozen ones, and UperNet with its auxiliary head."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone import Backbone
from suites.segmentation.maps import FourMaps, FrozenMaps, Maps, beside

AUXILIARY = 0.4
"""Weight of the auxiliary head's loss."""


class Segmenter(nn.Module):
    """``forward((images, labels))`` gives the losses; `logits` gives [B, C, H, W] for images of any size."""

    def __init__(self, maps: Maps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        return {name: loss_of(_resized(logits, images), labels) * weight
                for name, (logits, weight) in self._heads(images).items()}  # fmt: skip

    def logits(self, images: Tensor) -> Tensor:
        """[B, C, H, W] for normalised images [B, 3, H, W]."""
        return _resized(self._main(self.maps(images)), images)

    def _heads(self, images: Tensor) -> dict[str, tuple[Tensor, float]]:
        return {"loss": (self._main(self.maps(images)), 1.0)}

    def _main(self, maps: list[Tensor]) -> Tensor:
        """Logits that cover the padded image."""
        raise NotImplementedError


class LinearSegmenter(Segmenter):
    """Batch norm and a 1x1 convolution on the frozen last map, or on ``layers`` of them side by side (DINOv2, section
    7.4); without ``batch_norm`` the convolution alone (iBOT). Dropout comes first, as in DINOv3's head."""

    def __init__(
        self, backbone: Backbone, classes: int, *, layers: int = 1, spread: bool = False, batch_norm: bool = True,
        dropout: float = 0.0, size: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(FrozenMaps(backbone, layers, spread=spread, size=size))
        width = sum(self.maps.channels)
        self.dropout = nn.Dropout2d(dropout)
        self.norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.head = nn.Conv2d(width, classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def _main(self, maps: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.norm(self.dropout(beside(maps))))
        return F.interpolate(logits, scale_factor=self.maps.strides[0], mode="bilinear", align_corners=False)


class UperNet(Segmenter):
    """UperNet (Xiao et al. 2018) over four maps, with an auxiliary convolutional head on the third.

    The decoder is segmentation-models-pytorch's.
    """

    def __init__(
        self, backbone: Backbone, classes: int, *, width: int = 512, dropout: float = 0.1, size: int = 0
    ) -> None:
        super().__init__(FourMaps(backbone, even=True, size=size))
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

        channels = self.maps.channels
        self.decoder: Any = UPerNetDecoder([0, 0, *channels], decoder_channels=width)
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1))
        self.auxiliary = nn.Sequential(
            nn.Conv2d(channels[2], 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(256, classes, 1),
        )

    def _main(self, maps: list[Tensor]) -> Tensor:
        # The decoder normalises the list it is given in place.
        logits: Tensor = self.head(self.decoder([None, None, *maps]))
        return F.interpolate(logits, scale_factor=self.maps.strides[0], mode="bilinear", align_corners=False)

    def _heads(self, images: Tensor) -> dict[str, tuple[Tensor, float]]:
        maps = self.maps(images)
        auxiliary = F.interpolate(
            self.auxiliary(maps[2]), scale_factor=self.maps.strides[2], mode="bilinear", align_corners=False
        )
        return {"loss": (self._main(list(maps)), 1.0), "auxiliary": (auxiliary, AUXILIARY)}


def _resized(logits: Tensor, images: Tensor) -> Tensor:
    """The logits of a padded image, cut to the image."""
    return logits[:, :, : images.shape[2], : images.shape[3]]


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, the mean over all pixels (those that count nowhere add 0, as in mmsegmentation's default)."""
    return F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="none").mean()
