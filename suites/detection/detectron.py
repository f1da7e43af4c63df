"""The published engine of detection: detectron2's R-CNNs, samples and losses over a backbone's maps.

The training loop is `suites.training`, for exact resume, one total batch over processes and a plan before the start.
Imported on demand alone: detectron2 is not installed everywhere.
"""

from __future__ import annotations

import copy
import warnings
from functools import cached_property
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from bench.data.masks import mask_of
from bench.errors import BenchError
from bench.suite import engine_of
from suites.detection.detectron_networks import Bottom, RCNNSettings, Stem, rcnn
from suites.detection.detectron_package import quietly
from suites.detection.pyramids import Reader
from suites.detection.samples import learned_rows
from suites.detection.training import Job
from suites.segmentation.crops import image_of

STAGES = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""What a ResNet is made of; its last stage is a C4 detector's head."""


class Learner(nn.Module):
    """``forward(batch)`` in train mode gives detectron2's losses."""

    def __init__(self, network: Any, suite: str) -> None:
        super().__init__()
        self.network = network
        self.suite = suite

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        try:
            with EventStorage(), quietly():
                losses: dict[str, Tensor] = self.network(batch)
        except FloatingPointError as error:
            raise BenchError(
                f"the training of {self.suite} has diverged (boxes are no longer finite): lower {self.suite}.lr"
            ) from error
        return losses


class Mapped:
    """``samples[i]``: image and instances as detectron2's mapper makes them; crowds and images without objects are left
    out, as it does."""

    def __init__(self, dataset: Any, steps: list[Any], *, masks: bool, recompute: bool) -> None:
        self.dataset = dataset
        self.masks = masks
        self.recompute = recompute
        self.rows = learned_rows(dataset)
        self.steps = steps
        # detectron2 keeps polygons as they are, and draws what is not a polygon.
        self.form = "polygon" if not masks or all(map(_polygons, map(dataset.instances, self.rows))) else "bitmask"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        image, found = np.asarray(image_of(self.dataset, row)), self.dataset.instances(row)
        moved = T.AugInput(image)
        transforms = T.AugmentationList(self.steps)(moved)
        size = moved.image.shape[:2]
        objects = [
            detection_utils.transform_instance_annotations(self._object(found, k), transforms, size)
            for k in np.flatnonzero(~found.crowd).tolist()
        ]
        instances = detection_utils.annotations_to_instances(objects, size, mask_format=self.form)
        if self.recompute and self.masks and len(instances):
            # A mask that was cropped has a smaller box than its old one, cropped.
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return {
            "image": torch.from_numpy(np.ascontiguousarray(moved.image.transpose(2, 0, 1))),
            "height": size[0],
            "width": size[1],
            "instances": detection_utils.filter_empty_instances(instances),
        }

    def _object(self, found: Any, k: int) -> dict[str, Any]:
        row = {
            "bbox": found.boxes[k].tolist(), "bbox_mode": BoxMode.XYWH_ABS, "category_id": int(found.labels[k]),
        }  # fmt: skip
        if self.masks:
            segment = found.segments[k]
            polygons = self.form == "polygon"
            row["segmentation"] = copy.deepcopy(segment) if polygons else mask_of(segment, found.size).astype(np.uint8)
        return row


def _polygons(found: Any) -> bool:
    return all(isinstance(segment, list) or crowd for segment, crowd in zip(found.segments, found.crowd, strict=True))


class DetectronJob(Job):
    """One training and its detections by detectron2."""

    def engine(self) -> Any:
        parts = [engine_of(name) for name in ("detectron2", "torch")]
        return engine_of("detectron2", "+".join(f"{part.name} {part.version}" for part in parts))

    def reading(self) -> dict[str, Any]:
        # As ViTDet, which leaves the class token out.
        return {**super().reading(), "sees_prefix": False}

    def learner(self) -> Learner:  # type: ignore[override]
        task, settings = self.task, self.task.settings
        assert task.backbone is not None
        c4 = settings["head"] == "c4"
        if c4:
            self._check_c4(task.backbone)
        reader = Reader(task.backbone, **self.reading())
        self.drop_paths(reader)
        bottom = Stem(reader) if c4 else Bottom(reader)
        with warnings.catch_warnings():
            # PyTorch's advice to detectron2's authors.
            warnings.simplefilter("ignore")
            network = rcnn(
                bottom,
                RCNNSettings(
                    classes=self.classes,
                    masks=self.masks,
                    norm="BN" if settings["fpn_norm"] == "batch" else "",
                    mean=[255 * v for v in self.transform.mean],
                    std=[255 * v for v in self.transform.std],
                    square=settings["size"] if settings["jitter"] else 0,
                    vitdet=reader.plain,
                    cascade=settings["head"] == "cascade",
                ),
            )
        return Learner(network, task.protocol.suite)

    def _check_c4(self, backbone: Any) -> None:
        suite = self.task.protocol.suite
        network = getattr(backbone, "network", backbone)
        missing = [name for name in STAGES if not hasattr(network, name)]
        if missing:
            raise BenchError(
                f"a C4 head is the last stage of a ResNet, and '{backbone.card.name}' ({backbone.card.architecture}) "
                f"is no ResNet of stages (no {missing[0]}): --set {suite}.head=fpn"
            )
        if self.task.settings["frozen"]:
            raise BenchError(
                f"a C4 head is the last stage of a ResNet, which is trained whole with it: "
                f"--set {suite}.head=fpn, or --set {suite}.frozen=no"
            )

    def parts(self, learner: Any) -> tuple[Reader, nn.ModuleList]:
        network = learner.network
        bottom = getattr(network.backbone, "bottom_up", getattr(network.backbone, "net", network.backbone))
        necks = [part for part in network.backbone.children() if part is not bottom]
        rest = nn.ModuleList([network.proposal_generator, network.roi_heads])
        if bottom is not network.backbone:
            rest.extend(necks)
        return bottom.reader, rest

    def groups(self, learner: Any) -> list[dict[str, Any]]:
        """As detectron2 groups them: everything decays but norms (WEIGHT_DECAY_NORM 0) and, of transformers,
        positions."""
        settings = self.task.settings
        norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
        spared = {
            id(parameter) for part in learner.modules()
            if isinstance(part, norms) or type(part).__name__ == "LayerNorm" for parameter in part.parameters(False)
        }  # fmt: skip
        spared |= {id(parameter) for name, parameter in learner.named_parameters() if name.endswith("pos_embed")}
        found = []
        for group in super().groups(learner):
            kept = [p for p in group["params"] if id(p) not in spared]
            left = [p for p in group["params"] if id(p) in spared]
            found += [{**group, "params": kept, "weight_decay": settings["weight_decay"]}] if kept else []
            found += [{**group, "params": left, "weight_decay": 0.0}] if left else []
        return found

    def samples(self, dataset: Any) -> Mapped:
        settings, (sizes, longest) = self.task.settings, self.sizes
        flip = T.RandomFlip(horizontal=True)
        if settings["jitter"]:
            size = settings["size"]
            steps = [
                flip,
                T.ResizeScale(min_scale=0.1, max_scale=2.0, target_height=size, target_width=size),
                T.FixedSizeCrop(crop_size=(size, size), pad=False),
            ]
        else:
            steps = [T.ResizeShortestEdge(sizes, longest, sample_style="choice"), flip]
        return Mapped(dataset, steps, masks=self.masks, recompute=settings["jitter"])

    @cached_property
    def test_resize(self) -> Any:
        sizes, longest = self.sizes
        return T.ResizeShortestEdge([sizes[-1]] * 2, longest)

    def found(self, learner: Any, image: Any) -> dict[str, Tensor]:
        pixels = np.asarray(image)
        resized = self.test_resize.get_transform(pixels).apply_image(pixels)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        with quietly():
            (found,) = learner.network([{"image": tensor, "height": image.height, "width": image.width}])
        instances = found["instances"]
        result = {
            "boxes": instances.pred_boxes.tensor, "labels": instances.pred_classes + 1, "scores": instances.scores,
        }  # fmt: skip
        if self.masks:
            result["masks"] = instances.pred_masks[:, None]
        return result
