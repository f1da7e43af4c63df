"""What a network of ours gives, so that one Backbone serves them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A network with stages, a pooled feature and an optional classifier."""

    head_name: str
    """Module name of the classifier."""
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    num_features: int
    """Width of the pooled feature."""
    num_classes: int
    input_size: int
    feature: Literal["avg", "pre_logits", "flat", "attention_pool"] = "avg"
    family: Literal["cnn", "video"] = "cnn"
    class_token: bool = False
    lightness: bool = False
    """Whether its input's first channel is the L of LAB minus 50, in place of standardised RGB."""

    @abstractmethod
    def stages(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """(maps of the pyramid, finest first; pooled feature [B, D]) of images [B, 3, H, W]."""

    def outputs(self, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """(maps, features of the Backbone contract without logits)."""
        maps, pooled = self.stages(images)
        return maps, {"pooled": pooled, "avg": maps[-1].mean((2, 3))}

    def forward(self, images: Tensor) -> Tensor:
        _, pooled = self.stages(images)
        logits: Tensor = self.get_submodule(self.head_name)(pooled)
        return logits
