"""A backbone as the trunk of torchvision's detectors: a feature pyramid over its maps, or over its last one alone."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from bench.backbone import Backbone
from bench.errors import BenchError

WIDTH = 256
"""Channels of every level of the pyramid."""
MASK_HEAD = (256, 256, 256, 256)
"""Channels of the convolutions of the mask head."""
SAMPLED = 512
"""Regions of an image that the heads learn from, a quarter of them objects."""
PROPOSALS = (2000, 1000, 1000)
"""Regions before suppression in training and in tests (of every level), and after it (of an image)."""
LEVELS = ("0", "1", "2", "3")
"""Strides 4, 8, 16 and 32; ``pool`` (64) comes after them."""


class Trunk(nn.Module):
    """``forward(images [B, 3, H, W])`` gives the ordered maps that torchvision's detectors read.

    Networks of several maps: a feature pyramid (Lin et al. 2017) over the four coarsest. A plain transformer: the
    simple feature pyramid of ViTDet (Li et al. 2022) from its last map. ``frozen``: the backbone is not trained, and
    stays in eval mode. ``fixed``: its batch norms keep the statistics of pre-training, whatever is trained.
    """

    def __init__(self, backbone: Backbone, *, frozen: bool, fixed: bool, norm: str) -> None:
        super().__init__()
        self.out_channels = WIDTH
        card = backbone.card
        self.frozen = frozen
        self.fixed = fixed
        # A network that is trained is a copy: the caller's stays as the checkpoint has it.
        self.backbone = backbone if frozen else copy.deepcopy(backbone).requires_grad_(True)
        if backbone.depth:
            self.neck: nn.Module = SimplePyramid(card.channels[-1])
            # Detectors reckon in strides that are powers of two: patches of 14 pixels see the image at 14/16 its size.
            self.patch = card.strides[-1]
            self.whole = 2 ** round(math.log2(self.patch))
            self.multiple = 2 * self.whole
        elif len(card.channels) >= 4:
            layer = {"batch": nn.BatchNorm2d, "none": None}[norm]
            self.neck = FeaturePyramidNetwork(card.channels[-4:], WIDTH, LastLevelMaxPool(), layer)
            self.patch = self.whole = self.multiple = card.strides[-1]
        else:
            raise BenchError(
                f"'{card.name}' ({card.architecture}) has {len(card.channels)} maps, and a feature pyramid reads four"
            )

    def train(self, mode: bool = True) -> Trunk:
        super().train(mode)
        for part in self.backbone.modules():
            if self.frozen or (self.fixed and isinstance(part, nn.modules.batchnorm._BatchNorm)):
                part.training = False
        return self

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        padding = [(-side) % self.multiple for side in (images.shape[3], images.shape[2])]
        images = F.pad(images, [0, padding[0], 0, padding[1]])
        if self.patch != self.whole:
            size = [side * self.patch // self.whole for side in images.shape[2:]]
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.backbone.pyramid(images)
        found = self.neck(OrderedDict(zip(LEVELS, maps[-4:], strict=False)))
        return OrderedDict(found)


class SimplePyramid(nn.Module):
    """Strides of a quarter, a half, one and two patches from one map, each to `WIDTH` channels, and a pooled top."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        grown = [
            (nn.Sequential(nn.ConvTranspose2d(width, half, 2, 2), Norm(half), nn.GELU(),
                           nn.ConvTranspose2d(half, quarter, 2, 2)), quarter),
            (nn.ConvTranspose2d(width, half, 2, 2), half),
            (nn.Identity(), width),
            (nn.MaxPool2d(2), width),
        ]  # fmt: skip
        self.levels = nn.ModuleList(
            nn.Sequential(
                scale,
                nn.Conv2d(channels, WIDTH, 1, bias=False), Norm(WIDTH),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), Norm(WIDTH),
            )
            for scale, channels in grown
        )  # fmt: skip

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        (last,) = maps.values()
        found = OrderedDict((name, level(last)) for name, level in zip(LEVELS, self.levels, strict=True))
        found["pool"] = F.max_pool2d(found[LEVELS[-1]], 1, 2)
        return found


class Norm(nn.LayerNorm):
    """Layer norm over the channels of [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def detector(
    trunk: Trunk, classes: int, *, masks: bool, sizes: tuple[int, ...], longest: int, mean: Any, std: Any
) -> Any:
    """torchvision's Mask R-CNN (or Faster R-CNN) over ``trunk`` for ``classes`` things.

    Anchors 32 to 512, one size a level, ratios 1/2, 1 and 2; regions and proposals as in detectron2's Base-RCNN-FPN,
    whose other settings are torchvision's own defaults. Training images are scaled to a short side of one
    of ``sizes``, tests to the last; no long side exceeds ``longest``.
    """
    from torchvision.models.detection import FasterRCNN, MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign

    anchors = AnchorGenerator(tuple((size,) for size in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5)
    more = {"mask_roi_pool": MultiScaleRoIAlign(LEVELS, 14, 2)} if masks else {}
    network = (MaskRCNN if masks else FasterRCNN)(
        trunk,
        classes + 1,
        min_size=sizes,
        max_size=longest,
        image_mean=list(mean),
        image_std=list(std),
        rpn_anchor_generator=anchors,
        box_roi_pool=MultiScaleRoIAlign(LEVELS, 7, 2),
        box_batch_size_per_image=SAMPLED,
        rpn_pre_nms_top_n_train=PROPOSALS[0],
        rpn_pre_nms_top_n_test=PROPOSALS[1],
        rpn_post_nms_top_n_train=PROPOSALS[2],
        rpn_post_nms_top_n_test=PROPOSALS[2],
        size_divisible=trunk.multiple,
        **more,
    )
    if masks:
        network.roi_heads.mask_head = MaskRCNNHeads(trunk.out_channels, MASK_HEAD, 1)
        network.roi_heads.mask_predictor = MaskRCNNPredictor(MASK_HEAD[-1], MASK_HEAD[-1], classes + 1)
    return network
