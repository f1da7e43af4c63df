"""Training samples of detection: images with boxes, classes and masks, mirrored or jittered."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from bench.data.masks import mask_of
from bench.errors import BenchError
from suites.segmentation.crops import image_of

Sample = tuple[Tensor, dict[str, Tensor]]


class Annotated:
    """``samples[i]``: (image float32 [3, H, W] in [0, 1], target), as torchvision has them.

    Images without an object to learn are left out, and crowds are not learned, as in detectron2. ``jitter``: the side
    of large-scale jitter's square (scale .1 to 2, cropped or padded); None: mirrored alone, and the detector scales.
    """

    def __init__(self, dataset: Any, *, masks: bool, jitter: int | None = None) -> None:
        self.dataset = dataset
        self.masks = masks
        self.jitter = jitter
        self.rows = learned_rows(dataset)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        image, found = image_of(self.dataset, row), self.dataset.instances(row)
        learned = np.flatnonzero(~found.crowd)
        boxes = found.boxes[learned].copy()
        boxes[:, 2:] += boxes[:, :2]
        masks = [mask_of(found.segments[k], found.size) for k in learned] if self.masks else []
        labels = found.labels[learned] + 1
        if random.random() < 0.5:
            image = F.hflip(image)
            boxes[:, [0, 2]] = image.width - boxes[:, [2, 0]]
            masks = [mask[:, ::-1] for mask in masks]
        if self.jitter is not None:
            image, boxes, masks = jittered(image, boxes, masks, self.jitter)
        boxes[:, [0, 2]] = boxes[:, [0, 2]].clip(0, image.width)
        boxes[:, [1, 3]] = boxes[:, [1, 3]].clip(0, image.height)
        kept = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] > 1e-3).all(axis=1))
        target = {
            "boxes": torch.from_numpy(boxes[kept]).float().reshape(-1, 4),
            "labels": torch.from_numpy(labels[kept]),
        }
        if self.masks:
            shape = (len(kept), image.height, image.width)
            target["masks"] = torch.from_numpy(
                np.stack([masks[k] for k in kept]).astype(np.uint8) if len(kept) else np.zeros(shape, dtype=np.uint8)
            )
        return F.to_tensor(image), target


def learned_rows(dataset: Any) -> list[int]:
    """The images that show an object to learn. Raises `BenchError` when none does."""
    rows = [i for i in range(len(dataset)) if not dataset.instances(i).crowd.all()]
    if not rows:
        raise BenchError(f"{dataset.name} {dataset.split} has no annotated object: there is nothing to learn")
    return rows


def jittered(
    image: Image.Image, boxes: np.ndarray, masks: list[np.ndarray], size: int
) -> tuple[Image.Image, np.ndarray, list[np.ndarray]]:
    """Large-scale jitter: scaled by .1 to 2 of the largest scale that fits ``size``, then cropped or padded to a square
    of ``size``; ``boxes`` are corners [K, 4]."""
    factor = random.uniform(0.1, 2.0) * min(size / image.width, size / image.height)
    width, height = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    boxes = boxes * [width / image.width, height / image.height, width / image.width, height / image.height]
    image = F.resize(image, [height, width], InterpolationMode.BILINEAR)
    left, top = (random.randint(0, max(0, side - size)) for side in (width, height))
    canvas = Image.new("RGB", (size, size), (124, 116, 104))
    canvas.paste(image.crop((left, top, min(left + size, width), min(top + size, height))))
    moved = []
    for mask in masks:
        scaled = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST))
        part = scaled[top : top + size, left : left + size]
        whole = np.zeros((size, size), dtype=np.uint8)
        whole[: part.shape[0], : part.shape[1]] = part
        moved.append(whole)
    return canvas, boxes - [left, top, left, top], moved


def together(samples: list[Sample]) -> list[Sample]:
    """A batch: images have sizes of their own, so nothing is stacked."""
    return samples
