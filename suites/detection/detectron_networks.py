"""detectron2's networks over our maps: the Backbone it wants, and R-CNNs with a feature pyramid or a C4 head.

Imported on demand alone: detectron2 is not installed everywhere.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, NamedTuple

import detectron2
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, GeneralizedRCNN, SimpleFeaturePyramid, build_proposal_generator
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    FastRCNNOutputLayers,
    Res5ROIHeads,
    ROIHeads,
    build_mask_head,
    build_roi_heads,
)
from torch import Tensor, nn

from bench.errors import BenchError
from suites.detection.pyramids import Reader

OVERRIDES: list[Any] = []
"""Entries of detectron2's configuration that stand in place of the published ones: names and values in turn."""


class RCNNSettings(NamedTuple):
    """What is not the published configuration's."""

    classes: int
    masks: bool
    norm: str
    """Of the feature pyramid: ``BN``, or nothing."""
    mean: list[float]
    std: list[float]
    square: int
    """Side that images are padded to; 0: none."""
    vitdet: bool
    """ViTDet's heads: layer norms, two convolutions in the region network, four and one layer for boxes."""
    cascade: bool = False
    """Three box heads in turn, at IoU .5, .6 and .7 (Cai & Vasconcelos 2018), their boxes the same for all classes."""


class Bottom(Backbone):
    """Our maps as detectron2 reads them: ``res2`` to ``res5``, or of a plain transformer ``last_feat``."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        names = ["last_feat"] if reader.plain else ["res2", "res3", "res4", "res5"]
        self._out_features = names
        self._out_feature_channels = dict(zip(names, reader.channels, strict=True))
        self._out_feature_strides = dict(zip(names, reader.strides, strict=True))
        if not reader.plain and any(b != 2 * a for a, b in zip(reader.strides, reader.strides[1:], strict=False)):
            raise BenchError(
                f"detectron2's feature pyramid doubles its stride from level to level, and this network's maps have "
                f"strides {', '.join(map(str, reader.strides))}"
            )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._out_features, self.reader.maps(images), strict=True))


class Stem(Backbone):
    """A ResNet up to its third stage, whose last stage is the head."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        network = reader.trunk
        self.last = [network.layer4]
        network.layer4 = nn.Identity()
        self._out_features = ["res4"]
        self._out_feature_channels = {"res4": reader.channels[-2]}
        self._out_feature_strides = {"res4": reader.strides[-2]}
        self._width = reader.channels[-1]

    @property
    def size_divisibility(self) -> int:
        return 0

    def take_last(self) -> tuple[nn.Module, int]:
        """The last stage and its channels; it is then the head's alone."""
        return self.last.pop(), self._width

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        network = self.reader.trunk
        x = network.maxpool(network.act1(network.bn1(network.conv1(images))))
        return {"res4": network.layer3(network.layer2(network.layer1(x)))}


def rcnn(bottom: Bottom | Stem, settings: RCNNSettings) -> Any:
    """detectron2's GeneralizedRCNN by its Base-RCNN-FPN or Base-RCNN-C4 configuration, RGB."""
    cfg = configuration(bottom, settings)
    backbone = bottom if isinstance(bottom, Stem) else pyramid(bottom, cfg, settings)
    shapes = backbone.output_shape()
    if not isinstance(bottom, Stem):
        names = list(shapes)
        cfg.MODEL.RPN.IN_FEATURES = names
        cfg.MODEL.ROI_HEADS.IN_FEATURES = names[:-1]
    heads = c4_heads(bottom, cfg) if isinstance(bottom, Stem) else build_roi_heads(cfg, shapes)
    return GeneralizedRCNN(
        backbone=backbone,
        proposal_generator=build_proposal_generator(cfg, shapes),
        roi_heads=heads,
        pixel_mean=settings.mean,
        pixel_std=settings.std,
        input_format="RGB",
    )


def configuration(bottom: Bottom | Stem, settings: RCNNSettings) -> Any:
    """The published configuration with our classes."""
    cfg = get_cfg()
    base = "Base-RCNN-C4.yaml" if isinstance(bottom, Stem) else "Base-RCNN-FPN.yaml"
    # Beside the package, or beside its source where that was installed in place.
    package = Path(str(detectron2.__file__)).parent
    places = [package / "model_zoo" / "configs" / base, package.parent / "configs" / base]
    cfg.merge_from_file(str(next(place for place in places if place.is_file())))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = settings.masks
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = settings.classes
    cfg.MODEL.FPN.NORM = settings.norm
    if settings.vitdet:
        cfg.MODEL.RPN.CONV_DIMS = [-1, -1]
        cfg.MODEL.ROI_BOX_HEAD.NUM_CONV = 4
        cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
        cfg.MODEL.ROI_BOX_HEAD.NORM = cfg.MODEL.ROI_MASK_HEAD.NORM = "LN"
    if settings.cascade:
        cfg.MODEL.ROI_HEADS.NAME = "CascadeROIHeads"
        cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    cfg.merge_from_list(OVERRIDES)
    return cfg


def pyramid(bottom: Bottom, cfg: Any, settings: RCNNSettings) -> Any:
    """A feature pyramid over four maps, ViTDet's simple one over one, and a pooled top level."""
    width, top = cfg.MODEL.FPN.OUT_CHANNELS, LastLevelMaxPool()
    coarsest = 2 * bottom.reader.strides[-1] if bottom.reader.plain else bottom.reader.strides[-1]
    top.in_feature = f"p{round(math.log2(coarsest))}"
    if bottom.reader.plain:
        return SimpleFeaturePyramid(
            net=bottom, in_feature="last_feat", out_channels=width, scale_factors=(4.0, 2.0, 1.0, 0.5),
            top_block=top, norm="LN", square_pad=settings.square,
        )  # fmt: skip
    return FPN(
        bottom_up=bottom, in_features=["res2", "res3", "res4", "res5"], out_channels=width, norm=settings.norm,
        top_block=top,
    )  # fmt: skip


def c4_heads(stem: Stem, cfg: Any) -> Any:
    """Head of the ResNet's last stage, with MoCo's batch norm after it (SyncBN over several processes), for boxes and,
    where the configuration has them, masks."""
    last, width = stem.take_last()
    shapes = stem.output_shape()
    side = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
    masks = build_mask_head(cfg, ShapeSpec(channels=width, width=side, height=side)) if cfg.MODEL.MASK_ON else None
    pooler = ROIPooler(
        output_size=side,
        scales=(1.0 / shapes["res4"].stride,),
        sampling_ratio=cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
        pooler_type=cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE,
    )
    return Res5ROIHeads(
        in_features=["res4"],
        pooler=pooler,
        res5=nn.Sequential(copy.deepcopy(last), nn.BatchNorm2d(width)),
        box_predictor=FastRCNNOutputLayers(cfg, ShapeSpec(channels=width, height=1, width=1)),
        mask_head=masks,
        **ROIHeads.from_config(cfg),
    )
