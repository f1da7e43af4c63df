"""TextTower: the other half of a network that learned from images and texts; adapters implement it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class TextTower(ABC):
    """Texts and images in one space, not normalised; see `bench.backbone.Backbone.text_tower`."""

    digest: str
    """``sha256:...`` of the tower's weights, those that take the image feature into the space included."""
    scale: float
    """What cosines are multiplied by before a softmax: the learned temperature's inverse."""

    @abstractmethod
    def embed(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """float32 [N, J] on ``device``, each text by the tower's own tokenizer."""

    @abstractmethod
    def project(self, pooled: Tensor) -> Tensor:
        """The image feature ``pooled`` [B, D] in the space: [B, J], on the device of ``pooled``."""
