"""Average precision of stored detections: COCO's by faster-coco-eval, VOC2007's, and bootstrap intervals of both."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import matched as curve
from bench.bootstrap import percentile
from suites.detection import matching

if TYPE_CHECKING:
    from bench.data.instances import DetectionDataset

Document = dict[str, Any]
Detections = Sequence[dict[str, Any]]
"""Rows of COCO's result form: image_id, category_id, bbox (left, top, width, height), score and, for masks,
segmentation (RLE)."""

STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
Intervals = Mapping[str, tuple[float, float] | None]


def truth_of(dataset: DetectionDataset) -> Document:
    """The annotations of ``dataset`` as one document of COCO's form."""
    images: list[Document] = []
    annotations: list[Document] = []
    for index in range(len(dataset)):
        found = dataset.instances(index)
        number = dataset.image_id(index)
        images.append({"id": number, "height": found.size[0], "width": found.size[1]})
        for k in range(len(found.labels)):
            row = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": dataset.class_ids[int(found.labels[k])],
                "bbox": found.boxes[k].tolist(),
                "area": float(found.areas[k]),
                "iscrowd": int(found.crowd[k]),
                "difficult": int(found.difficult[k]),
            }
            if found.segments[k] is not None:
                row["segmentation"] = found.segments[k]
            annotations.append(row)
    categories = [{"id": number, "name": name} for number, name in zip(dataset.class_ids, dataset.classes, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_precision(truth: Document, detections: Detections, kind: str = "bbox") -> dict[str, float]:
    """COCO's six figures (`STATS`), percent, of ``kind`` ``bbox`` or ``segm``; those that are undefined are left out.

    pycocotools gives the same from the same documents (the tests compare).
    """
    if not detections:
        # The library refuses an empty list; a detector that finds nothing has no precision at any recall.
        areas = {"ap_small": "small", "ap_medium": "medium", "ap_large": "large"}
        return {name: 0.0 for name in STATS if _counting(truth, areas.get(name, "all"))}
    from faster_coco_eval import COCO, COCOeval_faster

    objects = COCO(copy.deepcopy(truth))
    # With a bbox beside the mask, the library would take the box's area for small, medium and large objects.
    rows = [{key: value for key, value in row.items() if kind == "bbox" or key != "bbox"} for row in detections]
    evaluation = COCOeval_faster(objects, objects.loadRes(rows), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = [float(value) for value in evaluation.stats[:6]]
    return {name: 100 * value for name, value in zip(STATS, values, strict=True) if value > -1}


def coco_intervals(
    truth: Document,
    detections: Detections,
    values: Mapping[str, float],
    kind: str = "bbox",
    *,
    replicates: int = curve.REPLICATES,
    seed: int = 0,
) -> Intervals:
    """95 % percentile intervals of ``values``, from resampled images; None where too few replicates have objects."""
    drawn = _drawn_coco(truth, detections, kind, _weights(truth, replicates, seed))
    return {name: _percent(percentile(drawn[name], value / 100)) for name, value in values.items()}


def own_coco_precision(truth: Document, detections: Detections, kind: str = "bbox") -> dict[str, float]:
    """The figures of `coco_precision` by the matching that the intervals use: the two must agree."""
    drawn = _drawn_coco(truth, detections, kind, np.ones((1, len(truth["images"]))))
    return {name: 100 * float(value[0]) for name, value in drawn.items() if np.isfinite(value[0])}


def voc_precision(truth: Document, detections: Detections) -> dict[str, float]:
    """VOC2007's 11-point ``ap50``, ``ap75`` and ``ap`` (mean over IoU .50 to .95), percent, mean over the classes that
    have objects which are not difficult. Boxes count to a tenth of a pixel and scores to three decimals, as the
    published evaluator writes them."""
    images = len(truth["images"])
    drawn = curve.figures(_voc(truth, detections), np.ones((1, images)), curve.VOC_RECALLS)
    return {name: 100 * float(value[0]) for name, value in drawn.items() if np.isfinite(value[0])}


def voc_intervals(
    truth: Document,
    detections: Detections,
    values: Mapping[str, float],
    *,
    replicates: int = curve.REPLICATES,
    seed: int = 0,
) -> Intervals:
    """As `coco_intervals`, of VOC's figures."""
    drawn = curve.figures(_voc(truth, detections), _weights(truth, replicates, seed), curve.VOC_RECALLS)
    return {name: _percent(percentile(drawn[name], value / 100)) for name, value in values.items()}


def coco_matches(truth: Document, detections: Detections, kind: str = "bbox") -> dict[str, dict[str, np.ndarray]]:
    """Outcome tables (`bench.matched.packed`) by area (``all``, ``small``, ``medium``, ``large``)."""
    return {
        area: curve.packed(classes, curve.COCO_RECALLS) for area, classes in _by_area(truth, detections, kind).items()
    }


def voc_matches(truth: Document, detections: Detections) -> dict[str, dict[str, np.ndarray]]:
    """As `coco_matches`; VOC knows no areas."""
    return {"all": curve.packed(_voc(truth, detections), curve.VOC_RECALLS)}


def _drawn_coco(truth: Document, detections: Detections, kind: str, weights: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for area, classes in _by_area(truth, detections, kind).items():
        drawn = curve.figures(classes, weights, curve.COCO_RECALLS)
        found |= dict(drawn) if area == "all" else {f"ap_{area}": drawn["ap"]}
    return found


def _by_area(truth: Document, detections: Detections, kind: str) -> dict[str, list[curve.Matched]]:
    cells, images = matching.cells_of(truth, detections, kind), len(truth["images"])
    return {area: [matching.coco(own, images, area) for own in cells.values()] for area in matching.AREAS}


def _voc(truth: Document, detections: Detections) -> list[curve.Matched]:
    rounded = [{**row, "bbox": _to_tenths(row["bbox"]), "score": round(float(row["score"]), 3)} for row in detections]
    position = {number: index for index, number in enumerate(sorted(row["id"] for row in truth["images"]))}
    things: dict[tuple[int, int], tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    for which, rows in enumerate((truth["annotations"], rounded)):
        for row in rows:
            things.setdefault((row["category_id"], row["image_id"]), ([], []))[which].append(row)
    cells: dict[int, list[matching.Found]] = {row["id"]: [] for row in truth["categories"]}
    for (category, image), (objects, hits) in sorted(things.items()):
        scores = np.array([row["score"] for row in hits], dtype=np.float64)
        order = np.argsort(-scores, kind="stable")
        boxes = np.array([hits[i]["bbox"] for i in order], dtype=np.float64).reshape(-1, 4)
        others = np.array([row["bbox"] for row in objects], dtype=np.float64).reshape(-1, 4)
        passed = ("difficult", "iscrowd")
        difficult = np.array([any(row.get(key, 0) for key in passed) for row in objects], dtype=bool)
        areas = np.array([row["area"] for row in objects], dtype=np.float64)
        overlap = matching.overlaps(boxes, others)
        cells[category].append(
            matching.Found(position[image], overlap, scores[order], boxes[:, 2] * boxes[:, 3], areas, difficult)
        )
    return [matching.voc(own, len(position)) for own in cells.values()]


def _to_tenths(box: Sequence[float]) -> list[float]:
    left, top, width, height = box
    corners = [round(value, 1) for value in (left + 1, top + 1, left + width, top + height)]
    return [corners[0] - 1, corners[1] - 1, corners[2] - corners[0] + 1, corners[3] - corners[1] + 1]


def _counting(truth: Document, area: str) -> bool:
    low, high = matching.AREAS[area]
    return any(not row.get("iscrowd", 0) and low <= row["area"] <= high for row in truth["annotations"])


def _weights(truth: Document, replicates: int, seed: int) -> np.ndarray:
    return curve.resampled(len(truth["images"]), replicates, seed)


def _percent(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])
