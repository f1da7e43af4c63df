"""Backbone: a frozen network in eval mode, with a Card. Adapters implement it; suites and the engine read it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL import Image

    from bench.card import Card
    from bench.texttower import TextTower


class Backbone(nn.Module, ABC):
    """A frozen network. Adapters return it in eval mode with gradients off; ``card`` says what it is."""

    card: Card
    asked: dict[str, str | None] | None = None
    """What `bench.load` was told beside the SPEC, for a record that is to be repeated; None for a live module."""
    text_source: Callable[[], TextTower] | None = None
    """Makes the text tower when it is asked for: few runs read it."""

    @abstractmethod
    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Features of normalised ``images`` (float [B, 3, H, W]; video networks [B, 3, T, H, W]).

        Returns ``pooled`` [B, D] (the feature that the method's paper evaluates frozen) and, where they exist,
        ``cls`` [B, D] (class token after the final norm), ``avg`` [B, D] (mean of the patch tokens after that norm,
        class and register tokens left out; for CNNs the pooled last map) and ``logits`` [B, C] (the checkpoint's
        own classifier).
        """

    @abstractmethod
    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Maps [B, C_i, ~H/s_i, ~W/s_i], finest first, strides in ``card.strides``."""

    @property
    def depth(self) -> int:
        """Token blocks that `blocks` can read; 0 when there are none."""
        return 0

    def blocks(self, images: Tensor, n: int = 4, norm: bool = True) -> list[tuple[Tensor, Tensor | None]]:
        """The last ``n`` blocks, oldest first, each through the final norm when ``norm``.

        Each is (patch tokens [B, N, D], class token [B, D] or None). Refused for networks without token blocks.
        """
        raise BenchError(f"'{self.card.name}' ({self.card.architecture}) has no token blocks: it is no transformer")

    def text_tower(self) -> TextTower:
        """The tower that puts texts beside this network's images; ``card.text`` says beforehand if there is one."""
        if self.text_source is None:
            raise BenchError(f"'{self.card.name}' ({self.card.architecture}) has no text tower")
        return self.text_source()

    def preprocess(self, image: Image.Image) -> Tensor:
        """A PIL image as the network wants it: float32 [3, H, W], by the card's transform."""
        from bench.transform import apply

        if self.card.transform is None:
            raise BenchError(f"'{self.card.name}' has no image transform")
        tensor: Tensor = apply(self.card.transform, image)
        return tensor

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.features(images)


def checked(images: Any, *, dims: int = 4) -> Tensor:
    """``images`` as they are, where a network can take them: floating-point, ``dims`` dimensions, three channels.

    Raises `BenchError` for anything else, before a layer's own words for it would reach the user.
    """
    wanted = "[B, 3, H, W]" if dims == 4 else "[B, 3, T, H, W]"
    remedy = f"images are normalised, float {wanted}, as backbone.preprocess makes each of them from a PIL image"
    if not isinstance(images, Tensor):
        raise BenchError(f"features are computed from a tensor of images, not from {_a(images)}: {remedy}")
    if not images.is_floating_point():
        raise BenchError(
            f"features are not computed from images of {str(images.dtype).removeprefix('torch.')}: {remedy}"
        )
    if images.ndim != dims or images.shape[1] != 3:
        raise BenchError(f"features are not computed from images of shape {list(images.shape)}: {remedy}")
    return images


def _a(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def freeze(backbone: Backbone) -> Backbone:
    """Eval mode, gradients off."""
    backbone.eval()
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    return backbone


def weight_digest(tensors: Mapping[str, Tensor]) -> str:
    """``sha256:...`` over name, dtype, shape and bytes of each tensor, in order of name.

    The same on every machine and device; a changed bit, name or shape changes it.
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{str(tensor.dtype).removeprefix('torch.')}|{tuple(tensor.shape)}|".encode())
        # numpy has no bfloat16: hash the raw bytes.
        total.update(np.ascontiguousarray(tensor.reshape(-1).view(torch.uint8).numpy()).data)
    return f"sha256:{total.hexdigest()}"
