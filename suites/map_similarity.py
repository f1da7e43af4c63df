"""How alike two maps over an image are: attention or class activation, one value an image.

Maps are float [N, h, w], none negative. Where the grids differ, the second network's map is brought to the first's.
"""

from __future__ import annotations

import numpy as np

TINY = 1e-12
"""Floor of a share inside a logarithm: what interpolation or underflow made 0 costs much, not everything."""


def on_grid(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """``maps`` at [N, height, width], float64: bilinear, antialiased where the grid gets coarser; alike: untouched."""
    if maps.shape[1:] == (height, width):
        return maps.astype(np.float64)
    import torch
    from torch.nn import functional as F

    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float64))[:, None]
    resized = F.interpolate(tensor, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return np.asarray(np.maximum(resized[:, 0].numpy(), 0.0))


def shares(maps: np.ndarray) -> np.ndarray:
    """Each map as shares of its sum, float64 [N, h * w]; NaN for a map that is 0 throughout."""
    rows = maps.reshape(len(maps), -1).astype(np.float64)
    total = rows.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, rows / np.where(total > 0, total, 1.0), np.nan))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of rows [N, P], in [0, 1] for maps; exactly 1 for equal rows, NaN where a row is 0 or not defined."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    value = (a * b).sum(axis=1) / np.where(norms > 0, norms, np.nan)
    return np.asarray(np.where((a == b).all(axis=1) & (norms > 0), 1.0, np.clip(value, -1.0, 1.0)))


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation of rows [N, P] (ties share their mean rank); NaN where all of a row is one value."""
    from scipy.stats import rankdata

    defined = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    out = np.full(len(a), np.nan)
    if not defined.any():
        return out
    ranks = [rankdata(rows[defined], axis=1) for rows in (a, b)]
    first, second = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    # Twice a rank is a whole number: equal ranks are found exactly, and so is a row without any order.
    same = (ranks[0] == ranks[1]).all(axis=1)
    varies = np.minimum(np.ptp(ranks[0], axis=1), np.ptp(ranks[1], axis=1)) > 0
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    value = (first * second).sum(axis=1) / np.where(varies, norms, np.nan)
    out[defined] = np.where(varies & same, 1.0, np.clip(value, -1.0, 1.0))
    return out


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p, q) in nats of rows of shares [N, P]; exactly 0 for equal rows."""
    ratio = np.log(np.maximum(p, TINY)) - np.log(np.maximum(q, TINY))
    return np.asarray(np.maximum((p * ratio).sum(axis=1), 0.0))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats of rows of shares [N, P], in [0, ln 2]; symmetric; exactly 0 for equal rows."""
    middle = (p + q) / 2
    return np.asarray(np.clip((divergence(p, middle) + divergence(q, middle)) / 2, 0.0, np.log(2)))
