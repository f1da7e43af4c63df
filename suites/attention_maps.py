"""Where a transformer's class token looks: the last block's attention weights, read from any library's network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.card import Card

_SOFTMAX = (torch.softmax, Tensor.softmax, F.softmax)


class _Reader(TorchFunctionMode):
    """Notes the last self-attention that is computed inside, by PyTorch's fused operation or by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: Tensor | None = None
        self._fused: tuple[Tensor, Tensor, Tensor | None, float | None] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return self._layer(args, kwargs)
        out = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False))
            given.update(kwargs)
            query, key = given["query"], given["key"]
            if query.ndim == 4 and query.shape[2] == key.shape[2]:
                self._fused = (query, key, given.get("attn_mask"), given.get("scale"))
                self.weights = None
        elif func in _SOFTMAX and isinstance(out, Tensor) and out.ndim == 4 and out.shape[-1] == out.shape[-2]:
            self.weights, self._fused = out, None
        return out

    def _layer(self, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """torch.nn's own layer, which gives its weights when asked and shows nothing of what it does inside."""
        out, weights = F.multi_head_attention_forward(
            *args, **{**kwargs, "need_weights": True, "average_attn_weights": False}
        )
        assert weights is not None
        if weights.ndim == 4 and weights.shape[-1] == weights.shape[-2]:
            self.weights, self._fused = weights, None
        if not kwargs.get("need_weights", True):
            return out, None
        return out, weights.mean(dim=-3) if kwargs.get("average_attn_weights", True) else weights

    def read(self) -> Tensor | None:
        """float [B, heads, N, N], rows sum to 1; None where nothing was attended to."""
        if self._fused is None:
            return self.weights
        query, key, mask, scale = self._fused
        if key.shape[1] != query.shape[1]:  # Several heads share one key.
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return scores.softmax(dim=-1)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """torch.nn's attention layers by their ordinary way: the fused one for inference shows no weights."""
    mha: Any = torch.backends.mha
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)


def check(card: Card, whose: str) -> None:
    """Raises `BenchError` for a network that has no class token to look from."""
    if card.family != "vit":
        raise BenchError(
            f"{whose} '{card.name}' ({card.architecture}) is no vision transformer, so it has no attention maps: for "
            f"convolutional networks there is suite 'gradcam'"
        )
    if "cls" not in card.dims:
        raise BenchError(
            f"{whose} '{card.name}' ({card.architecture}) has no class token whose attention could be read"
        )


def class_attention(backbone: Backbone, images: Tensor) -> Tensor:
    """What the class token of the last block attends to: float [B, h, w] over the patches, mean of the heads.

    Each map sums to 1: what goes to the class token itself and to registers is left out. ``images`` float [B, 3, H, W],
    normalised. Raises `BenchError` where no attention over the grid of patches is found.
    """
    with _plain_attention(), _Reader() as reader:
        backbone.features(images)
    weights = reader.read()
    card = backbone.card
    stride = card.strides[-1] if card.strides else 0
    height, width = (images.shape[2] // stride, images.shape[3] // stride) if stride else (0, 0)
    patches = height * width
    if weights is None or not patches or weights.shape[-1] <= patches:
        found = "none" if weights is None else f"attention over {weights.shape[-1]} tokens"
        raise BenchError(
            f"'{card.name}' ({card.architecture}) shows no attention of a class token over {height} x {width} patches "
            f"({found} was seen)"
        )
    row: Tensor = weights[:, :, 0, -patches:].float().mean(dim=1)
    row /= row.sum(dim=1, keepdim=True).clamp_min(torch.finfo(row.dtype).tiny)
    return row.reshape(-1, height, width)
