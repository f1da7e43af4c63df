"""A backbone as the trunk of torchvision's detectors: a feature pyramid over its maps, or over its last one alone."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from bench.backbone import Backbone
from bench.errors import BenchError
from suites.detection.windows import Grid, divide, split

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


class Reader(nn.Module):
    """The maps of a backbone that a detector's pyramid stands on: ``maps(images [B, 3, H, W])``.

    Networks of several maps: the four coarsest. A plain transformer: its last one, before the final norm where it is
    trained (as ViTDet reads it). ``frozen``: the backbone is not trained, and stays in eval mode. ``fixed``: its batch
    norms keep the statistics of pre-training, whatever is trained. ``fixed_stem``: the layers that the finest map comes
    from are not trained. ``window``, ``positions``, ``sees_prefix``: see `suites.detection.windows`.
    """

    def __init__(
        self, backbone: Backbone, *, frozen: bool, fixed: bool, fixed_stem: bool = False, window: int = 0,
        positions: int = 0, sees_prefix: bool = True, option: str = "coco.window",
    ) -> None:  # fmt: skip
        super().__init__()
        card = backbone.card
        if not backbone.depth and len(card.channels) < 4:
            raise BenchError(
                f"'{card.name}' ({card.architecture}) has {len(card.channels)} maps, and a feature pyramid reads four"
            )
        self.frozen = frozen
        self.fixed = fixed
        # A network that is trained is a copy: the caller's stays as the checkpoint has it.
        self.backbone = backbone if frozen else copy.deepcopy(backbone).requires_grad_(True)
        self.plain = backbone.depth > 0
        self.channels = [card.channels[-1]] if self.plain else list(card.channels[-4:])
        # Detectors reckon in strides that are powers of two: patches of 14 pixels see the image at 14/16 its size.
        self.patch = card.strides[-1]
        self.whole = 2 ** round(math.log2(self.patch)) if self.plain else self.patch
        self.strides = [self.whole] if self.plain else list(card.strides[-4:])
        self.multiple = (2 if self.plain else 1) * self.whole
        self.grid: Grid | None = None
        if self.plain and window and not frozen:
            self.grid = divide(self.trunk, side=window, positions=positions, sees_prefix=sees_prefix, option=option)
        if fixed_stem and not frozen and not self.plain:
            self._fix_stem()

    @property
    def trunk(self) -> Any:
        """The network itself, whose layers are counted."""
        return getattr(self.backbone, "network", self.backbone)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.backbone.modules():
            if self.frozen or (self.fixed and isinstance(part, nn.modules.batchnorm._BatchNorm)):
                part.training = False
        return self

    def maps(self, images: Tensor) -> list[Tensor]:
        padding = [(-side) % self.multiple for side in (images.shape[3], images.shape[2])]
        if any(padding):
            images = F.pad(images, [0, padding[0], 0, padding[1]])
        if self.patch != self.whole:
            size = [side * self.patch // self.whole for side in images.shape[2:]]
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if not self.plain or self.frozen:
                return self.backbone.pyramid(images)[-4:]
            shape = (images.shape[2] // self.patch, images.shape[3] // self.patch)
            if self.grid is not None:
                self.grid.shape = shape
            ((tokens, _),) = self.backbone.blocks(images, n=1, norm=False)
            return [split(tokens.transpose(1, 2), 2, shape)]

    def _fix_stem(self) -> None:
        """What the finest map comes from is what its gradient reaches: stem and first stage."""
        was = self.backbone.training
        with torch.enable_grad():
            probe = torch.zeros(1, 3, *[2 * self.multiple] * 2)
            self.backbone.pyramid(probe)[-4].sum().backward()  # type: ignore[no-untyped-call]
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(parameter.grad is None)
            parameter.grad = None
        self.backbone.train(was)


class Trunk(Reader):
    """``forward(images [B, 3, H, W])`` gives the ordered maps that torchvision's detectors read: a feature pyramid (Lin
    et al. 2017) over four maps, the simple feature pyramid of ViTDet (Li et al. 2022) over one."""

    def __init__(self, backbone: Backbone, *, frozen: bool, fixed: bool, norm: str, **more: Any) -> None:
        super().__init__(backbone, frozen=frozen, fixed=fixed, **more)
        self.out_channels = WIDTH
        if self.plain:
            self.neck: nn.Module = SimplePyramid(self.channels[0])
        else:
            layer = {"batch": nn.BatchNorm2d, "none": None}[norm]
            self.neck = FeaturePyramidNetwork(self.channels, WIDTH, LastLevelMaxPool(), layer)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        found = self.neck(OrderedDict(zip(LEVELS, self.maps(images), strict=False)))
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
