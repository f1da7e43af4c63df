"""Average precision from matches, for any weights of the images: a bootstrap sorts detections once."""

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
