"""Sets of texts: sentences or pairs of them with a label each, in memory."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from bench.data.labelled import Labelled, fingerprint_from
from bench.dataset import DecodeError, Text


class TextDataset(Labelled):
    """``texts`` in order; ``targets`` float64 [N] where what is learned is a number, and labels then say nothing."""

    modality = "text"

    def __init__(
        self,
        name: str,
        split: str,
        texts: Sequence[Text],
        labels: Sequence[int] | np.ndarray,
        classes: Sequence[str],
        class_ids: Sequence[int] | None = None,
        *,
        ids: Sequence[str] | None = None,
        targets: np.ndarray | None = None,
    ) -> None:
        super().__init__(name, split, labels, classes, class_ids)
        self._texts = list(texts)
        self._ids = list(ids) if ids is not None else [f"{split}/{row}" for row in range(len(self._texts))]
        self.targets = targets

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    @cached_property
    def fingerprint(self) -> str:
        numbers = self.targets if self.targets is not None else [None] * len(self)
        return fingerprint_from(
            (_digest(text, number) for text, number in zip(self._texts, numbers, strict=True)), self.labels
        )

    def image(self, index: int) -> Text:
        """The sample; raises `DecodeError` for a text that is no valid Unicode (half of a surrogate pair)."""
        text = self._texts[index]
        try:
            text.first.encode()
            (text.second or "").encode()
        except UnicodeEncodeError as error:
            raise DecodeError(self._ids[index], f"no valid Unicode: {error.reason}") from None
        return text

    def _take(self, indices: np.ndarray) -> None:
        self._texts = [self._texts[int(i)] for i in indices]
        self._ids = [self._ids[int(i)] for i in indices]
        self.targets = None if self.targets is None else self.targets[indices]


def _digest(text: Text, number: float | None) -> bytes:
    first = text.first.encode("utf-8", "surrogatepass")
    # Lengths first: no two different pairs have the same bytes.
    content = struct.pack("<q", len(first)) + first
    if text.second is not None:
        content += text.second.encode("utf-8", "surrogatepass")
    else:
        content += b"\xff"
    if number is not None:
        content += b"\xfe" + struct.pack("<d", number)
    return hashlib.sha256(content).digest()
