"""Masks of objects: polygons and run lengths of COCO's form as arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.errors import BenchError


def run_lengths(segment: Any, size: tuple[int, int]) -> dict[str, Any]:
    """``segment`` (polygons or RLE) as one compressed RLE for an image of ``size`` (height, width).

    Raises `BenchError` when it is damaged.
    """
    from faster_coco_eval import mask

    try:
        if isinstance(segment, dict):
            if isinstance(segment["counts"], list):
                return dict(mask.frPyObjects(segment, *size))
            return segment
        return dict(mask.merge(mask.frPyObjects(segment, *size)))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise BenchError(
            f"a mask of {size[1]}x{size[0]} pixels cannot be read ({error}): mend the annotation"
        ) from None


def mask_of(segment: Any, size: tuple[int, int]) -> np.ndarray:
    """bool [H, W] of polygons or run lengths."""
    from faster_coco_eval import mask

    found: np.ndarray = np.asarray(mask.decode(run_lengths(segment, size))).astype(bool)
    return found.reshape(size)


def encoded(mask_array: np.ndarray) -> dict[str, Any]:
    """A bool [H, W] mask as compressed RLE with text counts, as COCO's result files have it."""
    from faster_coco_eval import mask

    found = dict(mask.encode(np.asfortranarray(mask_array.astype(np.uint8))))
    counts = found["counts"]
    return {"size": [int(s) for s in found["size"]], "counts": counts.decode() if isinstance(counts, bytes) else counts}
