"""Average precision from matches, for any weights of the images: a bootstrap sorts detections once.

Matches (which detection met which object at every IoU threshold) are what a record keeps of a detector, so that two
detectors can be compared on the same resampled images without reading detections and objects again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

COCO_RECALLS = np.linspace(0.0, 1.0, 101)
VOC_RECALLS = np.arange(0.0, 1.1, 0.1)
"""The eleven recalls of VOC2007, as the published evaluators spell them."""
REPLICATES = 1_000
CELLS = 4_000_000
"""Weights of detections held at a time."""


class Matched(NamedTuple):
    """The detections of one class, best score first (equal scores: in order of images), and what they met."""

    image: np.ndarray
    """int64 [D]: position of the detection's image."""
    hit: np.ndarray
    """bool [T, D]: it found an object at IoU threshold T."""
    miss: np.ndarray
    """bool [T, D]: it found none. Neither: it met something that does not count."""
    objects: np.ndarray
    """float64 [N]: objects of the class that count, by image."""


def precisions(matched: Matched, weights: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """Interpolated AP float64 [B, T] for image weights [B, N]; NaN where no object is left.

    Precision is made non-increasing from the right and read at the first recall that reaches each of ``recalls``
    (0 where none does), as COCO's and VOC2007's evaluators do. With weights of 1 this is the AP itself; with
    multinomial counts, that of the resampled images, a repeated image's detections standing beside each other.
    """
    total = weights @ matched.objects
    result = np.zeros((len(weights), len(matched.hit)))
    for start in range(0, len(weights), step := max(1, CELLS // max(1, len(matched.image)))):
        part = slice(start, start + step)
        own = weights[part][:, matched.image]
        needed = _needed(total[part], recalls)
        for threshold, (hit, miss) in enumerate(zip(matched.hit, matched.miss, strict=True)):
            (at,) = np.nonzero(hit)
            if not len(at):
                continue
            hits = np.cumsum(own[:, at], axis=1)
            misses = np.cumsum(own * miss, axis=1)[:, at]
            height = hits / np.maximum(hits + misses, 1e-300)
            height = np.maximum.accumulate(height[:, ::-1], axis=1)[:, ::-1]
            result[part, threshold] = _read(hits, height, needed).mean(axis=1)
    result[total == 0] = np.nan
    return result


def _needed(total: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """[B, R]: the smallest whole number of hits whose quotient by ``total`` is at least each recall, as floats have
    it."""
    total = np.maximum(total, 1.0)[:, None]
    guess: np.ndarray = np.floor(recalls * total)
    for _ in range(2):
        guess = np.where((guess > 0) & ((guess - 1) / total >= recalls), guess - 1, guess)
        guess = np.where(guess / total < recalls, guess + 1, guess)
    return guess


def _read(hits: np.ndarray, height: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """``height`` [B, K] at the first place where ``hits`` [B, K] reaches ``needed`` [B, R]; 0 where it never does."""
    rows, k = hits.shape
    # One search for all rows: each row's hits are lifted above those of the row before.
    lift = np.arange(rows)[:, None] * (max(hits[:, -1].max(), needed.max()) + 1)
    found = np.searchsorted((hits + lift).ravel(), (needed + lift).ravel()).reshape(needed.shape)
    found = found - np.arange(rows)[:, None] * k
    padded = np.concatenate([height, np.zeros((rows, 1))], axis=1)
    read: np.ndarray = np.take_along_axis(padded, np.minimum(found, k), axis=1)
    return read


def mean_over_classes(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of [B, T] arrays over the classes that have objects; NaN where none has."""
    stacked = np.stack(values)
    there = np.isfinite(stacked)
    count = there.sum(axis=0)
    sums: np.ndarray = np.where(there, stacked, 0.0).sum(axis=0)
    mean: np.ndarray = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return mean


def resampled(images: int, replicates: int, seed: int) -> np.ndarray:
    """Multinomial weights float64 [replicates, images]: how often each image is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=replicates).astype(np.float64)


def figures(classes: Sequence[Matched], weights: np.ndarray, recalls: np.ndarray) -> Mapping[str, np.ndarray]:
    """``ap`` (mean over thresholds .50 to .95), ``ap50`` and ``ap75``, each float64 [B] in [0, 1], NaN if undefined."""
    by_threshold = mean_over_classes([precisions(matched, weights, recalls) for matched in classes])
    return {"ap": by_threshold.mean(axis=1), "ap50": by_threshold[:, 0], "ap75": by_threshold[:, 5]}


def by_class(classes: Sequence[Matched], recalls: np.ndarray, figure: str = "ap") -> list[float | None]:
    """One of `figures` of each class by itself, in [0, 1]; None for a class without objects."""
    images = len(classes[0].objects)
    found = [float(figures([own], np.ones((1, images)), recalls)[figure][0]) for own in classes]
    return [value if np.isfinite(value) else None for value in found]


def packed(classes: Sequence[Matched], recalls: np.ndarray) -> dict[str, np.ndarray]:
    """The matches of all classes as plain arrays, an outcome table: what `unpacked` reads.

    ``detection_class``, ``detection_image`` int32 [D], in each class best score first; ``hit`` and ``miss`` uint16 [D],
    a bit for each threshold; ``object_class``, ``object_image``, ``object_count`` int32 [M], where there are any;
    ``sizes`` int64 [4]: images, classes, thresholds, recalls.
    """
    counts = np.stack([matched.objects for matched in classes])
    at = np.nonzero(counts)
    lengths = [len(matched.image) for matched in classes]
    return {
        "detection_class": np.repeat(np.arange(len(classes), dtype=np.int32), lengths),
        "detection_image": np.concatenate([matched.image for matched in classes]).astype(np.int32),
        "hit": np.concatenate([_bits(matched.hit) for matched in classes]),
        "miss": np.concatenate([_bits(matched.miss) for matched in classes]),
        "object_class": at[0].astype(np.int32),
        "object_image": at[1].astype(np.int32),
        "object_count": counts[at].astype(np.int32),
        "sizes": np.array([counts.shape[1], len(classes), len(classes[0].hit), len(recalls)], dtype=np.int64),
    }


PACKED = frozenset(
    ("detection_class", "detection_image", "hit", "miss", "object_class", "object_image", "object_count", "sizes")
)


def unpacked(table: Mapping[str, np.ndarray]) -> tuple[list[Matched], np.ndarray]:
    """(the matches of every class, the recalls at which precision is read) of a table that `packed` made.

    Raises `ValueError` for arrays that do not fit together: a table may come from anywhere.
    """
    images, classes, thresholds, points = (int(n) for n in table["sizes"])
    detections, objects = len(table["detection_class"]), len(table["object_class"])
    fits = (
        0 < images <= 2**31
        and 0 < classes <= 2**20
        and thresholds == 10
        and points in (len(COCO_RECALLS), len(VOC_RECALLS))
        and all(len(table[name]) == detections for name in ("detection_image", "hit", "miss"))
        and all(len(table[name]) == objects for name in ("object_image", "object_count"))
        and all(_within(table[f"{what}_class"], classes) for what in ("detection", "object"))
        and all(_within(table[f"{what}_image"], images) for what in ("detection", "object"))
        and bool((np.diff(table["detection_class"]) >= 0).all())
    )
    if not fits:
        raise ValueError("the table's arrays of matches do not fit together")
    ends = np.searchsorted(table["detection_class"], np.arange(classes + 1))
    found = []
    for number in range(classes):
        own = slice(int(ends[number]), int(ends[number + 1]))
        mine = table["object_class"] == number
        counts = np.zeros(images)
        counts[table["object_image"][mine]] = table["object_count"][mine]
        hit, miss = (_flags(table[name][own], thresholds) for name in ("hit", "miss"))
        found.append(Matched(table["detection_image"][own].astype(np.int64), hit, miss, counts))
    return found, COCO_RECALLS if points == len(COCO_RECALLS) else VOC_RECALLS


def _bits(flags: np.ndarray) -> np.ndarray:
    powers = (1 << np.arange(len(flags), dtype=np.uint16)).astype(np.uint16)
    bits: np.ndarray = (flags.T * powers).sum(axis=1, dtype=np.uint16)
    return bits


def _flags(bits: np.ndarray, thresholds: int) -> np.ndarray:
    flags: np.ndarray = (bits[None, :] >> np.arange(thresholds, dtype=bits.dtype)[:, None]) & 1 == 1
    return flags


def _within(values: np.ndarray, most: int) -> bool:
    return not len(values) or bool(values.min() >= 0 and values.max() < most)
