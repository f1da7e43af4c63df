"""Dataset: indexed, labelled images with a fingerprint. Readers live in `bench.data`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Text(NamedTuple):
    """A sample of a text set: a sentence, or a pair of them."""

    first: str
    second: str | None = None


@runtime_checkable
class Dataset(Protocol):
    """One split of a classification set. Cheap to pickle: worker processes receive a copy each."""

    name: str
    """The data set's short name, e.g. ``fashion-mnist``."""
    split: str
    """The split's own name as published: ``train``, ``val``, ``test``."""
    classes: tuple[str, ...]
    """Class names, in order of ``class_ids``."""
    class_ids: tuple[int, ...]
    """The labels that may occur, ascending; gaps and any first number are allowed."""

    @property
    def labels(self) -> np.ndarray:
        """int64 [N]."""

    @property
    def ids(self) -> Sequence[str]:
        """One stable name per sample (a path relative to the root, or ``split/index``)."""

    @property
    def fingerprint(self) -> str:
        """``sha256:...`` of the content and label of every sample in order, alike on every machine."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Any:
        """The decoded RGB image; raises `DecodeError` when it cannot be decoded.

        Of a set whose ``modality`` is ``text`` (see `bench.modality`) the sample is a `Text`, under the same name:
        texts take the way of images.
        """


class Splits(NamedTuple):
    """What a SPEC of data opens: the split to learn from and the split to report on."""

    train: Dataset
    test: Dataset


class DecodeError(Exception):
    """An image that cannot be decoded; the extractor counts and lists these (never a user's last word)."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str]]:
        return DecodeError, (self.path, self.reason)


def fingerprint_of(samples: Iterable[tuple[bytes, int]]) -> str:
    """Fingerprint of (content digest, label) pairs in order of index: content alone, no path, no time, no machine."""
    total = hashlib.sha256()
    for content, label in samples:
        total.update(content)
        total.update(int(label).to_bytes(8, "little", signed=True))
    return f"sha256:{total.hexdigest()}"
