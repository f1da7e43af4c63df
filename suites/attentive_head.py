"""The module of the attentive probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.backbone import Backbone


class Attentive(nn.Module):
    """LayerNorm of the tokens, one learnt query, multi-head cross-attention, a linear classifier.

    ``forward`` takes a batch (images float32 [B, 3, H, W], labels int64 [B], replaced bool [B]) and returns the loss.
    The backbone is held beside the module: it is not learnt, not saved with it, and never leaves eval mode.
    """

    replaced: Tensor

    def __init__(self, backbone: Backbone, classes: int, heads: int, seed: int) -> None:
        super().__init__()
        if not backbone.depth:
            raise BenchError(f"'{backbone.card.name}' ({backbone.card.architecture}) has no token blocks to attend to")
        self._held = (backbone,)
        width = backbone.card.dims["pooled"]
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.head = nn.Linear(width, classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("norm."):
                    continue
                if parameter.ndim > 1:
                    parameter.copy_(nn.init.trunc_normal_(parameter, std=0.02, generator=generator))
                else:
                    parameter.zero_()
        self.register_buffer("replaced", torch.zeros((), dtype=torch.int64))

    def tokens(self, images: Tensor) -> Tensor:
        """float32 [B, N, D]: class token, where there is one, and patch tokens of the last block after its norm."""
        with torch.no_grad():
            ((patches, token),) = self._held[0].blocks(images, n=1, norm=True)
            return patches if token is None else torch.cat([token[:, None], patches], dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """[B, C]."""
        seen = self.norm(self.tokens(images))
        found, _ = self.attention(self.query.expand(len(images), -1, -1), seen, seen, need_weights=False)
        out: Tensor = self.head(found[:, 0])
        return out

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels, replaced = batch
        self.replaced += replaced.sum()
        return {"loss": nn.functional.cross_entropy(self.logits(images), labels)}
