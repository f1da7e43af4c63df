"""Which detection found which object: COCO's rules and VOC's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.matched import Matched

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
KEPT = 100
"""Detections of one image and class that count, best first."""


class Found(NamedTuple):
    """One image and class: objects and detections."""

    image: int
    """Position of the image."""
    overlaps: np.ndarray
    """float64 [D, G]; detections best first, of a crowd over the detection's own area."""
    scores: np.ndarray
    """float64 [D], descending."""
    areas: np.ndarray
    """float64 [D] of the detections."""
    object_areas: np.ndarray
    """float64 [G]."""
    crowd: np.ndarray
    """bool [G]; for VOC, the difficult ones."""


def coco(cells: Sequence[Found], images: int, area: str = "all") -> Matched:
    """COCO's matching of one class: the best free object of each detection at every threshold, those that count first.

    Crowds and objects outside of the area range do not count, and neither does what found them; a crowd may be found
    many times. Unfound detections outside of the range do not count.
    """
    low, high = AREAS[area]
    parts = []
    objects = np.zeros(images)
    for cell in cells:
        ignored = cell.crowd | (cell.object_areas < low) | (cell.object_areas > high)
        objects[cell.image] += (~ignored).sum()
        d, g = cell.overlaps.shape
        hit = np.zeros((len(THRESHOLDS), d), dtype=bool)
        passed = np.zeros_like(hit)
        free = np.ones((len(THRESHOLDS), g), dtype=bool)
        bar = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
        for row in range(d if g else 0):
            reach = (cell.overlaps[row] >= bar) & (free | cell.crowd)
            counting = _best(reach & ~ignored, cell.overlaps[row])
            other = _best(reach & ignored, cell.overlaps[row])
            chosen = np.where(counting >= 0, counting, other)
            hit[:, row] = counting >= 0
            passed[:, row] = (counting < 0) & (other >= 0)
            (at,) = np.nonzero(chosen >= 0)
            free[at, chosen[at]] = False
        outside = (cell.areas < low) | (cell.areas > high)
        passed |= ~hit & outside
        parts.append((cell, hit, ~hit & ~passed))
    return _joined(parts, objects)


def voc(cells: Sequence[Found], images: int) -> Matched:
    """VOC's matching of one class: each detection looks at its best object alone, and must overlap by more than the
    threshold; a second detection of an object is a miss, one of a difficult object does not count."""
    parts = []
    objects = np.zeros(images)
    for cell in cells:
        objects[cell.image] += (~cell.crowd).sum()
        d, g = cell.overlaps.shape
        hit = np.zeros((len(THRESHOLDS), d), dtype=bool)
        miss = np.ones_like(hit)
        taken = np.zeros((len(THRESHOLDS), g), dtype=bool)
        for row in range(d if g else 0):
            best = int(cell.overlaps[row].argmax())
            over = cell.overlaps[row, best] > THRESHOLDS
            if cell.crowd[best]:
                miss[over, row] = False
                continue
            hit[:, row] = over & ~taken[:, best]
            miss[:, row] = ~hit[:, row]
            taken[:, best] |= over
        parts.append((cell, hit, miss))
    return _joined(parts, objects)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU float64 [D, G] of boxes (left, top, width, height)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[None, :, :2] + others[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0.0), axis=2)
    either = np.prod(boxes[:, 2:], axis=1)[:, None] + np.prod(others[:, 2:], axis=1)[None] - both
    found: np.ndarray = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return found


def _best(reach: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """int64 [T]: the object of the highest overlap in reach, of equals the last (as COCO's loop ends); -1 if none."""
    if not reach.shape[1]:
        return np.full(len(reach), -1)
    values = np.where(reach, overlap, -1.0)[:, ::-1]
    last = reach.shape[1] - 1 - values.argmax(axis=1)
    found: np.ndarray = np.where(reach.any(axis=1), last, -1)
    return found


def _joined(parts: Sequence[tuple[Found, np.ndarray, np.ndarray]], objects: np.ndarray) -> Matched:
    if not parts:
        nothing = np.zeros((len(THRESHOLDS), 0), dtype=bool)
        return Matched(np.zeros(0, dtype=np.int64), nothing, nothing, objects)
    order = np.argsort(-np.concatenate([cell.scores for cell, _, _ in parts]), kind="stable")
    image = np.concatenate([np.full(len(cell.scores), cell.image) for cell, _, _ in parts])
    hit, miss = (np.concatenate([part[i] for part in parts], axis=1) for i in (1, 2))
    return Matched(image[order], hit[:, order], miss[:, order], objects)


def cells_of(truth: dict[str, Any], detections: Sequence[dict[str, Any]], kind: str) -> dict[int, list[Found]]:
    """Category id -> its images with objects or detections, in order of image id, from documents of COCO's form.

    ``kind``: ``bbox`` or ``segm``.
    """
    images = sorted(row["id"] for row in truth["images"])
    position = {number: index for index, number in enumerate(images)}
    sizes = {row["id"]: (row["height"], row["width"]) for row in truth["images"]}
    things: dict[tuple[int, int], tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    for which, rows in enumerate((truth["annotations"], detections)):
        for row in rows:
            things.setdefault((row["category_id"], row["image_id"]), ([], []))[which].append(row)
    found: dict[int, list[Found]] = {row["id"]: [] for row in truth["categories"]}
    for (category, image), (objects, hits) in sorted(things.items()):
        scores = np.array([row["score"] for row in hits], dtype=np.float64)
        order = np.argsort(-scores, kind="stable")[:KEPT]
        hits = [hits[i] for i in order]
        crowd = np.array([bool(row.get("iscrowd", 0)) for row in objects], dtype=bool)
        overlap, areas = _measured(objects, hits, crowd, sizes[image], kind)
        own = np.array([row["area"] for row in objects], dtype=np.float64)
        found[category].append(Found(position[image], overlap, scores[order], areas, own, crowd))
    return found


def _measured(
    objects: list[dict[str, Any]], hits: list[dict[str, Any]], crowd: np.ndarray, size: tuple[int, int], kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """(overlaps [D, G], areas [D])."""
    from faster_coco_eval import mask

    from bench.data.masks import run_lengths

    shape = (len(hits), len(objects))
    if kind == "bbox":
        boxes = np.array([row["bbox"] for row in hits], dtype=np.float64).reshape(-1, 4)
        areas = boxes[:, 2] * boxes[:, 3]
        others = np.array([row["bbox"] for row in objects], dtype=np.float64).reshape(-1, 4)
        if not all(shape):
            return np.zeros(shape), areas
        return np.asarray(mask.iou(boxes, others, crowd.astype(np.uint8).tolist())).reshape(shape), areas
    runs = [run_lengths(row["segmentation"], size) for row in hits]
    areas = np.array([float(mask.area(run)) for run in runs])
    if not all(shape):
        return np.zeros(shape), areas
    others_runs = [run_lengths(row["segmentation"], size) for row in objects]
    return np.asarray(mask.iou(runs, others_runs, crowd.astype(np.uint8).tolist())).reshape(shape), areas
