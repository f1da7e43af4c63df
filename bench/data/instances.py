"""Detection sets: images with boxes, classes and, where there are any, masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.data.digests import file_digests
from bench.data.files import FileDataset
from bench.dataset import fingerprint_of
from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL import Image

OUTSIDE = 1.0
"""Pixels by which a box may leave its image: published boxes are rounded, and some do by less than one."""
DEGENERATE = 1e-4
"""Share of boxes without area that is passed over (COCO's train2017 holds such a box among 860 001)."""


class Instances(NamedTuple):
    """The annotated objects of one image, K of them."""

    boxes: np.ndarray
    """float64 [K, 4]: left, top, width, height in pixels; pixel (0, 0) covers [0, 1) x [0, 1)."""
    labels: np.ndarray
    """int64 [K]: positions in ``classes``."""
    areas: np.ndarray
    """float64 [K]: square pixels, of the mask where there is one."""
    crowd: np.ndarray
    """bool [K]: a region of many objects; it is matched any number of times and never counts."""
    difficult: np.ndarray
    """bool [K]: VOC's flag; in VOC's figures such an object neither counts nor is held against a detection (COCO's do
    not know the flag)."""
    segments: tuple[Any, ...]
    """Per object: polygons (lists of x, y, x, y...), an RLE dictionary, or None."""
    size: tuple[int, int]
    """(height, width) of the image, as the annotation says."""


class DetectionDataset(FileDataset):
    """One split. ``labels`` is int64 [N, C]: 1 where the image shows an object of the class (crowds left out)."""

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        paths: Sequence[str],
        instances: Sequence[Instances],
        classes: Mapping[int, str],
        image_ids: Sequence[int],
    ) -> None:
        """``classes``: category number -> name. ``image_ids``: the numbers that detections are stored under."""
        present = np.zeros((len(paths), len(classes)), dtype=np.int64)
        for row, found in zip(present, instances, strict=True):
            row[found.labels[~found.crowd]] = 1
        super().__init__(name, split, root, paths, present, list(classes.values()), list(classes))
        self._instances = list(instances)
        self._image_ids = list(image_ids)
        self.passed_over = 0
        """Annotations left out because they have no area."""

    def instances(self, index: int) -> Instances:
        """The annotated objects of image ``index``."""
        return self._instances[index]

    def image_id(self, index: int) -> int:
        """The number under which detections of image ``index`` are stored."""
        return self._image_ids[index]

    def image(self, index: int) -> Image.Image:
        """RGB; raises `BenchError` when its size is not the annotation's: every box would be elsewhere."""
        image = super().image(index)
        height, width = self._instances[index].size
        if image.size != (width, height):
            raise BenchError(
                f"{self.name} {self.split}: {self._paths[index]} has {image.width}x{image.height} pixels, and its "
                f"annotation says {width}x{height}: annotate the image as it is"
            )
        return image

    @property
    def masked(self) -> bool:
        """Whether every object has a mask."""
        return all(segment is not None for found in self._instances for segment in found.segments)

    @cached_property
    def fingerprint(self) -> str:
        digests = file_digests(self.root, self._paths)
        classes = json.dumps([self.class_ids, self.classes]).encode()
        return fingerprint_of(
            (hashlib.sha256(content + classes + _spelled(found)).digest(), -1)
            for content, found in zip(digests, self._instances, strict=True)
        )

    def _take(self, indices: np.ndarray) -> None:
        super()._take(indices)
        self._instances = [self._instances[i] for i in indices]
        self._image_ids = [self._image_ids[i] for i in indices]


def _spelled(found: Instances) -> bytes:
    """Everything of an annotation that a number depends on, the same on every machine."""
    arrays = [array.tolist() for array in (found.boxes, found.labels, found.areas, found.crowd, found.difficult)]
    return json.dumps([arrays, found.segments, found.size], sort_keys=True).encode()


class Checked:
    """Looks at boxes one by one and says what is wrong with the first bad one; counts those without area."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.seen = 0
        self.flat: list[str] = []

    def keep(self, box: Sequence[float], size: tuple[int, int], what: str) -> bool:
        """Whether ``box`` (left, top, width, height) has an area. Raises `BenchError` when it leaves the image."""
        self.seen += 1
        left, top, width, height = box
        if not np.isfinite(box).all():
            raise BenchError(f"{self.where}: {what} has a box that is not finite: mend it")
        tall, wide = size
        inside = left >= -OUTSIDE and top >= -OUTSIDE
        if not inside or left + width > wide + OUTSIDE or top + height > tall + OUTSIDE:
            raise BenchError(
                f"{self.where}: {what} has the box {_numbers(box)} (left, top, width, height), which leaves its image "
                f"of {wide}x{tall} pixels: mend it, or the image's size"
            )
        if width <= 0 or height <= 0:
            self.flat.append(f"{what} ({_numbers(box)})")
            return False
        return True

    def judge(self) -> int:
        """The number of boxes without area; refused when they are more than `DEGENERATE` of all."""
        if len(self.flat) > DEGENERATE * self.seen:
            raise BenchError(
                f"{self.where}: {len(self.flat)} of {self.seen} boxes have no area, first {self.flat[0]}: "
                f"remove them, or give them a width and a height"
            )
        return len(self.flat)


def instances_from(
    size: tuple[int, int],
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    areas: Sequence[float] | None = None,
    crowd: Sequence[bool] | None = None,
    difficult: Sequence[bool] | None = None,
    segments: Sequence[Any] | None = None,
) -> Instances:
    """Instances from plain lists; areas default to the boxes', flags to False, segments to None."""
    k = len(boxes)
    array = np.asarray(boxes, dtype=np.float64).reshape(k, 4)
    return Instances(
        array,
        np.asarray(labels, dtype=np.int64),
        array[:, 2] * array[:, 3] if areas is None else np.asarray(areas, dtype=np.float64),
        np.zeros(k, dtype=bool) if crowd is None else np.asarray(crowd, dtype=bool),
        np.zeros(k, dtype=bool) if difficult is None else np.asarray(difficult, dtype=bool),
        (None,) * k if segments is None else tuple(segments),
        size,
    )


def _numbers(box: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in box)
