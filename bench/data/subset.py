"""A part of a data set, with a name and a fingerprint of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.dataset import Dataset
from bench.modality import modality_of

if TYPE_CHECKING:
    from bench.data.instances import Instances
    from bench.data.squad import Question


class Subset:
    """The samples ``indices`` (ascending) of ``dataset``."""

    def __init__(self, dataset: Dataset, indices: np.ndarray) -> None:
        self._dataset = dataset
        self._indices = indices
        self.name = f"{dataset.name}[{len(indices)} of {len(dataset)}]"
        self.split = dataset.split
        self.modality = modality_of(dataset)
        self.classes = dataset.classes
        self.class_ids = dataset.class_ids

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def labels(self) -> np.ndarray:
        labels: np.ndarray = self._dataset.labels[self._indices]
        return labels

    @property
    def validation(self) -> np.ndarray | None:
        """bool [N]: which of the samples are published as validation; None where the set does not say."""
        whole: np.ndarray | None = getattr(self._dataset, "validation", None)
        return None if whole is None else whole[self._indices]

    @property
    def targets(self) -> np.ndarray | None:
        """float64 [N]: what is learned where it is a number; None where samples have classes."""
        whole: np.ndarray | None = getattr(self._dataset, "targets", None)
        return None if whole is None else whole[self._indices]

    @property
    def ids(self) -> Sequence[str]:
        ids = self._dataset.ids
        return [ids[int(i)] for i in self._indices]

    @property
    def fingerprint(self) -> str:
        # The whole set's content and the choice: alike on every machine, without reading a byte again.
        chosen = hashlib.sha256(self._indices.astype("<i8").tobytes()).hexdigest()
        return f"sha256:{hashlib.sha256(f'{self._dataset.fingerprint}|{chosen}'.encode()).hexdigest()}"

    def image(self, index: int) -> Any:
        return self._dataset.image(int(self._indices[index]))

    def instances(self, index: int) -> Instances:
        """The annotated objects, of a detection set."""
        found: Instances = self._dataset.instances(int(self._indices[index]))  # type: ignore[attr-defined]
        return found

    def image_id(self, index: int) -> int:
        """The number that detections are stored under, of a detection set."""
        return int(self._dataset.image_id(int(self._indices[index])))  # type: ignore[attr-defined]

    @property
    def masked(self) -> bool:
        """Whether every object of the whole has a mask, of a detection set."""
        return bool(self._dataset.masked)  # type: ignore[attr-defined]

    def question(self, index: int) -> Question:
        """The question with its answers, of a set of them."""
        found: Question = self._dataset.question(int(self._indices[index]))  # type: ignore[attr-defined]
        return found

    def mask(self, index: int) -> np.ndarray:
        """The class numbers, of a segmentation set."""
        found: np.ndarray = self._dataset.mask(int(self._indices[index]))  # type: ignore[attr-defined]
        return found
