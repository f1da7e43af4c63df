"""A classifier's calibration as a reliability diagram (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from reports.vega import Document, quantitative, spec

if TYPE_CHECKING:
    from bench.record import Measurement

BINS = 15
"""Of a reliability diagram, of equal width."""


def reliability(m: Measurement, table: Mapping[str, np.ndarray]) -> list[Document]:
    """Accuracy by confidence, with the expected calibration error; nothing where confidences are no shares."""
    confidence, correct = table["confidence"].astype(float), table["correct"].astype(float)
    shares = confidence.shape == correct.shape and confidence.ndim == 1 and len(confidence) > 0
    if not shares or not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        return []
    # (0, 1/15], (1/15, 2/15] ...: a confidence of 1 belongs to the last bin.
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(index, minlength=BINS)
    sums = [np.bincount(index, weights=array, minlength=BINS) for array in (correct, confidence)]
    error = 100 * float(np.abs(sums[0] - sums[1]).sum() / len(correct))
    values = [
        {"low": 100 * b / BINS, "high": 100 * (b + 1) / BINS, "right": round(100 * sums[0][b] / counts[b], 3),
         "said": round(100 * sums[1][b] / counts[b], 3), "n": int(counts[b])}
        for b in np.flatnonzero(counts)
    ]  # fmt: skip
    scale = {"domain": [0, 100]}
    sideways, upright = ("Confidence, %", "Right, %")
    told = [quantitative("said", "Mean confidence, %"), quantitative("right", upright), quantitative("n", "Samples")]
    height = quantitative("right", upright, scale=scale)
    layer = [
        {"data": {"values": values}, "mark": {"type": "rect", "opacity": 0.6},
         "encoding": {"x": quantitative("low", sideways, scale=scale), "x2": {"field": "high"}, "y": height,
                      "y2": {"datum": 0}, "tooltip": told}},
        {"data": {"values": [{"v": 0}, {"v": 100}]}, "mark": {"type": "line", "strokeDash": [4, 4]},
         "encoding": {field: quantitative("v", title, scale=scale)
                      for field, title in (("x", sideways), ("y", upright))}},
        {"data": {"values": values}, "mark": {"type": "point", "filled": True, "size": 50},
         "encoding": {"x": quantitative("said", sideways, scale=scale), "y": height, "tooltip": told}},
    ]  # fmt: skip
    text = (
        f"{m.protocol} on {m.dataset} {m.split}; expected calibration error {error:.2f} points over {BINS} bins. "
        f"Points below the dashed line are overconfident."
    )
    return [spec(f"{m.suite}: calibration", text, layer=layer)]
