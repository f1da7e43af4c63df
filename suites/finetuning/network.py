"""The network that learns: a copy of the Backbone, what it pools, and a new classifier."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.backbone import Backbone
from bench.errors import BenchError
from suites.training.drop_path import set_drop_path

NORM_EPS = 1e-6


class FineTuned(nn.Module):
    """``backbone`` copied (the original is not touched), a pooled feature and a linear classifier of ``classes``.

    ``pool``: ``pooled`` (the feature that the method's paper evaluates frozen), ``cls``, or ``mean``: the mean patch
    token of the last block before the final norm, through a new LayerNorm (BEiT's and MAE's fine-tuning).
    ``forward`` takes a batch (images float32 [B, 3, H, W], labels int64 [B], replaced bool [B]) and returns the loss.
    Raises `BenchError` for a pool that the network does not have, and where ``drop_path`` has no place.
    """

    replaced: Tensor
    """Training images so far that stood in for one that cannot be decoded."""

    def __init__(
        self, backbone: Backbone, classes: int, *, pool: str, head_sd: float, drop_path: float = 0.0,
        mixing: Any = None, smoothing: float = 0.0, checkpointing: bool = False, seed: int = 0,
        dropout: float = 0.0, regression: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(True)
        dims = backbone.card.dims
        width = dims.get({"mean": "avg", "pooler": "cls"}.get(pool, pool))
        if width is None:
            raise BenchError(f"'{backbone.card.name}' has no {pool} feature to fine-tune: --set finetune.pool=pooled")
        self.pool = pool
        self.norm: nn.Module = nn.LayerNorm(width, eps=NORM_EPS) if pool == "mean" else nn.Identity()
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(width, classes)
        generator = torch.Generator().manual_seed(seed)
        if pool == "pooler" and "pooler" not in dims:
            # The checkpoint brings none: a new one in its place, as RoBERTa's classifier has it.
            dense = nn.Linear(width, width)
            with torch.no_grad():
                nn.init.trunc_normal_(dense.weight, std=head_sd, generator=generator)
                dense.bias.zero_()
            self.pool, self.norm = "cls", nn.Sequential(dense, nn.Tanh())
        with torch.no_grad():
            nn.init.trunc_normal_(self.head.weight, std=head_sd, generator=generator)
            self.head.bias.zero_()
        self.mixing = mixing
        self.loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=0.0 if mixing is not None else smoothing)
        self.regression = regression
        if regression:
            self.loss = nn.MSELoss()
        self.register_buffer("replaced", torch.zeros((), dtype=torch.int64))
        set_drop_path(self.trunk, drop_path, backbone.card.architecture, "finetune.drop_path")
        if checkpointing:
            self._checkpoint()

    @property
    def trunk(self) -> nn.Module:
        """The network inside the Backbone."""
        return cast(nn.Module, getattr(self.backbone, "network", self.backbone))

    @property
    def tail(self) -> nn.Module:
        """The Backbone's layers after the trunk that its pooled feature passes, as a folder of texts may have them."""
        own = getattr(self.backbone, "pooling", None)
        return own if self.pool == "pooled" and isinstance(own, nn.Module) else nn.Identity()

    def logits(self, images: Tensor) -> Tensor:
        """[B, classes], or [B, 1] where a number is learned."""
        if self.pool == "mean":
            ((patches, _),) = self.backbone.blocks(images, n=1, norm=False)
            pooled = patches.mean(dim=1)
        else:
            pooled = self.backbone.features(images)[self.pool]
        return cast(Tensor, self.head(self.dropout(self.norm(pooled))))

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels, replaced = batch
        self.replaced += replaced.sum()
        if self.mixing is not None:
            # Soft targets, smoothed by timm's Mixup.
            images, labels = self.mixing(images, labels)
        logits = self.logits(images)
        if self.regression:
            logits, labels = logits.squeeze(1), labels.float()
        return {"loss": self.loss(logits, labels)}

    def _checkpoint(self) -> None:
        switch = getattr(self.trunk, "set_grad_checkpointing", None)
        if switch is None:
            raise BenchError(
                f"'{self.backbone.card.architecture}' cannot recompute its activations: --set finetune.checkpointing=no"
            )
        switch(True)
