"""StoredFeatures: features made elsewhere, in the place of a Backbone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.card import Card
    from bench.featureset import ArrayFeatureSet


@dataclass(frozen=True)
class StoredFeatures:
    """Both splits' features with their card (``family`` "features", no transform)."""

    card: Card
    train: ArrayFeatureSet
    test: ArrayFeatureSet


def fingerprint(labels: np.ndarray) -> str:
    """Identity of one split's samples as far as stored features show it: its row count and labels, nothing else.

    ``labels``: int64 [N]. Two feature sets of the same samples have the same fingerprint, whatever their features.
    """
    total = hashlib.sha256(f"features|{len(labels)}|".encode())
    total.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return f"sha256:{total.hexdigest()}"
