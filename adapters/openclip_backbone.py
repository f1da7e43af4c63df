"""The image tower of an open_clip model as a Backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapters.clip_text import Linear
from adapters.timm_backbone import TimmBackbone
from bench.backbone import Backbone, freeze
from bench.card import Card
from bench.errors import BenchError


class OpenClipTransformer(Backbone):
    """open_clip's own transformer: ``pooled`` is what it projects into the space of the texts, before that."""

    def __init__(self, visual: Any, card: Card) -> None:
        super().__init__()
        # Its forward then ends before the projection, which is the text tower's to apply.
        self.projection = Linear(visual.proj) if visual.proj is not None else None
        visual.proj = None
        self.network = visual
        width = int(visual.conv1.weight.shape[0])
        # With a pooling by attention the norm that follows is not one over tokens.
        self._tokens = visual.attn_pool is None and not visual.final_ln_after_pool
        dims = {"pooled": int(visual.ln_post.weight.shape[0])}
        if self._tokens:
            dims |= {"cls": width, "avg": width}
        pool = "attention_pool" if visual.attn_pool is not None else {"tok": "cls"}.get(visual.pool_type, "avg")
        self.card = card.model_copy(
            update={
                "family": "vit" if self._tokens else "hybrid",
                "dims": dims,
                "feature": pool,
                "strides": [int(visual.patch_size[0])] if self._tokens else [],
                "channels": [width] if self._tokens else [],
            }
        )
        freeze(self)

    @property
    def depth(self) -> int:
        return len(self.network.transformer.resblocks) if self._tokens else 0

    def features(self, images: Tensor) -> dict[str, Tensor]:
        if not self._tokens:
            return {"pooled": self._read(images, 1, norm=False)["image_features"]}
        read = self._read(images, 1, norm=True)
        return {
            "pooled": read["image_features"],
            "cls": read["image_intermediates_prefix"][-1][:, 0],
            "avg": read["image_intermediates"][-1].mean(dim=1),
        }

    def pyramid(self, images: Tensor) -> list[Tensor]:
        if not self._tokens:
            raise BenchError(f"'{self.card.name}' pools by attention and has no map through its final norm")
        (patches, _) = self.blocks(images, n=1)[-1]
        rows, columns = (side // int(p) for side, p in zip(images.shape[2:], self.network.patch_size, strict=True))
        return [patches.transpose(1, 2).reshape(len(images), -1, rows, columns).contiguous()]

    def blocks(self, images: Tensor, n: int = 4, norm: bool = True) -> list[tuple[Tensor, Tensor | None]]:
        if not self._tokens:
            return super().blocks(images, n, norm)
        if not 1 <= n <= self.depth:
            raise BenchError(f"'{self.card.name}' has {self.depth} blocks: the last {n} cannot be read")
        read = self._read(images, n, norm=norm)
        return [
            (patches, prefix[:, 0])
            for patches, prefix in zip(read["image_intermediates"], read["image_intermediates_prefix"], strict=True)
        ]

    def _read(self, images: Tensor, n: int, *, norm: bool) -> dict[str, Any]:
        size = tuple(images.shape[2:])
        if size != tuple(self.network.image_size):
            wanted = "x".join(map(str, self.network.image_size))
            raise BenchError(f"'{self.card.name}' takes images of {wanted} pixels, not {'x'.join(map(str, size))}")
        read: dict[str, Any] = self.network.forward_intermediates(
            images, indices=n, normalize_intermediates=norm, output_fmt="NLC", output_extra_tokens=True
        )
        return read


class OpenClipResNet(Backbone):
    """CLIP's ResNets: ``pooled`` is what their attention pools, which is the space of the texts already."""

    projection = None

    def __init__(self, visual: Any, card: Card) -> None:
        super().__init__()
        self.network = visual
        last = visual.layer4[-1].conv3.weight.shape[0]
        self.card = card.model_copy(
            update={
                "family": "cnn",
                "dims": {"pooled": int(visual.output_dim), "avg": int(last)},
                "feature": "attention_pool",
                "strides": [4, 8, 16, 32],
                "channels": [int(last) // ratio for ratio in (8, 4, 2, 1)],
            }
        )
        freeze(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.pyramid(images)
        return {"pooled": self.network.attnpool(maps[-1]), "avg": maps[-1].mean((2, 3))}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        x = self.network.stem(images)
        maps = []
        for index in (1, 2, 3, 4):
            x = self.network.get_submodule(f"layer{index}")(x)
            maps.append(x)
        return maps


class OpenClipOther(Backbone):
    """Any other tower: ``pooled`` is its embedding in the space of the texts, and nothing else is read."""

    projection = None

    def __init__(self, visual: nn.Module, card: Card, width: int) -> None:
        super().__init__()
        self.network = visual
        self.card = card.model_copy(update={"family": "hybrid", "dims": {"pooled": width}, "feature": "projected"})
        freeze(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        out = self.network(images)
        pooled: Tensor = out[0] if isinstance(out, tuple) else out
        return {"pooled": pooled}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        raise BenchError(f"'{self.card.name}' ({self.card.architecture}) gives its embedding alone, no maps")


def backbone_of(visual: Any, card: Card, width: int) -> tuple[Backbone, Any]:
    """(the tower as a Backbone, what takes its ``pooled`` into the space of the texts; None: it is there already).

    ``width`` is that of the space.
    """
    kind = type(visual).__name__
    found: Backbone
    if kind == "VisionTransformer" and (visual.attn_pool is None or visual.attn_pool_contrastive is None):
        found = OpenClipTransformer(visual, card)
        return found, found.projection
    if kind == "ModifiedResNet":
        return OpenClipResNet(visual, card), None
    trunk: Any = getattr(visual, "trunk", None)
    if kind == "TimmModel" and not int(getattr(trunk, "num_classes", 1) or 0) and _plain_head(visual.head):
        found = TimmBackbone(trunk, card)
        return found, _Head(visual.head) if len(visual.head) else None
    return OpenClipOther(visual, card, width), None


def _plain_head(head: Any) -> bool:
    """Whether a timm tower's head takes vectors: those that pool maps take more than ``pooled``."""
    return "pool" not in dict(head.named_children())


class _Head:
    """A timm tower's projection, moved to where the features are."""

    def __init__(self, head: nn.Module) -> None:
        self.head = head.eval().requires_grad_(False)

    def __call__(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.head.to(features.device)(features)
        return out
